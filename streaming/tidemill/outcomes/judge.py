"""Outcomes as the marks allow: the join over the index, with the position from which it goes on after a crash.

Everything emitted follows from what stands before a `Position`; a step moves it and yields exactly the outcomes
that the new position adds. So where outcomes and position are written together, a crash neither loses nor
doubles one, whatever the index already holds of what lies ahead.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from tidemill.core.telemetry import get_logger
from tidemill.events.records import Outcome, Prediction, Resolved, decode
from tidemill.outcomes.join import Heard, Indexed, Terms, Truth, history, index, outcomes_of
from tidemill.outcomes.log import Position, Raw
from tidemill.outcomes.state import OutcomeState, StateLost

__all__ = ["Judge", "indexed", "read_prediction"]

_log = get_logger(__name__)
_RESOLVED = msgspec.json.Decoder(Resolved)


class Judge:
    """Judges the predictions of some partitions.

    Args:
        state: the index.
        terms: when a prediction may be judged, and which of its labels count.
        truth: what labels' values say.
        positions: where to begin, by partition.
    """

    def __init__(self, state: OutcomeState, terms: Terms, truth: Truth, positions: Mapping[int, Position]) -> None:
        self._state = state
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

    def hear(self, records: Sequence[Raw]) -> list[Outcome]:
        """Resolved labels and marks of one partition; the corrections that they are to outcomes already written."""
        partition = records[0].partition
        position = self.positions[partition]
        heard, through = self._heard(records, position)
        read = records[-1].offset + 1
        corrections: list[Outcome] = []
        known = self._state.hear(heard, position.written) if heard else {}
        now = replace(position, read=read)
        for prediction, labels in known.values():
            if prediction is not None and prediction.offset < position.written:
                corrections += self._added(prediction, labels, position, now)
        self.positions[partition] = replace(position, read=read, through=through)
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
        self.positions[partition] = replace(position, written=written)
        return outcomes

    def _added(
        self, prediction: Indexed, labels: Sequence[Heard], before: Position | None, now: Position
    ) -> list[Outcome]:
        """The outcomes that a position adds to those of an earlier one (None: the prediction was not judged)."""
        written = 0
        if before is not None:
            known, final = _read_before(prediction, labels, before)
            written = len(history(prediction, known, final=final))
        known, final = _read_before(prediction, labels, now)
        return outcomes_of(prediction, known, self._truth, final=final, after=written)

    def _heard(self, records: Sequence[Raw], position: Position) -> tuple[list[tuple[str, Heard]], int]:
        through = position.through
        heard = []
        for record in records:
            said = _RESOLVED.decode(record.value or b"")
            for place, label in enumerate(said.labels):
                at = (label.available_at, record.offset, through, place)
                known = Heard(label.label_id, label.value, label.labeller, *at, label.reasons)
                heard.append((label.prediction_id, known))
            through = max(through, said.through)
        return heard, through


def _read_before(prediction: Indexed, labels: Sequence[Heard], at: Position) -> tuple[list[Heard], bool]:
    """What a position knows of a prediction: its labels, and whether its horizon has passed."""
    return [label for label in labels if label.offset < at.read], prediction.offset < at.final


def read_prediction(record: Raw) -> Prediction | None:
    """The prediction in a record; None, and a line in the log, for what is none (only the predictor writes there)."""
    try:
        return decode(Prediction, record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.error("skipped what is no prediction", partition=record.partition, offset=record.offset, reason=str(error))
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
