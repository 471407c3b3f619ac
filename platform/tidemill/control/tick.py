"""One tick: read, observe, decide, write down, tell, act. Everything that it remembers can be lost at any line.

The status is written, by compare-and-swap, before anything is done about it. The decisions are published from
the outbox in the status, with ids that make a repeat harmless; what is done follows from the status. A tick that
dies in between leaves a status that says what is left to be done, and the next one does it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from tidemill.control.decide import decide
from tidemill.control.effects import Effects
from tidemill.control.log import LoopLog
from tidemill.control.outcomes import OutcomeFollower
from tidemill.control.protocols import PipelineRunner, ResourceStore, StoredModel
from tidemill.control.rebuild import Traces, rebuild
from tidemill.control.state import LoopStatus, Offsets, Seen, Version, decode_status, encode_status
from tidemill.control.telemetry import DECISIONS
from tidemill.control.turn import Observed
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Corrupt, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.events.records import Signal
from tidemill.registry import Registry
from tidemill.rollout import machine
from tidemill.rollout.driver import TrafficDriver, TrafficWanted
from tidemill.spec.model import ContinualModel

__all__ = ["Labelled", "Loop", "NewClasses", "Parts"]

T = TypeVar("T")

_log = get_logger(__name__)

_TELL_EVERY_MS = 2000
"""How often the status is written for the sake of what was seen alone."""
_FIGURES_EVERY_MS = 30_000
"""How often, where it is to be quiet, for the sake of figures alone."""

Labelled = Callable[[int | None], int | None]
"""Labelled events since a time in milliseconds (None: all); None where they have not been counted."""

NewClasses = Callable[[Version], Mapping[str, int] | None]
"""Labelled events by class that a version does not know, as far as labellers agree; None: not counted."""


@dataclass(frozen=True)
class Parts:
    """What one model's loop works with."""

    log: LoopLog
    runner: PipelineRunner
    driver: TrafficDriver
    registry: Registry
    labelled: Labelled
    close: Callable[[], None] = lambda: None
    """Gives back what the parts hold."""
    new_classes: NewClasses = lambda version: None
    clearing: Callable[[LoopStatus], None] = lambda status: None
    """Clears away what may go by a status, if it is time."""


@dataclass
class Loop:
    """The loop of one model. Call `tick` as often as you like, from one thread."""

    model: str
    store: ResourceStore
    parts: Parts
    clock: Clock
    quiet: bool = False
    """Whether the status is written for the sake of what was seen only where that is news: each write is a call that
    others pay for, too. Else every two seconds, so that its time says how fresh it is."""
    _published: set[str] = field(default_factory=set, init=False)
    """The decisions of the present outbox that are known to be in the log."""
    _troubles: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Make what is kept between ticks."""
        self._outcomes = OutcomeFollower(self.parts.log)
        parts = self.parts
        self._effects = Effects(self.model, parts.runner, parts.driver, parts.registry, parts.clearing)

    def withdraw(self) -> None:
        """The model is gone: end its runs and its serving. Versions, tables and topics stay."""
        self.parts.driver.apply(TrafficWanted())
        for run in self.parts.runner.observe():
            self.parts.runner.stop(run.run)

    def close(self) -> None:
        """Give back connections; another loop of this model goes on where this one was."""
        self.parts.close()

    def tick(self) -> LoopStatus:
        """Go one turn; returns the status after it.

        Raises:
            Conflict: someone else has written meanwhile; nothing was done, and the next tick starts from there.
            NotFound: the model was deleted, or its topics are not there yet.
            Unavailable: the log does not answer, or a lost status cannot be rebuilt yet.
        """
        stored = self.store.get(self.model)
        status, stored = self._status(stored)
        self._publish(status)
        observed, troubles = self._observe(stored.resource, status)
        decided = decide(stored.resource, status, observed, self.clock.now()).status
        seen = self._seen(decided, observed, (*troubles, *self._troubles))
        if decided != status or self._is_to_be_told(seen, status.seen):
            decided = msgspec.structs.replace(decided, seen=seen)
            self.store.put_status(self.model, encode_status(decided), version=stored.version)
            self._publish(decided)
        self._troubles = self._effects.apply(decided, observed)
        return decided

    def _is_to_be_told(self, seen: Seen, told: Seen) -> bool:
        if seen.at < told.at + _TELL_EVERY_MS:
            return False
        if not self.quiet or _at_a_glance(seen) != _at_a_glance(told):
            return True
        return seen.at >= told.at + _FIGURES_EVERY_MS and msgspec.structs.replace(seen, at=told.at) != told

    def _status(self, stored: StoredModel) -> tuple[LoopStatus, StoredModel]:
        """The stored status; one that was lost is rebuilt and written before anything is decided from it."""
        if stored.status is not None:
            try:
                return decode_status(stored.status), stored
            except Corrupt as error:
                _log.error("the status is rebuilt", model=self.model, error=error.message)
        status = self._rebuild(stored.resource)
        return status, self.store.put_status(self.model, encode_status(status), version=stored.version)

    def _rebuild(self, resource: ContinualModel) -> LoopStatus:
        log, registry = self.parts.log, self.parts.registry
        signals, signals_read = self._signals_so_far()
        decisions = log.decisions()
        traces = Traces(
            decisions=decisions,
            aliases=registry.aliases(self.model),
            versions=registry.versions(self.model),
            traffic=self.parts.driver.observe(),
            signals=signals,
        )
        answered = {one.answers for one in decisions if one.answers}
        requests_read, later = self._requests_left(answered)
        status = rebuild(resource, traces, self.clock.now())
        return msgspec.structs.replace(status, signals=signals_read, requests=requests_read, answered=later)

    def _signals_so_far(self) -> tuple[list[Signal], Offsets]:
        found: list[Signal] = []
        read: Offsets = {}
        while True:
            batch = self.parts.log.signals(read)
            found += [one.record for one in batch.records]
            read = batch.read
            if batch.at_end():
                return found, read

    def _requests_left(self, answered: set[str]) -> tuple[Offsets, tuple[str, ...]]:
        """From where requests are to be read: the first without an answer; and the answered ones after it."""
        first: Offsets = {}
        later: list[str] = []
        read: Offsets = {}
        while True:
            batch = self.parts.log.requests(read)
            for one in batch.records:
                if one.record.request_id not in answered:
                    first.setdefault(str(one.source), one.offset)
                elif str(one.source) in first:
                    later.append(one.record.request_id)
            read = batch.read
            if batch.at_end():
                return read | first, tuple(later)

    def _publish(self, status: LoopStatus) -> None:
        missing = [one for one in status.outbox if one.decision_id not in self._published]
        if missing:
            self.parts.log.publish(missing)
            for one in missing:
                DECISIONS.labels(self.model, one.kind).inc()
                _log.info(one.kind, model=self.model, subject=one.subject, reason=one.reason)
        self._published = {one.decision_id for one in status.outbox}

    def _observe(self, resource: ContinualModel, status: LoopStatus) -> tuple[Observed, tuple[str, ...]]:
        """What there is; what cannot be seen is left out, except for the log, without which nothing is decided."""
        troubles: list[str] = []

        # The runs first: what a run said before it ended is then among the requests.
        runs = _look("runs", lambda: tuple(self.parts.runner.observe()), troubles)
        requests = self.parts.log.requests(status.requests)
        signals = self.parts.log.signals(status.signals)
        outcomes = self._outcomes.follow(resource, status)
        observed = Observed(
            requests=tuple(one.record for one in requests.records),
            requests_read=requests.read,
            signals=tuple(one.record for one in signals.records),
            signals_read=signals.read,
            runs=runs,
            traffic=_look("traffic", self.parts.driver.observe, troubles),
            sticky=self.parts.driver.sticky,
            mirrors=self.parts.driver.mirrors,
            labelled=_look("labels", lambda: self._labelled(resource, status), troubles),
            new_classes=_look("new classes", lambda: self._new_classes(resource, status), troubles),
            agreement=outcomes.agreement,
            outcomes_read=outcomes.read,
            copies_read=outcomes.copies_read,
            history=outcomes.history,
            evidence=outcomes.evidence,
            late=outcomes.late,
        )
        return observed, tuple(troubles)

    def _labelled(self, resource: ContinualModel, status: LoopStatus) -> int | None:
        """Labelled events that count to the next run, where anything depends on them."""
        champion = status.champion
        if status.run is not None or status.rollout is not None:
            return None
        if champion is None:
            return self.parts.labelled(None) if resource.spec.model.initial == "dataset" else None
        if resource.spec.triggers.volume is None:
            return None
        return self.parts.labelled(champion.since if champion.data_until is None else champion.data_until)

    def _new_classes(self, resource: ContinualModel, status: LoopStatus) -> Mapping[str, int] | None:
        """Labelled events by class that the champion does not know, where anything depends on them."""
        if status.champion is None or resource.spec.triggers.new_class is None:
            return None
        if status.run is not None or status.rollout is not None:
            return None
        return self.parts.new_classes(status.champion)

    def _seen(self, status: LoopStatus, observed: Observed, troubles: tuple[str, ...]) -> Seen:
        """What was seen, for people; its time stays where nothing has changed."""
        last = status.seen
        seen = Seen(
            at=last.at,
            traffic=observed.traffic or last.traffic,
            labelled=observed.labelled if observed.labelled is not None else last.labelled,
            new_classes=dict(last.new_classes if observed.new_classes is None else observed.new_classes),
            progress=_progress(status, observed),
            history=observed.history,
            rollout=machine.progress(status.rollout, observed.evidence) if status.rollout else {},
            troubles=troubles,
        )
        return last if seen == last else msgspec.structs.replace(seen, at=to_ms(self.clock.now()))


def _progress(status: LoopStatus, observed: Observed) -> str:
    """How far the run in flight is within its step."""
    run = status.run.run if status.run else ""
    return next((seen.progress or "" for seen in observed.runs or () if seen.run == run), "")


def _look(name: str, look: Callable[[], T], troubles: list[str]) -> T | None:
    """What there is, or None and a trouble where it cannot be seen."""
    try:
        return look()
    except TidemillError as error:
        troubles.append(f"{name}: {error.message}")
        return None


def _at_a_glance(seen: Seen) -> tuple[Any, ...]:
    """What people wait to see change: all but figures."""
    traffic = seen.traffic
    versions = tuple((one.version, one.share, one.ready, one.failed) for one in traffic.revisions)
    return versions, traffic.foreign, traffic.unguarded, seen.troubles, seen.progress
