"""What the watch says of the champion, as the loop keeps it: the newest of each quantity, and what no run answered."""

from collections.abc import Iterable

import msgspec

from tidemill.control.state import Drift
from tidemill.control.turn import Turn
from tidemill.events.records import Signal

__all__ = ["newest", "note_signals"]


def note_signals(turn: Turn) -> Turn:
    """Take in what the watch says about the champion; what it says about other versions is history."""
    champion = turn.status.champion
    for signal in turn.observed.signals:
        if champion is not None and signal.version == champion.version:
            turn = turn.change(drift=_with_signal(turn.status.drift, signal, latched=turn.busy is not None))
    return turn


def newest(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """The last signal of each quantity: a feature, or one group of it, of inputs, predictions, labels or errors.

    A rise of the error beyond `triggers.performance` and one that is drift are two things.
    """
    last: dict[tuple[bool, str, str, str | None], Signal] = {}
    for signal in signals:
        key = (signal.kind == "performance", signal.subject, signal.feature, signal.slice)
        last.pop(key, None)  # the newest stand last
        last[key] = signal
    return tuple(last.values())


def _with_signal(drift: Drift, signal: Signal, *, latched: bool) -> Drift:
    """The drift with one more signal; latched, an alarm is shown but asks for nothing."""
    if signal.kind == "state":
        return msgspec.structs.replace(drift, states=newest((*drift.states, signal)))
    pending = drift.pending if latched else newest((*drift.pending, signal))
    return msgspec.structs.replace(drift, alarms=newest((*drift.alarms, signal)), pending=pending)
