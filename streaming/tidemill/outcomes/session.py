"""One life of the outcomes worker, from start to stop or to the first failure.

It keeps nothing that a new life could not find again, so whatever fails, the answer is a new life. The order of
effects makes each exact:

1. *Predictions and labels taken in*: index, then `labels.resolved`, then the lake, then the commit. A crash before
   the commit takes the same records in again: the index keeps first writes, a resolved label is known by its id,
   and the lake drops offsets that it has. Labels that are still searched for in the lake (`late`) hold the commit.
2. *Outcomes*: a crash before `emit` ends leaves neither its outcomes nor its position; the next life starts from
   the last position and finds the same outcomes, because they follow from the log before a position and from
   nothing else (`judge`). A crash after it leaves both. A second worker that still runs is refused by Kafka.
3. *Lake of outcomes*: follows the topic, by offset.
4. *Online rows of labels*, where windows are over labels: after the lake has them and before their commit, fenced
   (`label_rows`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client import Counter

from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.records import Outcome
from tidemill.events.waiting import WAITING as WAITS
from tidemill.metrics.losses import error
from tidemill.outcomes.archive import Archive
from tidemill.outcomes.intake import Intake
from tidemill.outcomes.join import Loss, Terms, Truth
from tidemill.outcomes.judge import Judge, read_resolved
from tidemill.outcomes.label_rows import LabelRows
from tidemill.outcomes.late import Hot, Late
from tidemill.outcomes.log import Channel, Offsets, OutcomeLog, Position, Raw
from tidemill.outcomes.marks import EVERY_S, Marks
from tidemill.outcomes.start import judged_positions, known_gaps, outcome_starts, resolved_starts, starts_of
from tidemill.outcomes.state import OutcomeState
from tidemill.outcomes.tables import Tables
from tidemill.outcomes.telemetry import LABEL_DELAY, LABELLED, LABELS_SEARCHED, LAG, WAITING, begin
from tidemill.spec.model import ContinualModel

__all__ = ["Session", "truth_of"]

FLUSH_S = 2.0
"""Longest time that rows wait for the lake: each commit is one more file that readers must open."""

FLUSH_ROWS = 60_000
"""Rows of all tables that are written at once, however young: a commit of each takes milliseconds."""

RENEW_S = 600.0
"""Kafka forgets the commits of a group after a quiet week; they are repeated long before."""

_LAG_S = 10.0
"""Time between two measurements of how much is to be read: each asks the brokers."""

_HORIZON_S = 60.0
"""Longest time between marks while predictions wait for their horizon: it is days away."""

_log = get_logger(__name__)
_outcomes = Counter(
    "tidemill_outcomes_total", "Outcomes written, first ones and corrections.", ["kind"], registry=REGISTRY
)


class Session:
    """Takes in, resolves, judges; `step` by `step`.

    Raises, on construction and from its methods: `Transient` errors, after which a new session goes on from where
    this one was; `Conflict` where another worker of this model took over, or the log's commits are gone.
    """

    def __init__(
        self,
        resource: ContinualModel,
        log: OutcomeLog,
        state: OutcomeState,
        tables: Tables,
        clock: Clock,
        hot: Hot | None = None,
        rows: LabelRows | None = None,
    ) -> None:
        begin(resource.spec.labels)
        for kind in ("first", "correction"):
            _outcomes.labels(kind)
        self._log, self._state, self._tables, self._clock, self._rows = log, state, tables, clock, rows
        self._emitted = judged_positions(log)
        self._committed: dict[Channel, Offsets] = {
            Channel.PREDICTIONS: starts_of(log, Channel.PREDICTIONS, tables.predictions.table),
            Channel.LABELS: starts_of(log, Channel.LABELS, tables.labels.table),
        }
        if not log.committed(Channel.LABELS):
            # The lake has labels before their predictions are found: without a commit it alone would say what is done.
            log.commit(Channel.LABELS, self._committed[Channel.LABELS])
        if rows is not None:
            rows.settle()
        terms, truth = Terms.of(resource.spec.labels), truth_of(resource)
        self._hot = hot or Hot.of(resource.spec.labels)
        self._late = Late(Archive(tables, log.sources, terms, self._hot.kept), self._hot, clock, self._write)
        self._intake = Intake(resource.spec, log, state, tables, known_gaps(log, tables), self._late)
        self._judge = Judge(state, terms, truth, self._emitted, self._late)
        self._horizon_s = terms.horizon / 1000 if terms.rule.assumes else None
        if not state.is_whole():
            self._rebuild(Judge(state, terms, truth, dict.fromkeys(self._emitted, Position(0, 0))))
        self._through: dict[int, int] = {}
        self._seek()
        self._marks = Marks(log, clock)
        self._flushed = self._renewed = self._looked = self._measured = clock.monotonic()
        WAITS.labels(f"{resource.id}.outcomes").set(0)

    def step(self, wait_s: float = 0.05) -> None:
        """Take in what there is, waiting up to `wait_s` for it, and do all that follows from it."""
        outcomes: list[Outcome] = []
        for channel, records in self._log.poll(wait_s):
            if channel is Channel.PREDICTIONS:
                self._intake.predictions(records)
            elif channel is Channel.LABELS:
                self._intake.labels(records)
            elif channel is Channel.RESOLVED:
                outcomes += self._hear(records)
            else:
                self._intake.outcomes(records)
        if self._some_wait():
            for records in self._log.poll_due(self._judge.hungry()):
                self._judge.take(records)
            outcomes += self._judge.ripe()
            self._marks.advance()
        outcomes += self._horizons()
        self._log.send(self._late.settle())
        if outcomes:
            self._emit(outcomes)
        if self._tables.waiting >= FLUSH_ROWS or self._clock.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits for the lake, and commit."""
        renew = self._clock.monotonic() - self._renewed >= RENEW_S
        self._write()
        for channel, before in self._committed.items():
            offsets = self._log.positions(channel)
            if channel is Channel.LABELS:
                offsets |= self._late.unsettled()
            if renew or offsets != before:
                self._log.commit(channel, offsets)
                self._committed[channel] = offsets
        if renew:
            self._state.restore([])  # and the index is not left alone for long
        if renew or self._judge.positions != self._emitted:
            self._emit([])
        self._flushed = self._clock.monotonic()
        self._renewed = self._flushed if renew else self._renewed
        self._tell()

    def _tell(self) -> None:
        """What waits, and how much is to be read."""
        WAITING.set(sum(max(0, upto - self._judge.positions[part].written) for part, upto in self._intake.upto.items()))
        LABELS_SEARCHED.set(self._late.searched)
        if self._clock.monotonic() - self._measured >= _LAG_S:
            self._measured = self._clock.monotonic()
            ends = self._log.ends(*self._committed)
            for channel in self._committed:
                at = self._log.positions(channel)
                LAG.labels(channel.value).set(sum(max(0, ends[channel, part] - offset) for part, offset in at.items()))

    def _write(self) -> None:
        self._log.flush()
        self._log.check()
        self._intake.keep_words()
        labels = self._tables.flush()
        if self._rows is not None:
            self._rows.settle()  # also when no label comes: readers wait for rows that were lost
            if labels is not None:
                self._rows.apply(labels)

    def _hear(self, records: Sequence[Raw]) -> list[Outcome]:
        partition, read = records[0].partition, records[-1].offset + 1
        heard, through = read_resolved(records, self._through[partition])
        self._through[partition] = through
        self._intake.resolved(partition, heard, records[-1].offset, through)
        return self._judge.hear(partition, heard, read, through)

    def _horizons(self) -> list[Outcome]:
        """What missing labels say. Marks go on while predictions wait for a horizon, the slower the longer it is."""
        if self._horizon_s is None or self._clock.monotonic() - self._looked < EVERY_S:
            return []
        self._looked = self._clock.monotonic()
        outcomes = self._judge.final()
        if any(self._judge.positions[part].final < upto for part, upto in self._intake.upto.items()):
            self._marks.advance(min(_HORIZON_S, max(EVERY_S, self._horizon_s / 100)))
        return outcomes

    def _some_wait(self) -> bool:
        """Whether a prediction was taken in and is not judged."""
        return any(self._judge.positions[part].written < upto for part, upto in self._intake.upto.items())

    def _emit(self, outcomes: Sequence[Outcome]) -> None:
        # In the brokers' time: all that arrived by the newest mark was taken in.
        missing = self._intake.missing(min(at.through for at in self._judge.positions.values()))
        if missing.lost or missing.maybe:
            outcomes = [
                msgspec.structs.replace(outcome, lost=missing.lost, maybe_lost=missing.maybe) for outcome in outcomes
            ]
        self._log.emit(outcomes, self._judge.positions)
        self._emitted = dict(self._judge.positions)
        first = sum(outcome.revision == 0 for outcome in outcomes)
        _outcomes.labels("first").inc(first)
        _outcomes.labels("correction").inc(len(outcomes) - first)
        given = [one for one in outcomes if one.label is not None and not one.assumed]
        first = sum(one.revision == 0 for one in given)
        LABELLED.labels("first").inc(first)
        LABELLED.labels("correction").inc(len(given) - first)
        LABEL_DELAY.add(one.label_age_ms / 1000 for one in given if one.label_age_ms is not None)

    def _seek(self) -> None:
        for channel, offsets in self._committed.items():
            self._log.seek(channel, offsets)
        self._intake.upto = dict(self._committed[Channel.PREDICTIONS])
        starts, self._through = resolved_starts(self._log, self._tables.resolved.table, self._emitted)
        self._log.seek(Channel.RESOLVED, starts)
        self._log.seek_due({part: position.written for part, position in self._emitted.items()})
        self._log.seek(Channel.OUTCOMES, outcome_starts(self._log, self._tables.outcomes.table))

    def _rebuild(self, again: Judge) -> None:
        """Fill the index with all that was taken in before, without writing any of it again."""
        _log.info("the index is rebuilt from the log")
        self._state.begin_rebuild()
        # Predictions that are judged may be taken in again only later; their corrections need them now.
        taken_in = self._committed[Channel.PREDICTIONS]
        known = {part: max(at.written, taken_in[part]) for part, at in self._emitted.items()}
        for channel, until in ((Channel.PREDICTIONS, known), (Channel.LABELS, self._committed[Channel.LABELS])):
            for records in self._log.replay(channel, until):
                self._intake.index_again(channel, [record for record in records if not self._is_old(channel, record)])
        oldest, through = self._oldest(2), dict.fromkeys(self._emitted, -1)
        for records in self._log.replay(Channel.RESOLVED, {part: at.read for part, at in self._emitted.items()}):
            part, read = records[0].partition, records[-1].offset + 1
            heard, through[part] = read_resolved(records, through[part])
            # It has judged nothing, so nothing is a correction.
            again.hear(part, [one for one in heard if one[1].available_at >= oldest], read, through[part])
        self._state.finish_rebuild()

    def _is_old(self, channel: Channel, record: Raw) -> bool:
        """Whether the index would not have it any more: the lake has, and the server need not hold it at once."""
        if channel is Channel.LABELS:
            return record.arrived_at < self._oldest(2)  # one that waited for a prediction which is kept
        written, taken_in = self._emitted[record.partition].written, self._committed[channel][record.partition]
        return record.arrived_at < self._oldest(1) and record.offset < min(written, taken_in)

    def _oldest(self, times: int) -> float:
        """What arrived before this would be out of the index, so many times over, by the newest mark."""
        newest = min(position.through for position in self._emitted.values())
        return newest - times * self._hot.kept.total_seconds() * 1000


def truth_of(resource: ContinualModel) -> Truth:
    """What a resource says of labels' values: their loss, the negative, and whether all predictions are labelled."""
    labels, nothing = resource.spec.labels, {"class": next(iter(resource.spec.prediction.classes), None), "bool": False}
    negative = {field.name: nothing.get(field.type) for field in labels.fields}
    return Truth(_loss_of(resource), negative, certain=labels.control == 1.0)


def _loss_of(resource: ContinualModel) -> Loss:
    """The loss that outcomes carry: the metric `error`; None for a label from an older form of the resource."""
    prediction, fields = resource.spec.prediction, resource.spec.labels.fields

    def loss(output: Mapping[str, Any], label: Mapping[str, Any]) -> float | None:
        try:
            return error(prediction, fields, output, label)
        except InvalidInput:
            return None

    return loss
