"""The loop as a picture with its live state: seven places, what each says now, and where it is at work."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from tidemill.control.state import LoopStatus
from tidemill.dashboard.queries.models import ModelRow

__all__ = ["loop_picture"]

_WIDTH, _HEIGHT, _W, _H = 1080, 268, 220, 84
_PLACES: Mapping[str, tuple[int, int]] = {
    "Events": (10, 14),
    "Features": (290, 14),
    "Serving": (570, 14),
    "Outcomes": (850, 14),
    "Watch": (850, 170),
    "Retrain": (570, 170),
    "Rollout": (290, 170),
}
_WAYS: Mapping[str, str] = {
    "events": "M230 56 H286",
    "features": "M510 56 H566",
    "answers": "M790 56 H846",
    "outcomes": "M960 98 V166",
    "signals": "M850 212 H794",
    "candidate": "M570 212 H514",
    "traffic": "M400 170 C400 128 620 148 640 102",
}
_MOST = 30


@dataclass(frozen=True, slots=True)
class _Place:
    figures: tuple[str, str] = ("", "")
    tone: str = ""


def loop_picture(row: ModelRow, status: LoopStatus | None) -> str:
    """The picture as SVG. Everything in it that came from outside is escaped."""
    places = _places(row, status)
    moving = _moving(row, status)
    ways = "".join(
        f'<path d="{way}" marker-end="url(#tm-end)" class="{"moving" if name in moving else ""}"/>'
        for name, way in _WAYS.items()
    )
    shown = "".join(_drawn(name, places[name]) for name in _PLACES)
    title = escape(f"The loop of {row.name}: {row.phase}")
    return (
        f'<svg class="tm-loop" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        '<defs><marker id="tm-end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 Z"/></marker></defs>'
        f"{ways}{shown}"
        f'<text class="phase" x="12" y="206">{escape(_phase(row))}</text>'
        f'<text class="figure" x="12" y="230">{escape(_short(row.next, 38))}</text></svg>'
    )


def _drawn(name: str, place: _Place) -> str:
    x, y = _PLACES[name]
    lines = "".join(
        f'<text class="figure" x="{x + 16}" y="{y + 48 + 19 * number}">{escape(_short(text))}</text>'
        for number, text in enumerate(place.figures)
        if text
    )
    return (
        f'<g class="{place.tone}"><rect x="{x}" y="{y}" width="{_W}" height="{_H}" rx="10"/>'
        f'<text x="{x + 16}" y="{y + 27}">{name}</text>{lines}</g>'
    )


def _places(row: ModelRow, status: LoopStatus | None) -> dict[str, _Place]:
    alarms = len(row.drift)
    drift = f"{alarms} {'quantity' if alarms == 1 else 'quantities'} moved" if alarms else "nothing has moved"
    return {
        "Events": _Place(("" if row.behind is None else f"{row.behind:,} wait to be taken in", "")),
        "Features": _Place(
            ("no figure yet" if row.fresh_s is None else f"newest is {row.fresh_s:.1f} s old", ""),
            "bad" if row.fresh_ok is False else "",
        ),
        "Serving": _Place(
            (row.champion or "no version yet", " / ".join(f"{one.percent} %" for one in row.traffic)),
            "here" if row.phase in {"Serving", "Watching"} else "",
        ),
        "Outcomes": _Place(_outcomes(row)),
        "Watch": _Place((drift, ", ".join(row.drift)), "warn" if alarms else ""),
        "Retrain": _run(row, status),
        "Rollout": _rollout(row, status),
    }


def _outcomes(row: ModelRow) -> tuple[str, str]:
    seen = row.headline
    if seen is None or seen.error is None:
        return "none came of age yet", ""
    return f"error {seen.error:.2%} of {seen.labelled:,}", f"{seen.waiting:,} labels to come"


def _run(row: ModelRow, status: LoopStatus | None) -> _Place:
    run = status.run if status else None
    if run is None:
        return _Place(("no run", ""), "here" if row.phase == "Bootstrapping" else "")
    progress = status.seen.progress if status else ""
    step = f"step {run.step}" if run.step else "begins"
    return _Place((run.run, f"{step} {progress}".strip()), "here")


def _rollout(row: ModelRow, status: LoopStatus | None) -> _Place:
    state = status.rollout if status else None
    if state is None:
        return _Place(("none under way", ""))
    tone = {"AwaitingApproval": "warn", "RollingBack": "bad"}.get(row.phase, "here")
    paused = ", paused" if state.paused else ""
    return _Place((state.plan.candidate.name, f"{state.phase.replace('-', ' ')} at {state.weight} %{paused}"), tone)


def _moving(row: ModelRow, status: LoopStatus | None) -> set[str]:
    """The ways on which something goes now."""
    found = {"events", "features"} if row.behind is not None else set()
    found |= {"answers", "outcomes"} if row.traffic else set()
    found |= {"signals"} if row.drift else set()
    if status is not None and status.rollout is not None:
        found |= {"traffic"} if status.rollout.weight else {"candidate"}
    return found


def _phase(row: ModelRow) -> str:
    return "Paused" if row.paused else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", row.phase).capitalize()


def _short(text: str, most: int = _MOST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
