"""Outcomes as the marks allow: the join over the index, with the position from which it goes on after a crash.

Everything emitted follows from what stands before a `Position`; a step moves it and yields exactly the outcomes
that the new position adds. So where outcomes and position are written together, a crash neither loses nor
doubles one, whatever the index already holds of what lies ahead.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from tidemill.core.telemetry import get_logger
from tidemill.events.records import Outcome, Prediction, ResolvedLabel, ResolvedThrough, decode
from tidemill.outcomes.gaps import read_count
from tidemill.outcomes.join import Heard, Indexed, Loss, index, outcomes_of
from tidemill.outcomes.log import Position, Raw
from tidemill.outcomes.state import OutcomeState, StateLost
from tidemill.spec.model import Maturity

__all__ = ["Judge", "indexed", "read_prediction"]

_log = get_logger(__name__)


class Judge:
    """Judges the predictions of some partitions.

    Args:
        state: the index.
        maturity: when a prediction may be judged.
        loss: what an answer cost.
        positions: where to begin, by partition.
    """

    def __init__(self, state: OutcomeState, maturity: Maturity, loss: Loss, positions: Mapping[int, Position]) -> None:
        self._state = state
        self._maturity = maturity
        self._loss = loss
        self.positions = dict(positions)
        self._ahead: dict[int, deque[tuple[int, Indexed | None]]] = {partition: deque() for partition in positions}

    def hungry(self) -> list[int]:
        """Partitions of which no prediction is held that waits for its time."""
        return [partition for partition, ahead in self._ahead.items() if not ahead]

    def take(self, records: Sequence[Raw]) -> None:
        """Predictions of one partition, in log order, to be judged when they are due."""
        for record in records:
            prediction = read_prediction(record)
            held = None if prediction is None else indexed(prediction, record, self._maturity)
            self._ahead[record.partition].append((record.offset, held))

    def hear(self, records: Sequence[Raw]) -> list[Outcome]:
        """Resolved labels and marks of one partition; the corrections that they are to outcomes already written."""
        partition = records[0].partition
        position = self.positions[partition]
        heard, through = self._heard(records, position)
        read = records[-1].offset + 1
        corrections: list[Outcome] = []
        known = self._state.hear(heard) if heard else {}
        for prediction, labels in known.values():
            if prediction is not None and prediction.offset < position.written:
                before = self._outcomes(prediction, labels, position.read)
                corrections += self._outcomes(prediction, labels, read)[len(before) :]
        self.positions[partition] = Position(position.written, read, through)
        return corrections

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
        recalled = iter(self._state.recall([of.prediction_id for _, of in due if of is not None]))
        outcomes: list[Outcome] = []
        for offset, prediction in due:
            if prediction is not None:
                kept, labels = next(recalled)
                if kept is None:
                    self._state.begin_rebuild()
                    raise StateLost(f"prediction {prediction.prediction_id} is due and not in the index")
                if kept.due_at > position.through:  # kept under an older, longer maturity
                    break
                if (kept.partition, kept.offset) == (partition, offset):  # else a repeated record
                    outcomes += self._outcomes(kept, labels, position.read)
            ahead.popleft()
            position = Position(offset + 1, position.read, position.through)
        self.positions[partition] = position
        return outcomes

    def _outcomes(self, prediction: Indexed, labels: Sequence[Heard], read: int) -> tuple[Outcome, ...]:
        return outcomes_of(prediction, [label for label in labels if label.offset < read], self._loss)

    def _heard(self, records: Sequence[Raw], position: Position) -> tuple[list[tuple[str, Heard]], int]:
        through = position.through
        heard = []
        for record in records:
            if record.key is None:
                through = max(through, decode(ResolvedThrough, record.value or b"").through)
                continue
            label = decode(ResolvedLabel, record.value or b"")
            heard.append(
                (
                    label.prediction_id,
                    Heard(
                        label.label_id, label.value or {}, label.labeller, label.available_at, record.offset, through
                    ),
                )
            )
        return heard, through


def read_prediction(record: Raw) -> Prediction | None:
    """The prediction in a record; None for a `ServingCount`, and, with a line in the log, for what is neither."""
    try:
        return decode(Prediction, record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if read_count(record.value) is None:  # only the predictor writes there
            place = {"partition": record.partition, "offset": record.offset}
            _log.error("skipped what is no prediction", **place, reason=str(error))
        return None


def indexed(prediction: Prediction, record: Raw, maturity: Maturity) -> Indexed:
    """The prediction as the index keeps it."""
    return index(
        prediction,
        partition=record.partition,
        offset=record.offset,
        appended_at=record.arrived_at,
        maturity=maturity,
    )
