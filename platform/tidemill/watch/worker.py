"""The watch's process: `.sketches`, `.outcomes` and `.decisions` to `.signals`, one reducer per model.

A step reads what is there, reduces it, commits state, offsets and signals as one transaction of the lake's table
`watch`, and then produces the signals. A crash before the commit repeats the step; a crash after it leaves signals
that were not produced: on start those of the last commit are produced again, and readers drop ids they know.

A state that an earlier release wrote is not gone on with: detectors start anew, where the log was read up to, and a
signal says so. The decisions are read again from the log's start, which tells which version serves.
"""

import gc
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from tidemill.artifacts import local_folder, read, verify
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Permanent
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader, RecordWriter, Stamped, ensure_topics
from tidemill.events.records import Decision, Outcome, Record, Signal, Sketch, Topics
from tidemill.spec.model import ContinualModel
from tidemill.watch.detection import state_signal
from tidemill.watch.inputs import Inputs
from tidemill.watch.losses import Judged
from tidemill.watch.plan import WatchPlan, plan_of
from tidemill.watch.reducer import Input, evidence_of, first_state, reduce
from tidemill.watch.reference import FILE, Reference, decode_reference
from tidemill.watch.state import Promotion, WatchState
from tidemill.watch.store import Committed, WatchStore
from tidemill.watch.telemetry import tell
from tidemill.watch.ticks import Arrived

__all__ = ["Watch", "pause_after", "run"]

_log = get_logger(__name__)
R = TypeVar("R", bound=Record)

COMMIT_EVERY_S = 0.5
"""Least time between commits that carry no signal; each costs the lake a file."""
COMMIT_BYTES_A_S = 200_000
"""States are larger the more entities and features there are in open ticks, ten minutes of them by default."""
COMMIT_LATEST_S = 30.0
"""However large the state is: what a commit shows is not older."""
POLL_S = 0.1
"""How long a step waits for sketches; with it a decision is seen late by as much."""


def run(resource: ContinualModel, *, kafka: str, lake: str, clock: Clock, stop: threading.Event) -> None:
    """Watch one model until `stop` is set.

    Raises:
        Unavailable: Kafka or the lake does not answer; starting again goes on from the last commit.
        Conflict: another reducer of this model went on.
    """
    trigger = resource.spec.triggers.drift
    if trigger is None:
        _log.info("no drift trigger: nothing to watch", model=resource.id)
        stop.wait()
        return
    gc.freeze()  # what is imported by now stays: to search it for garbage took three quarters of a reducer's time
    topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
    ensure_topics(kafka, {topics.sketches: 1, topics.decisions: 1, topics.signals: 1})
    kept = resource.spec.labels.maturity.kept
    ensure_topics(kafka, {topics.outcomes: 1}, retention_ms=to_ms(kept))
    with Watch(plan_of(resource, trigger), topics, kafka=kafka, lake=lake, clock=clock) as watch:
        while not stop.is_set():
            watch.step()
        watch.commit()


class Watch:
    """One reducer at work: what it committed last, and what it has reduced since. A context; one thread."""

    def __init__(self, plan: WatchPlan, topics: Topics, *, kafka: str, lake: str, clock: Clock) -> None:
        self._plan, self._topics, self._clock = plan, topics, clock
        self._store = WatchStore(lake, plan.model)
        self._committed = self._store.last() or Committed(sequence=0, state=first_state(plan), offsets={})
        self._signals = list[Signal]()
        self._state = self._committed.state or self._anew()
        self._committed_at, self._pause_s = clock.monotonic(), COMMIT_EVERY_S
        known = self._committed.offsets
        with ExitStack() as stack:
            self._writer = stack.enter_context(RecordWriter(kafka, client_id=f"{plan.model}-watch"))
            said = known if self._committed.state is not None else {}
            self._decisions = stack.enter_context(_reader(kafka, topics.decisions, Decision, said))
            readers: list[RecordReader[Any]] = [stack.enter_context(_reader(kafka, topics.sketches, Sketch, known))]
            if "errors" in plan.watch:
                readers.insert(0, stack.enter_context(_reader(kafka, topics.outcomes, Outcome, known, keyed=True)))
            self._inputs = Inputs(readers)
            self._produce(self._committed.signals)
            while not self._decisions.at_end():  # a promotion comes before the records that came after it
                self._reduce(_promotions(self._decisions.poll(timeout_s=POLL_S)))
            self._stack = stack.pop_all()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self) -> None:
        """Read what is there, or wait a little for it; commit and produce where something was said or is due."""
        self._reduce(_promotions(self._decisions.poll(timeout_s=0)))
        self._reduce([_input(stamped) for stamped in self._inputs.poll(POLL_S)])
        due = self._clock.monotonic() - self._committed_at >= self._pause_s
        if self._signals or (due and _progress(self._state) != _progress(self._committed.state)):
            self.commit()

    def commit(self) -> None:
        """Commit what was reduced since the last commit, if anything was, and produce its signals."""
        offsets = {**self._committed.offsets, **_positions(self._decisions), **self._inputs.positions()}
        if offsets == self._committed.offsets:
            return
        new = Committed(
            sequence=self._committed.sequence + 1,
            state=self._state,
            offsets=offsets,
            signals=tuple(self._signals),
            version=self._state.version,
            time=self._state.closed,
        )
        size = self._store.commit(new, self._committed.offsets, evidence_of(self._state, self._plan))
        self._pause_s = pause_after(size)
        self._committed, self._signals, self._committed_at = new, [], self._clock.monotonic()
        self._produce(new.signals)

    def _anew(self) -> WatchState:
        """The first state, in the place of one that an earlier release wrote; says so."""
        reason = "evidence starts anew: an earlier release of Tidemill wrote the state; what drifts now is found again"
        _log.warning("the watch starts anew", model=self._plan.model, reason=reason)
        version, time = self._committed.version or "", self._committed.time
        self._signals.append(state_signal("watch", reason, version, time, self._plan, "inputs"))
        return first_state(self._plan)

    def _reduce(self, inputs: Sequence[Input]) -> None:
        if inputs:
            self._state, said = reduce(self._state, inputs, self._plan)
            self._signals += said

    def _produce(self, signals: Iterable[Signal]) -> None:
        for signal in signals:
            _log.info("signal", kind=signal.kind, message=signal.message, evidence=round(signal.evidence, 2))
            self._writer.send(self._topics.signals, signal, key=signal.feature)
        self._writer.flush()
        tell(self._plan, self._state, evidence_of(self._state, self._plan), signals)


def pause_after(size: int) -> float:
    """How long no commit without a signal follows one whose state has so many bytes."""
    return min(max(COMMIT_EVERY_S, size / COMMIT_BYTES_A_S), COMMIT_LATEST_S)


def _input(stamped: Stamped[Any]) -> Arrived | Judged:
    if isinstance(stamped.record, Outcome):
        return Judged(stamped.record, str(stamped.source), stamped.offset, stamped.timestamp_ms)
    return Arrived(stamped.record, stamped.timestamp_ms)


def _progress(state: WatchState | None) -> object:
    """What is worth a commit."""
    return state and (state.version, {of: ticks.closed for of, ticks in state.streams.items()})


def _reader(
    kafka: str, topic: str, kind: type[R], offsets: Mapping[str, int], *, keyed: bool = False
) -> RecordReader[R]:
    """A reader that goes on at `offsets` by source; a topic made anew is read from its start."""
    with Cluster(kafka) as cluster:
        sources = cluster.sources(topic)
    known = {number: offsets[str(source)] for number, source in sources.items() if str(source) in offsets}
    return RecordReader(kafka, topic, kind, known, keyed=keyed)


def _positions(reader: RecordReader[R]) -> dict[str, int]:
    return {str(reader.sources[number]): offset for number, offset in reader.offsets().items()}


def _promotions(decisions: Iterable[Stamped[Decision]]) -> list[Promotion]:
    return [
        Promotion(
            version=stamped.record.subject,
            at=stamped.timestamp_ms,
            reference=_reference(stamped.record.subject, stamped.record.figures.get("artifact")),
        )
        for stamped in decisions
        if stamped.record.kind == "promote"
    ]


def _reference(version: str, artifact: object) -> Reference | None:
    """The reference in a version's artifact; None, and why in the log, where there is none that can be used."""
    if not isinstance(artifact, str):
        _log.error("drift is not watched: the promotion names no artifact", version=version)
        return None
    try:
        folder = local_folder(artifact)
        return decode_reference(read(folder, verify(folder), FILE), str(folder / FILE))
    except Permanent as error:
        _log.error("drift is not watched: no reference", version=version, reason=error.message, hint=error.hint)
        return None
