"""Records taken in: into the index, the log of resolved labels, and the rows that wait for the lake."""

from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from tidemill.core.errors import InvalidInput
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.records import Label, Outcome, ServingCount, decode
from tidemill.events.sources import Source
from tidemill.labels.parse import KnownLabel, read_label
from tidemill.outcomes.counts import count_row
from tidemill.outcomes.gaps import Gaps, read_count
from tidemill.outcomes.judge import indexed, read_prediction
from tidemill.outcomes.log import Channel, Offsets, OutcomeLog, Raw
from tidemill.outcomes.resolver import resolve_labels, resolve_predictions
from tidemill.outcomes.state import OutcomeState
from tidemill.outcomes.tables import Tables, label_row, outcome_row, prediction_row, refused_row
from tidemill.spec.model import Spec

__all__ = ["Intake", "Missing"]

_log = get_logger(__name__)
_labels = Counter("tidemill_labels_total", "Labels read, by whether they were accepted", ["result"], registry=REGISTRY)
_answered = Gauge("tidemill_predictions_answered", "Rows that servers say they have answered", registry=REGISTRY)
_lost = Gauge("tidemill_predictions_lost", "Predictions known to be missing from the log", registry=REGISTRY)
_maybe_lost = Gauge("tidemill_predictions_maybe_lost", "More that may be missing, at most", registry=REGISTRY)


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
    """

    def __init__(self, spec: Spec, log: OutcomeLog, state: OutcomeState, tables: Tables, gaps: Gaps) -> None:
        self._spec, self._log, self._state, self._tables, self._gaps = spec, log, state, tables, gaps
        self._words: dict[str, ServingCount] = {}
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
        taken = []
        for record in records:
            prediction = read_prediction(record)
            row = None
            if prediction is not None:
                taken.append(indexed(prediction, record, self._spec.labels.maturity))
                row = prediction_row(prediction, record.arrived_at)
                self._gaps.see(prediction.boot, prediction.seq, at_ms=record.arrived_at, answered=prediction.answered)
            elif (word := read_count(record.value)) is not None:
                self._hear(word, source, record)
            self._tables.predictions.add(source, record.offset, row)
        self._log.send(resolve_predictions(self._state, taken))
        self.upto[records[0].partition] = records[-1].offset + 1

    def labels(self, records: Sequence[Raw]) -> None:
        """Labels of one partition, in log order; one that is refused is kept in the lake with the reason."""
        source = self._log.sources[Channel.LABELS][records[0].partition]
        taken: list[tuple[Label, KnownLabel]] = []
        refused: list[tuple[str, str]] = []
        for record in records:
            label_id = f"{source}@{record.offset}"
            read = self._read(record, label_id)
            if isinstance(read, str):
                refused.append((label_id, read))
                row = refused_row(record.value, read, label_id, record.arrived_at)
            else:
                taken.append(read)
                row = label_row(read[0], label_id, record.arrived_at)
            self._tables.labels.add(source, record.offset, row)
        self._log.send(resolve_labels(self._state, taken))
        if refused:  # one line, however many: each has its reason in the lake
            _log.warning("labels refused", count=len(refused), first=refused[0][0], reason=refused[0][1])
        _labels.labels("accepted").inc(len(taken))
        _labels.labels("refused").inc(len(refused))

    def outcomes(self, records: Sequence[Raw]) -> None:
        """Outcomes of one partition, as they were written."""
        source = self._log.sources[Channel.OUTCOMES][records[0].partition]
        for record in records:
            outcome = decode(Outcome, record.value or b"")
            self._tables.outcomes.add(source, record.offset, outcome_row(outcome, record.arrived_at))

    def index_again(self, channel: Channel, records: Sequence[Raw]) -> None:
        """Put predictions or labels that were taken in before into the index, and nowhere else."""
        if channel is Channel.PREDICTIONS:
            known = [(read_prediction(record), record) for record in records]
            self._state.index([indexed(p, record, self._spec.labels.maturity) for p, record in known if p is not None])
        else:
            source = self._log.sources[Channel.LABELS][records[0].partition]
            read = [self._read(record, f"{source}@{record.offset}") for record in records]
            resolve_labels(self._state, [label for label in read if not isinstance(label, str)])

    def _hear(self, word: ServingCount, source: Source, record: Raw) -> None:
        """What a serving process says of itself; the lake has it where it is anything new."""
        self._gaps.hear(word, record.arrived_at)
        if self._words.get(word.boot) != word:
            self._words[word.boot] = word
            self._tables.counts.add(source, record.offset, count_row(word, record.arrived_at))

    def _read(self, record: Raw, label_id: str) -> tuple[Label, KnownLabel] | str:
        """The label in a record, or why it is refused."""
        try:
            label = read_label(record.value, self._spec.labels.fields, self._spec.prediction.classes)
        except InvalidInput as refusal:
            return refusal.message
        return label, KnownLabel(label_id, label.value or {}, label.labeller, record.arrived_at)
