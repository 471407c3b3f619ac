"""Records taken in: into the index, the log of resolved labels, and the rows that wait for the lake."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import Counter, Gauge

from tidemill.core.clock import to_ms
from tidemill.core.errors import InvalidInput
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.records import Label, ServingCount
from tidemill.events.sources import Source
from tidemill.labels.parse import KnownLabel, read_label
from tidemill.outcomes.counts import count_row
from tidemill.outcomes.gaps import Gaps, read_count
from tidemill.outcomes.join import Heard, Terms
from tidemill.outcomes.judge import indexed, read_prediction
from tidemill.outcomes.late import Late, LateLabel
from tidemill.outcomes.log import Channel, Offsets, OutcomeLog, Raw
from tidemill.outcomes.resolver import resolve_labels, resolve_predictions
from tidemill.outcomes.state import OutcomeState
from tidemill.outcomes.tables import (
    Refused,
    Tables,
    label_columns,
    mark_of,
    outcome_columns,
    prediction_columns,
    refused_columns,
    resolved_columns,
)
from tidemill.spec.model import Spec

__all__ = ["Intake", "Missing"]

_log = get_logger(__name__)
_labels = Counter("tidemill_labels_total", "Labels read, by whether they were accepted.", ["result"], registry=REGISTRY)
_accepted, _refused = _labels.labels("accepted"), _labels.labels("refused")
_answered = Gauge("tidemill_predictions_answered", "Rows that servers say they have answered.", registry=REGISTRY)
_lost = Gauge("tidemill_predictions_lost", "Predictions known to be missing from the log.", registry=REGISTRY)
_maybe_lost = Gauge("tidemill_predictions_maybe_lost", "More that may be missing, at most.", registry=REGISTRY)


class Missing(NamedTuple):
    """Predictions that are missing from the log: known, and how many more at most."""

    lost: int
    maybe: int


class Intake:
    """Takes in the records of one model.

    Args:
        spec: the model's spec.
        log: where resolved labels go.
        state: the index.
        tables: where rows go.
        gaps: what is missing from the prediction log so far.
        late: takes labels whose predictions may have left the index.
    """

    def __init__(
        self, spec: Spec, log: OutcomeLog, state: OutcomeState, tables: Tables, gaps: Gaps, late: Late
    ) -> None:
        self._spec, self._log, self._state, self._tables, self._gaps = spec, log, state, tables, gaps
        self._late = late
        self._terms = Terms.of(spec.labels)
        self._stated = msgspec.json.encode(self._terms).decode()
        self._max_future_ms = to_ms(spec.events.max_future)
        self._words: dict[str, ServingCount] = {}
        self._heard: dict[ServingCount, tuple[Source, Raw]] = {}
        """Words that the lake does not have, or not since so late; of the same words the newest."""
        self.upto: Offsets = {}
        """The offset after the last prediction taken in, by partition."""

    def missing(self, at_ms: int) -> Missing:
        """What is missing; all that arrived by `at_ms` must have been taken in."""
        found = Missing(self._gaps.lost, self._gaps.maybe_lost(at_ms))
        _lost.set(found.lost)
        _maybe_lost.set(found.maybe)
        _answered.set(self._gaps.answered)
        return found

    def predictions(self, records: Sequence[Raw]) -> None:
        """Predictions of one partition, in log order."""
        source = self._log.sources[Channel.PREDICTIONS][records[0].partition]
        read = [(prediction, record) for record in records if (prediction := read_prediction(record)) is not None]
        for prediction, record in read:
            self._gaps.see(prediction.boot, prediction.seq, at_ms=record.arrived_at, answered=prediction.answered)
        if len(read) < len(records):
            known = {record.offset for _, record in read}
            for record in records:
                if record.offset not in known and (word := read_count(record.value)) is not None:
                    self._hear(word, source, record)
        taken = (indexed(prediction, record, self._terms) for prediction, record in read)
        self._log.send(resolve_predictions(self._state, taken))
        columns = prediction_columns([(prediction, record.arrived_at) for prediction, record in read], self._stated)
        self._tables.predictions.add(source, records[-1].offset, [record.offset for _, record in read], columns)
        self.upto[records[0].partition] = records[-1].offset + 1

    def labels(self, records: Sequence[Raw]) -> None:
        """Labels of one partition, in log order; one that is refused is kept in the lake with the reason."""
        source = self._log.sources[Channel.LABELS][records[0].partition]
        taken: list[tuple[Label, KnownLabel]] = []
        offsets: list[int] = []
        refused: list[Refused] = []

        def accepted() -> Iterator[tuple[Label, KnownLabel]]:
            for record in records:
                label_id = f"{prefix}{record.offset}"
                read = self._read(record, label_id)
                if isinstance(read, str):
                    refused.append(Refused(label_id, read, record))
                else:
                    taken.append(read)
                    offsets.append(record.offset)
                    yield read

        prefix = f"{source}@"
        found, by_event = resolve_labels(self._state, accepted())
        self._log.send(found)
        part, newest = records[0].partition, records[-1].arrived_at
        late = (_late(*taken[number], part, offsets[number], known) for number, known in by_event)
        self._late.gather(late, newest)
        table, upto = self._tables.labels, records[-1].offset
        table.add(source, upto, offsets, label_columns(taken))
        if refused:  # one line, however many: each has its reason in the lake
            table.add(source, upto, [one.record.offset for one in refused], refused_columns(refused))
            _log.warning("labels refused", count=len(refused), first=refused[0].label_id, reason=refused[0].reason)
        _accepted.inc(len(taken))
        _refused.inc(len(refused))

    def resolved(self, partition: int, heard: Sequence[tuple[str, Heard]], upto: int, through: int) -> None:
        """Resolved labels of one partition by prediction, up to an offset and the newest mark by then."""
        if heard:
            source, table = self._log.sources[Channel.RESOLVED][partition], self._tables.resolved
            table.add(source, upto, [label.offset for _, label in heard], resolved_columns(heard))
            if through >= 0:
                table.add(mark_of(source), through, [], {})

    def outcomes(self, records: Sequence[Raw]) -> None:
        """Outcomes of one partition, as they were written; what has no key there is none (`LabelAgreement`)."""
        source = self._log.sources[Channel.OUTCOMES][records[0].partition]
        kept = [record for record in records if record.key is not None]
        offsets = [record.offset for record in kept]
        self._tables.outcomes.add(source, records[-1].offset, offsets, outcome_columns(kept))

    def index_again(self, channel: Channel, records: Sequence[Raw]) -> None:
        """Put predictions or labels that were taken in before into the index, and nowhere else."""
        if not records:
            return
        if channel is Channel.PREDICTIONS:
            known = [(read_prediction(record), record) for record in records]
            self._state.index([indexed(p, record, self._terms) for p, record in known if p is not None])
        else:
            source = self._log.sources[Channel.LABELS][records[0].partition]
            read = [self._read(record, f"{source}@{record.offset}") for record in records]
            resolve_labels(self._state, [label for label in read if not isinstance(label, str)])

    def keep_words(self) -> None:
        """Add what processes said to the rows for the lake, if anything is new, or rows of predictions are written.

        For after these the next life begins: it would not hear again that an idle process was still there.
        """
        new = any(self._words.get(word.boot) != word for word in self._heard)
        if not new and not self._tables.predictions:
            return
        for word, (source, record) in sorted(self._heard.items(), key=lambda heard: heard[1][1].offset):
            columns = {name: [value] for name, value in count_row(word, record.arrived_at).items()}
            self._tables.counts.add(source, record.offset, [record.offset], columns)
            self._words[word.boot] = word
        self._heard = {}

    def _hear(self, word: ServingCount, source: Source, record: Raw) -> None:
        """What a serving process says of itself."""
        self._gaps.hear(word, record.arrived_at)
        self._heard[word] = source, record

    def _read(self, record: Raw, label_id: str) -> tuple[Label, KnownLabel] | str:
        """The label in a record, or why it is refused."""
        try:
            label = read_label(record.value, self._spec.labels.fields, latest=record.arrived_at + self._max_future_ms)
        except InvalidInput as refusal:
            return refusal.message
        return label, KnownLabel(label_id, label.value, label.labeller, record.arrived_at, label.reasons)


def _late(said: Label, known: KnownLabel, partition: int, offset: int, predictions: Sequence[str]) -> LateLabel:
    return LateLabel((said.entity or "", said.event_id or ""), known, partition, offset, predictions)
