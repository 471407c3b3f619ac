"""What each declared trigger has seen: a cause, or what it still waits for. In words and figures; pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tidemill.control.schedule import in_zone
from tidemill.control.state import Cause, LoopStatus, Version
from tidemill.core.clock import to_ms
from tidemill.events.records import Signal
from tidemill.spec.model import ContinualModel, VolumeTrigger
from tidemill.spec.triggers import AtLeast, Triggers

__all__ = ["Found", "Known", "Waiting", "causes", "first_version", "needed_together", "together"]


@dataclass(frozen=True)
class Found:
    """A cause that is there."""

    cause: Cause
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    since: int | None = None
    """Event time from which it grew."""


@dataclass(frozen=True)
class Waiting:
    """A cause that is not there yet, and what it waits for."""

    reason: str


@dataclass(frozen=True)
class Known:
    """What causes are told from. None: it has not been counted."""

    resource: ContinualModel
    status: LoopStatus
    now: datetime
    labelled: int | None
    new_classes: Mapping[str, int] | None

    @property
    def triggers(self) -> Triggers:
        """What is declared."""
        return self.resource.spec.triggers


def first_version(known: Known) -> Found | Waiting:
    """The first version, once there is a dataset; no trigger is needed for it."""
    initial = known.resource.spec.model.initial
    if initial != "dataset":
        first = "start the first run with `tidemill retrain`"
        if initial == "version":
            first = "`tidemill adopt` brings the first one"
        return Waiting(f"there is no version yet, and model.initial is {initial}: {first}")
    needed, labelled = _volume(known), known.labelled
    if labelled is None:
        return Waiting(f"the first run needs {needed:,} labelled events; they have not been counted yet")
    if labelled < needed:
        return Waiting(f"the first run needs {needed:,} labelled events; there are {labelled:,}")
    reason = f"{labelled:,} labelled events are there, {needed:,} are needed for the first version"
    return Found("initial", reason, {"labelled": labelled, "needed": needed})


def causes(known: Known, champion: Version) -> dict[str, Found | Waiting]:
    """What each declared trigger says of the champion, by its name, those that matter most first."""
    declared = known.triggers.declared
    return {name: look(known, champion) for name, look in _LOOKS.items() if name in declared}


def needed_together(triggers: Triggers) -> int:
    """How many of the declared triggers must have a cause at the same time."""
    if isinstance(triggers.combine, AtLeast):
        return triggers.combine.at_least
    return len(triggers.declared) if triggers.combine == "all" else 1


def together(found: Mapping[str, Found], needed: int) -> Found:
    """The causes that are there as one: where one is enough the first gives its name, and the others are told too."""
    first, *others = found.values()
    since = min((cause.since for cause in found.values() if cause.since is not None), default=None)
    if needed == 1:
        also = {"also": {name: found[name].reason for name in list(found)[1:]}} if others else {}
        return Found(first.cause, first.reason, first.figures | also, since)
    reason = "; ".join(cause.reason for cause in found.values())
    return Found("combined", reason, {"triggers": {name: cause.figures for name, cause in found.items()}}, since)


def _by_performance(known: Known, champion: Version) -> Found | Waiting:
    """The champion errs more than can be lived with."""
    pending = [signal for signal in known.status.drift.pending if signal.kind == "performance"]
    if pending:
        return _signalled("performance", pending, known)
    rise = known.triggers.performance.rise if known.triggers.performance else 0.0
    states = [signal.message for signal in known.status.drift.states if signal.feature == "performance"]
    caveat = f" ({states[-1]})" if states else ""
    return Waiting(f"no rise of the loss by more than {rise:g} was signalled for version {champion.version}{caveat}")


def _by_drift(known: Known, champion: Version) -> Found | Waiting:
    """The input, the answers, the labels or the loss have moved further than can be lived with; a loss says most."""
    pending = [signal for signal in known.status.drift.pending if signal.kind != "performance"]
    if not pending:
        return Waiting(f"no drift was signalled that is not answered yet for version {champion.version}")
    pending.sort(key=lambda signal: signal.kind != "concept")
    return _signalled("concept" if pending[0].kind == "concept" else "drift", pending, known)


def _by_new_class(known: Known, champion: Version) -> Found | Waiting:
    """Labels name classes that the champion does not know."""
    trigger, counts = known.triggers.new_class, known.new_classes
    needed = trigger.min_examples if trigger else 0
    if counts is None:
        return Waiting(f"examples of new classes have not been counted yet; {needed:,} of one start a run")
    if not counts:
        return Waiting(f"no label names a class that {champion.version} does not know")
    most = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    enough = {name: count for name, count in most.items() if count >= needed}
    if not enough:
        name, count = next(iter(most.items()))
        return Waiting(f"{count:,} of {needed:,} examples of the new class {name!r}")
    named = " and ".join(f"{count:,} examples of {name!r}" for name, count in enough.items())
    reason = f"{named}, which {champion.version} does not know; {needed:,} start a run"
    return Found("newClass", reason, {"new_classes": most, "needed": needed})


def _by_volume(known: Known, champion: Version) -> Found | Waiting:
    """Enough labels have arrived since the champion's data."""
    needed, labelled = _volume(known), known.labelled
    if labelled is None:
        return Waiting(f"new labels since the champion's data have not been counted yet; {needed:,} start a run")
    if labelled < needed:
        return Waiting(f"{labelled:,} of {needed:,} new labels since the champion's data")
    reason = f"{labelled:,} new labels since the champion's data, {needed:,} start a run"
    return Found("volume", reason, {"labelled": labelled, "needed": needed})


def _by_schedule(known: Known, champion: Version) -> Found | Waiting:
    """A firing of the schedule is due that no run has answered."""
    schedule = known.status.schedule
    if schedule is None:
        return Waiting("the schedule counts from the next tick on")
    if schedule.due is None:
        return Waiting(f"the schedule {schedule.cron} ({schedule.timezone}) never fires again")
    at = in_zone(schedule.due, schedule.timezone)
    if to_ms(known.now) < schedule.due:
        return Waiting(f"the next scheduled run is at {at}")
    figures = {"cron": schedule.cron, "timezone": schedule.timezone, "due": schedule.due}
    return Found("schedule", f"scheduled for {at} ({schedule.cron})", figures)


_LOOKS: Mapping[str, Callable[[Known, Version], Found | Waiting]] = {
    "performance": _by_performance,
    "drift": _by_drift,
    "newClass": _by_new_class,
    "volume": _by_volume,
    "schedule": _by_schedule,
}


def _signalled(cause: Cause, pending: Sequence[Signal], known: Known) -> Found:
    figures = {
        "features": [_name(signal) for signal in pending],
        "evidence": {_name(signal): signal.evidence for signal in pending},
        "signals": [signal.signal_id for signal in pending],
        "labelled": known.labelled,
    }
    since = min(signal.since or signal.time for signal in pending)
    return Found(cause, "; ".join(signal.message for signal in pending), figures, since)


def _name(signal: Signal) -> str:
    return signal.feature if signal.slice is None else f"{signal.feature}, {signal.slice}"


def _volume(known: Known) -> int:
    """Labelled rows that start a run; where the spec sets no volume trigger, its default is what the first needs."""
    return (known.triggers.volume or VolumeTrigger()).new_labels
