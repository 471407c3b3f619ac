"""When to retrain, and why not now.

A run starts when there is a cause and nothing stands against it. The causes are tried in the order in which
they matter; each says in words and figures what it saw, or what it still waits for.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tidemill.control.grants import start_run
from tidemill.control.state import Cause, Drift, LoopStatus
from tidemill.control.turn import Turn
from tidemill.core.clock import from_ms
from tidemill.events.records import Request, Signal
from tidemill.spec.model import ContinualModel, VolumeTrigger
from tidemill.spec.quantities import format_duration

__all__ = ["newest", "note_signals", "retrain", "start_due_run", "why_not_now"]


@dataclass(frozen=True)
class Found:
    """A cause that is there."""

    cause: Cause
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    since: int | None = None


@dataclass(frozen=True)
class Waiting:
    """A cause that is not there yet, and what it waits for."""

    reason: str


def note_signals(turn: Turn) -> Turn:
    """Take in what the watch says about the champion; what it says about other versions is history."""
    champion = turn.status.champion
    for signal in turn.observed.signals:
        if champion is not None and signal.version == champion.version:
            turn = turn.change(drift=_with_signal(turn.status.drift, signal, latched=turn.busy is not None))
    return turn


def retrain(turn: Turn, request: Request) -> Turn:
    """A person or a program asks for a run: the cooldown is skipped, all else holds."""
    if turn.busy:
        return turn.say("refuse", request.request_id, turn.busy, answers=request)
    if turn.resource.spec.paused and not request.arguments.get("force"):
        reason = "the model is paused (spec.paused)"
        return turn.say("refuse", request.request_id, reason, {"hint": "--force starts it anyway"}, answers=request)
    said = str(request.arguments.get("reason") or "no reason was given")
    since = min((signal.since or signal.time for signal in turn.status.drift.pending), default=None)
    figures = {"labelled": turn.observed.labelled}
    return start_run(turn, "manual", f"asked for by {request.by}: {said}", figures, since=since, by=request)


def start_due_run(turn: Turn) -> Turn:
    """Start a run if there is a cause and nothing stands against it."""
    if turn.busy or any(_hindrances(turn.resource, turn.status, turn.now)):
        return turn
    found = next((c for c in _causes(turn.resource, turn.status, turn.observed.labelled) if isinstance(c, Found)), None)
    if found is None:
        return turn
    return start_run(turn, found.cause, found.reason, found.figures, since=found.since)


def why_not_now(resource: ContinualModel, status: LoopStatus, now: datetime) -> tuple[str, ...]:
    """The reasons why no run starts now, in words; empty only if one starts at the next tick."""
    if status.run is not None:
        return (f"run {status.run.run} is under way ({status.run.cause}: {status.run.reason})",)
    if status.candidate is not None:
        return (f"candidate {status.candidate.version} is being rolled out",)
    hindrances = tuple(_hindrances(resource, status, now))
    causes = tuple(_causes(resource, status, status.seen.labelled))
    found = tuple(f"there is a cause: {cause.reason}" for cause in causes if isinstance(cause, Found))
    if found:
        return (*hindrances, *found) if hindrances else ()
    waiting = tuple(cause.reason for cause in causes)
    return (*hindrances, *(waiting or ("nothing is declared that would start one (spec.triggers)",)))


def _hindrances(resource: ContinualModel, status: LoopStatus, now: datetime) -> Iterator[str]:
    """What stands against an automatic run besides another one."""
    if resource.spec.paused:
        yield "the model is paused (spec.paused)"
    if status.quiet_from is not None:
        cooldown = resource.spec.triggers.cooldown
        left = from_ms(status.quiet_from) + cooldown - now
        if left > timedelta(0):
            whole = timedelta(seconds=math.ceil(left.total_seconds()))
            yield f"the cooldown of {format_duration(cooldown)} has {format_duration(whole)} left"


_Cause = Callable[[ContinualModel, LoopStatus, int | None], Found | Waiting | None]


def _causes(resource: ContinualModel, status: LoopStatus, labelled: int | None) -> Iterator[Found | Waiting]:
    causes: tuple[_Cause, ...] = (_by_start, _by_concept, _by_drift, _by_volume)
    for cause in causes:
        if (found := cause(resource, status, labelled)) is not None:
            yield found


def _by_start(resource: ContinualModel, status: LoopStatus, labelled: int | None) -> Found | Waiting | None:
    """The first version, once there is a dataset."""
    if status.champion is not None:
        return None
    if resource.spec.model.initial == "none":
        return Waiting(
            "there is no version yet, and model.initial is none: start the first run with `tidemill retrain`"
        )
    needed = _volume(resource)
    if labelled is None:
        return Waiting(f"the first run needs {needed:,} labelled events; they have not been counted yet")
    if labelled < needed:
        return Waiting(f"the first run needs {needed:,} labelled events; there are {labelled:,}")
    reason = f"{labelled:,} labelled events are there, {needed:,} are needed for the first version"
    return Found("initial", reason, {"labelled": labelled, "needed": needed})


def _by_concept(resource: ContinualModel, status: LoopStatus, labelled: int | None) -> Found | Waiting | None:
    """The model errs more than when it was promoted; what moved in its input besides is told, too."""
    pending = status.drift.pending
    watched = resource.spec.triggers.drift is not None and status.champion is not None
    if not watched or all(signal.kind != "concept" for signal in pending):
        return None  # that none was signalled is said of drift in general
    return _signalled("concept", sorted(pending, key=lambda signal: signal.kind != "concept"), labelled)


def _by_drift(resource: ContinualModel, status: LoopStatus, labelled: int | None) -> Found | Waiting | None:
    """The input, the answers or the labels have moved further than can be lived with."""
    if resource.spec.triggers.drift is None or status.champion is None:
        return None
    pending = status.drift.pending
    if not pending:
        return Waiting(f"no drift was signalled that is not answered yet for version {status.champion.version}")
    return _signalled("drift", pending, labelled)


def _signalled(cause: Cause, pending: Sequence[Signal], labelled: int | None) -> Found:
    figures = {
        "features": [_name(signal) for signal in pending],
        "evidence": {_name(signal): signal.evidence for signal in pending},
        "signals": [signal.signal_id for signal in pending],
        "labelled": labelled,
    }
    since = min(signal.since or signal.time for signal in pending)
    return Found(cause, "; ".join(signal.message for signal in pending), figures, since)


def _name(signal: Signal) -> str:
    return signal.feature if signal.slice is None else f"{signal.feature}, {signal.slice}"


def _by_volume(resource: ContinualModel, status: LoopStatus, labelled: int | None) -> Found | Waiting | None:
    """Enough labels have arrived since the champion's data."""
    if resource.spec.triggers.volume is None or status.champion is None:
        return None
    needed = _volume(resource)
    if labelled is None:
        return Waiting(f"new labels since the champion's data have not been counted yet; {needed:,} start a run")
    if labelled < needed:
        return Waiting(f"{labelled:,} of {needed:,} new labels since the champion's data")
    reason = f"{labelled:,} new labels since the champion's data, {needed:,} start a run"
    return Found("volume", reason, {"labelled": labelled, "needed": needed})


def _volume(resource: ContinualModel) -> int:
    """Labelled rows that start a run; where the spec sets no volume trigger, its default is what the first needs."""
    return (resource.spec.triggers.volume or VolumeTrigger()).new_labels


def newest(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """The last signal of each quantity: a feature, or one group of it, of inputs, predictions, labels or errors."""
    last: dict[tuple[str, str, str | None], Signal] = {}
    for signal in signals:
        key = (signal.subject, signal.feature, signal.slice)
        last.pop(key, None)  # the newest stand last
        last[key] = signal
    return tuple(last.values())


def _with_signal(drift: Drift, signal: Signal, *, latched: bool) -> Drift:
    """The drift with one more signal; latched, an alarm is shown but asks for nothing."""
    if signal.kind == "state":
        return msgspec.structs.replace(drift, states=newest((*drift.states, signal)))
    pending = drift.pending if latched else newest((*drift.pending, signal))
    return msgspec.structs.replace(drift, alarms=newest((*drift.alarms, signal)), pending=pending)
