"""A prediction and its labels become outcomes: a pure function of two logs, so that a replay gives the same.

A prediction is judged once, at `eligible_at`, by the labels that had arrived by then: revision 0. Each later
label that changes the result is a correction: revision 1, 2, … What had arrived is read from the records'
own times and from the marks in the log of resolved labels, never from when a worker got round to it.

Revision 0 and the newest revision are those of a batch over predictions and labels. The corrections between
follow the order in which labels were resolved, which a crash may change: one of them may be missing then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tidemill.events.records import Outcome, Prediction
from tidemill.labels.parse import label_order
from tidemill.spec.model import Maturity

__all__ = ["Heard", "Indexed", "Loss", "index", "last", "outcomes_of"]

Loss = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
"""(answer, label value) -> loss in [0, 1], or None where the label cannot say."""


class Indexed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A prediction as the index keeps it: what its outcomes need, and where its record stands.

    Times are milliseconds since the epoch. `predicted_at` is the predictor's time, but no later than the
    record's arrival; `final_at` is when a missing label is final: later ones change nothing.
    """

    prediction_id: str
    version: str
    entity: str
    event_id: str | None
    request_id: str | None
    output: dict[str, Any]
    predicted_at: int
    eligible_at: int
    final_at: int
    appended_at: int
    partition: int
    offset: int

    @property
    def due_at(self) -> int:
        """When it can be judged: it is eligible, and the labels that waited for its record have followed it."""
        return max(self.eligible_at, self.appended_at)


class Heard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A resolved label and where it stands: its offset in `labels.resolved` and the newest mark before it.

    `place` is its number among the labels of that record.
    """

    label_id: str
    value: dict[str, Any]
    labeller: str
    available_at: int
    offset: int
    through: int
    place: int = 0

    @property
    def order(self) -> tuple[int, str, int]:
        """By arrival; within one millisecond by source and offset."""
        return label_order(self.available_at, self.label_id)


def index(prediction: Prediction, *, partition: int, offset: int, appended_at: int, maturity: Maturity) -> Indexed:
    """The prediction as it will be judged; `maturity` is fixed for it from here on."""
    predicted_at = min(prediction.time, appended_at)
    return Indexed(
        prediction.prediction_id,
        prediction.version,
        prediction.entity,
        prediction.event_id,
        prediction.request_id,
        prediction.output,
        predicted_at=predicted_at,
        eligible_at=predicted_at + round(maturity.after.total_seconds() * 1000),
        final_at=predicted_at + round(maturity.horizon.total_seconds() * 1000),
        appended_at=appended_at,
        partition=partition,
        offset=offset,
    )


def last(labels: Sequence[Heard]) -> Heard | None:
    """Among conflicting labels, the one that arrived last; None where there is none."""
    return max(labels, key=lambda heard: heard.order, default=None)


def outcomes_of(prediction: Indexed, heard: Iterable[Heard], loss: Loss) -> tuple[Outcome, ...]:
    """All outcomes of a prediction that is due, by revision.

    With the labels of a longer part of the log the result is the same or longer, never different: what was
    emitted stays true. A label heard twice counts where it was heard first.

    Args:
        prediction: the prediction, due by the marks that were read.
        heard: its labels in that part of the log, in any order.
        loss: what an answer cost, given a label.
    """
    first: dict[str, Heard] = {}
    for label in sorted(heard, key=lambda label: (label.offset, label.place)):
        if label.available_at <= prediction.final_at:
            first.setdefault(label.label_id, label)
    # Nothing is emitted before the first mark at or after due_at; what stands before it may come in any order.
    before = sorted((label for label in first.values() if label.through < prediction.due_at), key=lambda x: x.order)
    decisive = [label for label in before if label.available_at <= prediction.eligible_at]
    later = before[len(decisive) :] + [label for label in first.values() if label.through >= prediction.due_at]
    outcomes = [_outcome(prediction, 0, last(decisive), loss)]
    known = list(decisive)
    for label in later:
        known.append(label)
        winner = last(known)
        if winner is not None and winner.value != outcomes[-1].label:
            outcomes.append(_outcome(prediction, len(outcomes), winner, loss))
    return tuple(outcomes)


def _outcome(prediction: Indexed, revision: int, label: Heard | None, loss: Loss) -> Outcome:
    return Outcome(
        prediction_id=prediction.prediction_id,
        revision=revision,
        version=prediction.version,
        entity=prediction.entity,
        event_id=prediction.event_id,
        request_id=prediction.request_id,
        predicted_at=prediction.predicted_at,
        eligible_at=prediction.eligible_at,
        output=prediction.output,
        label=None if label is None else label.value,
        # A label may stand before the prediction: the event was judged first.
        label_age_ms=None if label is None else max(0, label.available_at - prediction.predicted_at),
        loss=None if label is None else loss(prediction.output, label.value),
    )
