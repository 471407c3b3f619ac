"""Parts of a status in words. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tidemill.control.state import LoopStatus
from tidemill.core.clock import to_ms
from tidemill.rollout.driver import RevisionSeen

__all__ = ["age", "figures_text", "in_order", "shares"]

_LONGEST_FIGURE = 60
_UNTOLD = frozenset(
    {
        "token",
        "expires_at",
        "started_at",
        "ours",
        "reason",
        "champion_artifact",
        "gates",
        "bets",
        "offsets",
        "visible",
        "copies",
    }
)
"""Figures that are for programs, or said in words already; they are in the JSON."""


def age(since_ms: int | None, now: datetime) -> str:
    """How long ago, in the largest unit that is not zero: 40s, 3m, 2h, 4d."""
    if since_ms is None:
        return ""
    seconds = max(0, round((to_ms(now) - since_ms) / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def in_order(status: LoopStatus) -> list[RevisionSeen]:
    """The versions that are seen: the champion, the candidate, others."""
    order = [found.version for found in (status.champion, status.candidate) if found]
    seen = status.seen.traffic.revisions
    return sorted(seen, key=lambda one: order.index(one.version) if one.version in order else len(order))


def shares(status: LoopStatus) -> str | None:
    """The shares that are seen: `100 %`, or champion's and candidate's, `75 % / 25 %`."""
    return " / ".join(f"{one.share} %" for one in in_order(status)) or None


def figures_text(figures: Mapping[str, Any]) -> str:
    """Figures as `name=value`, the short ones only."""
    pairs = (
        (name, _figure(value)) for name, value in figures.items() if name not in _UNTOLD and value not in (None, "")
    )
    return "  ".join(f"{name}={text}" for name, text in pairs if len(text) <= _LONGEST_FIGURE)


def _figure(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, separators=(",", ":"))
