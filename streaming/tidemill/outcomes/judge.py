"""Outcomes as the marks allow: the join over the index, with the position from which it goes on after a crash.

Everything emitted follows from what stands before a `Position`; a step moves it and yields exactly the outcomes
that the new position adds. So where outcomes and position are written together, a crash neither loses nor
doubles one, whatever the index already holds of what lies ahead. What the index holds no longer is found in the
lake (`late`), where it is the same.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from tidemill.core.telemetry import get_logger
from tidemill.events.records import Outcome, Prediction, Resolved, decode
from tidemill.outcomes.gaps import read_count
from tidemill.outcomes.horizon import Horizon
from tidemill.outcomes.join import Heard, Indexed, Terms, Truth, history, index, outcomes_of
from tidemill.outcomes.late import Late
from tidemill.outcomes.log import Position, Raw
from tidemill.outcomes.state import OutcomeState, Recalled, StateLost

__all__ = ["Judge", "indexed", "read_prediction", "read_resolved"]

_log = get_logger(__name__)
_RESOLVED = msgspec.json.Decoder(Resolved)


class Judge:
    """Judges the predictions of some partitions.

    Args:
        state: the index.
        terms: when a prediction may be judged, and which of its labels count.
        truth: what labels' values say.
        positions: where to begin, by partition.
        late: finds predictions that the index no longer has; None: they are not looked for.
    """

    def __init__(
        self,
        state: OutcomeState,
        terms: Terms,
        truth: Truth,
        positions: Mapping[int, Position],
        late: Late | None = None,
    ) -> None:
        self._state = state
        self._late = late
        self._horizon = None if late is None else Horizon(late.archive, positions)
        self._terms = terms
        self._truth = truth
        self.positions = dict(positions)
        self._ahead: dict[int, deque[tuple[int, Indexed | None]]] = {partition: deque() for partition in positions}

    def hungry(self) -> list[int]:
        """Partitions of which no prediction is held that waits for its time."""
        return [partition for partition, ahead in self._ahead.items() if not ahead]

    def take(self, records: Sequence[Raw]) -> None:
        """Predictions of one partition, in log order, to be judged when they are due."""
        for record in records:
            prediction = read_prediction(record)
            held = None if prediction is None else indexed(prediction, record, self._terms)
            self._ahead[record.partition].append((record.offset, held))

    def hear(self, partition: int, heard: Sequence[tuple[str, Heard]], read: int, through: int) -> list[Outcome]:
        """Resolved labels of one partition by prediction; the corrections that they are to outcomes already written.

        Args:
            partition: the partition.
            heard: what was read of it, in log order; what the position knows already is left out.
            read: the offset after what was read.
            through: the newest mark before `read`.
        """
        position = self.positions[partition]
        if read <= position.read:
            return []
        corrections: list[Outcome] = []
        now = replace(position, read=read)
        for prediction, labels in self._known([of for of in heard if of[1].offset >= position.read], position):
            if prediction is not None and prediction.offset < position.written:
                corrections += self._added(prediction, labels, position, now)
        self.positions[partition] = replace(position, read=read, through=through)
        return corrections

    def final(self) -> list[Outcome]:
        """The outcomes of predictions whose horizon has passed by the marks, where a missing label says something."""
        return [outcome for partition in self._ahead for outcome in self._final(partition)]

    def ripe(self) -> list[Outcome]:
        """The outcomes of all predictions held that are due by the marks."""
        return [outcome for partition in self._ahead for outcome in self._ripe(partition)]

    def _ripe(self, partition: int) -> list[Outcome]:
        ahead, position = self._ahead[partition], self.positions[partition]
        due = []
        for offset, prediction in ahead:
            if prediction is not None and prediction.due_at > position.through:
                break
            due.append((offset, prediction))
        if not due:
            return []
        recalled = self._state.recall([of.prediction_id for _, of in due if of is not None])
        outcomes: list[Outcome] = []
        written = position.written
        for offset, prediction in due:
            if prediction is not None:
                kept, labels = next(recalled)
                if kept is None:
                    self._state.begin_rebuild()
                    raise StateLost(f"prediction {prediction.prediction_id} is due and not in the index")
                if kept.due_at > position.through:  # kept under an older, longer maturity
                    break
                if (kept.partition, kept.offset) == (partition, offset):  # else a repeated record
                    outcomes += self._added(kept, labels, None, position)
            ahead.popleft()
            written = offset + 1
        deque(recalled, 0)  # its end says that the index was whole
        self.positions[partition] = replace(position, written=written)
        return outcomes

    def _final(self, partition: int) -> list[Outcome]:
        if self._horizon is None:
            return []
        outcomes: list[Outcome] = []
        position = self.positions[partition]
        due, done = self._horizon.due(partition, position), 0
        for waiting, (kept, labels) in zip(due, self._recalled([of.prediction_id for of in due]), strict=True):
            if kept is None:
                _log.error("its horizon passed and it is nowhere to be found", prediction=waiting.prediction_id)
            elif (kept.partition, kept.offset) == (partition, waiting.offset):  # else a repeated record
                if kept.final_due_at > position.through:  # kept on older terms
                    break
                now = replace(position, final=waiting.offset + 1)
                outcomes += self._added(kept, labels, position, now)
            done += 1
        self._horizon.drop(partition, done)
        final = min(self._horizon.before(partition), position.written)
        self.positions[partition] = replace(position, final=max(position.final, final))
        return outcomes

    def _known(self, heard: Sequence[tuple[str, Heard]], position: Position) -> Iterator[Recalled]:
        """Keep labels; what is known then of their predictions, those that may be judged already."""
        if not heard:
            return
        missing: dict[str, list[Heard]] = {}
        for of, known in self._state.hear(heard, position.written):
            if known[0] is None:
                missing[of] = known[1]
            else:
                yield known
        if missing and self._late is not None:
            newest: dict[str, int] = {}
            for of, label in heard:
                if of in missing:
                    newest[of] = max(label.available_at, newest.get(of, 0))
            found = self._late.recall(newest)
            # The labels first: where the index has a prediction, it has all that was heard of it.
            deque(self._state.hear([(of, label) for of, (_, labels) in found.items() for label in labels], 0), 0)
            self._state.restore([prediction for prediction, _ in found.values()])
            for of, (prediction, labels) in found.items():
                yield prediction, [*labels, *missing[of]]

    def _recalled(self, predictions: Sequence[str]) -> list[Recalled]:
        """What is known of each prediction, in the index or else in the lake."""
        recalled = list(self._state.recall(predictions)) if predictions else []
        missing = [of for of, (kept, _) in zip(predictions, recalled, strict=True) if kept is None]
        found = self._late.archive.recall(missing) if self._late is not None else {}
        return [found.get(of, known) for of, known in zip(predictions, recalled, strict=True)]

    def _added(
        self, prediction: Indexed, labels: Sequence[Heard], before: Position | None, now: Position
    ) -> list[Outcome]:
        """The outcomes that a position adds to those of an earlier one (None: the prediction was not judged)."""
        known, final = _read_before(prediction, labels, now)
        if before is None:
            return outcomes_of(prediction, known, self._truth, final=final)
        earlier, was_final = _read_before(prediction, labels, before)
        if not earlier and not was_final:  # nothing was said yet, as of nearly all: that was revision 0
            return outcomes_of(prediction, known, self._truth, final=final, after=1)
        written = len(history(prediction, earlier, final=was_final))
        return outcomes_of(prediction, known, self._truth, final=final, after=written)


def read_resolved(records: Sequence[Raw], through: int) -> tuple[list[tuple[str, Heard]], int]:
    """The labels in records of one partition by prediction, and the newest mark; `through` is that before them."""
    heard = []
    for record in records:
        said = _RESOLVED.decode(record.value or b"")
        for place, label in enumerate(said.labels):
            at = (label.available_at, record.offset, through, place)
            known = Heard(label.label_id, label.value, label.labeller, *at, label.reasons)
            heard.append((label.prediction_id, known))
        through = max(through, said.through)
    return heard, through


def _read_before(prediction: Indexed, labels: Sequence[Heard], at: Position) -> tuple[Sequence[Heard], bool]:
    """What a position knows of a prediction: its labels, and whether its horizon has passed."""
    if len(labels) == 1:
        known = labels if labels[0].offset < at.read else ()
    else:
        known = [label for label in labels if label.offset < at.read]
    return known, prediction.offset < at.final


def read_prediction(record: Raw) -> Prediction | None:
    """The prediction in a record; None for a `ServingCount`, and, with a line in the log, for what is neither."""
    try:
        return decode(Prediction, record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if read_count(record.value) is None:  # only the predictor writes there
            place = {"partition": record.partition, "offset": record.offset}
            _log.error("skipped what is no prediction", **place, reason=str(error))
        return None


def indexed(prediction: Prediction, record: Raw, terms: Terms) -> Indexed:
    """The prediction as the index keeps it."""
    return index(
        prediction,
        partition=record.partition,
        offset=record.offset,
        appended_at=record.arrived_at,
        terms=terms,
    )
