"""What happened to a model and why: decisions, alarms and what people did, in one line of time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tidemill.control.state import LoopStatus
from tidemill.control.words import figures_text
from tidemill.dashboard.audit import Done

__all__ = ["Entry", "Tone", "timeline"]

Tone = Literal["good", "bad", "warn", "run", "plain"]

_TONES: Mapping[str, Tone] = {
    "promote": "good",
    "approve": "good",
    "go-on": "good",
    "watch-ended": "good",
    "release-runs": "good",
    "roll-back": "bad",
    "rolled-back": "bad",
    "run-failed": "bad",
    "refuse": "bad",
    "hold": "warn",
    "hold-runs": "warn",
    "await-approval": "warn",
    "pause": "warn",
    "start-run": "run",
    "grant": "run",
    "start-rollout": "run",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    time: int
    """Milliseconds since the epoch."""
    kind: str
    subject: str
    """The run, version, request, feature or person that it is about."""
    reason: str
    figures: str
    tone: Tone


def timeline(status: LoopStatus | None, done: Iterable[Done] = (), most: int = 60) -> tuple[Entry, ...]:
    """The newest first: decisions as control keeps them, alarms of drift, and labels that people said on the page."""
    found: list[Entry] = []
    if status is not None:
        found += [
            Entry(one.time, one.kind, one.subject, one.reason, figures_text(one.figures), _TONES.get(one.kind, "plain"))
            for one in status.decisions
        ]
        alarms = {one.signal_id: one for one in (*status.drift.alarms, *status.drift.pending)}
        found += [
            Entry(one.time, one.kind, one.feature, one.message, f"evidence={one.evidence:.3g}", "warn")
            for one in alarms.values()
        ]
    # Requests stand as decisions already.
    found += [
        Entry(one.time, "labels", one.by, f"{one.told.get('labels', 1)} {one.result}", "", "plain")
        for one in done
        if one.action == "label" and one.result in {"done", "undone"}
    ]
    return tuple(sorted(found, key=lambda one: -one.time)[:most])
