"""A prediction and its labels become outcomes: a pure function of two logs, so that a replay gives the same.

A prediction is judged once, at `eligible_at`, by the labels that had arrived by then: revision 0. What changes the
result afterwards is a correction: revision 1, 2, … That is a later label; and at the horizon, where the resource
takes a missing label for the negative one, that there is none. What had arrived is read from the records' own times
and from the marks in the log of resolved labels, never from when a worker got round to it.

Revision 0, whether a label is missing at the horizon, and the newest revision are those of a batch over predictions
and labels. The corrections between follow the order in which labels were resolved, which a crash may change: one
of them may be missing then.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tidemill.core.clock import to_ms
from tidemill.events.records import Outcome, Prediction
from tidemill.outcomes.conflict import Heard, Rule, probability, rule_of, winner
from tidemill.spec.model import Labels

__all__ = ["Heard", "Indexed", "Loss", "Result", "Rule", "Terms", "Truth", "history", "index", "outcomes_of"]

Loss = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
"""(answer, label value) -> loss in [0, 1], or None where the label cannot say."""


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """On what terms predictions are judged; they are fixed for each when it is indexed. Milliseconds."""

    after: int
    horizon: int
    rule: Rule = Rule()

    @classmethod
    def of(cls, labels: Labels) -> "Terms":
        """Those that a resource states."""
        after, horizon = labels.maturity.after, labels.maturity.horizon
        return cls(to_ms(after), to_ms(horizon), rule_of(labels))


class Indexed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="p"):
    """A prediction as the index keeps it: what its outcomes need, and where its record stands.

    Times are milliseconds since the epoch. `predicted_at` is the predictor's time, but no later than the
    record's arrival; `final_at` is the horizon.
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
    cohort: str | None = None
    sample: float = 1.0
    rule: Rule = Rule()

    @property
    def due_at(self) -> int:
        """When it can be judged: it is eligible, and the labels that waited for its record have followed it."""
        return max(self.eligible_at, self.appended_at)

    @property
    def final_due_at(self) -> int:
        """When it can be said that a label is missing at the horizon."""
        return max(self.final_at, self.appended_at)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the resource says of labels' values."""

    loss: Loss
    negative: Mapping[str, Any]
    """The value that stands for a missing label."""
    certain: bool = False
    """Whether every prediction is sure to be labelled (`labels.control: 1`)."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """What is known of a prediction at some moment."""

    label: Heard | None = None
    disputed: bool = False
    assumed: bool = False
    probability: float | None = None

    def says(self) -> tuple[Mapping[str, Any] | None, bool, bool]:
        """What makes it another result than the one before."""
        return None if self.label is None else self.label.value, self.disputed, self.assumed


def index(prediction: Prediction, *, partition: int, offset: int, appended_at: int, terms: Terms) -> Indexed:
    """The prediction as it will be judged."""
    predicted_at = min(prediction.time, appended_at)
    return Indexed(
        prediction.prediction_id,
        prediction.version,
        prediction.entity,
        prediction.event_id,
        prediction.request_id,
        prediction.output,
        predicted_at=predicted_at,
        eligible_at=predicted_at + terms.after,
        final_at=predicted_at + terms.horizon,
        appended_at=appended_at,
        partition=partition,
        offset=offset,
        cohort=prediction.cohort,
        sample=prediction.sample,
        rule=terms.rule,
    )


def history(prediction: Indexed, heard: Iterable[Heard], *, final: bool = False) -> list[Result]:
    """The results of a prediction that is due, by revision.

    With the labels of a longer part of the log, or with `final`, it is the same or longer, never different: what was
    emitted stays true. A label heard twice counts where it was heard first.

    Args:
        prediction: the prediction, due by the marks that were read.
        heard: its labels in that part of the log, in any order.
        final: whether the marks that were read have reached its horizon.
    """
    labels = list(heard)
    if len(labels) < 2 and not prediction.rule.assumes:
        return _history_of_one(prediction, labels)
    first: dict[str, Heard] = {}
    for label in sorted(labels, key=lambda label: (label.offset, label.place)):
        first.setdefault(label.label_id, label)
    # Nothing is emitted before the first mark at or after due_at; what stands before it may come in any order.
    before = sorted((label for label in first.values() if label.through < prediction.due_at), key=lambda x: x.order)
    known = [label for label in before if label.available_at <= prediction.eligible_at]
    later = before[len(known) :] + [label for label in first.values() if label.through >= prediction.due_at]
    results = [_result(known, prediction.rule)]
    for step in _with_horizon(prediction, later, final) if prediction.rule.assumes else later:
        if step is None:
            now = Result(assumed=True) if all(label.value is None for label in known) else results[-1]
        else:
            known.append(step)
            now = results[-1] if step.value is None else _result(known, prediction.rule)
        if now.says() != results[-1].says():
            results.append(now)
    return results


def _history_of_one(prediction: Indexed, labels: list[Heard]) -> list[Result]:
    """The same for no label or a single one, which nearly all predictions have: no order, no conflict, no pick."""
    if not labels or labels[0].value is None:
        return [Result()]
    (label,) = labels
    if label.through < prediction.due_at and label.available_at <= prediction.eligible_at:
        return [Result(label)]
    return [Result(), Result(label)]


def outcomes_of(
    prediction: Indexed, heard: Iterable[Heard], truth: Truth, *, final: bool = False, after: int = 0
) -> list[Outcome]:
    """The outcomes of a prediction that is due, by revision (see `history`); the first `after` are left out."""
    results = history(prediction, heard, final=final)
    return [_outcome(prediction, revision, results[revision], truth) for revision in range(after, len(results))]


def _with_horizon(prediction: Indexed, later: list[Heard], final: bool) -> list[Heard | None]:
    """The labels after revision 0 with None where the horizon passes.

    As with revision 0, the first mark that reaches it says so. Labels that had not arrived by then wait behind it,
    though they stand before that mark.
    """
    due = prediction.final_due_at
    in_time = [label for label in later if label.through < due and label.available_at <= prediction.final_at]
    waiting = [label for label in later if label.through < due and label.available_at > prediction.final_at]
    behind = [label for label in later if label.through >= due]
    if not final and not behind:
        return list(in_time)
    return [*in_time, None, *sorted(waiting, key=lambda label: label.order), *behind]


def _result(known: list[Heard], rule: Rule) -> Result:
    label, disputed = winner(known, rule)
    return Result(label, disputed, probability=None if label is None else probability(label, known))


def _outcome(prediction: Indexed, revision: int, result: Result, truth: Truth) -> Outcome:
    label = truth.negative if result.assumed else None if result.label is None else result.label.value
    if result.assumed:
        arrived_at = prediction.final_at
    else:
        arrived_at = prediction.predicted_at if result.label is None else result.label.available_at
    return Outcome(
        prediction_id=prediction.prediction_id,
        revision=revision,
        version=prediction.version,
        entity=prediction.entity,
        event_id=prediction.event_id,
        request_id=prediction.request_id,
        cohort=prediction.cohort,
        predicted_at=prediction.predicted_at,
        eligible_at=prediction.eligible_at,
        output=prediction.output,
        label=None if label is None else dict(label),
        # A label may stand before the prediction: the event was judged first.
        label_age_ms=None if label is None else max(0, arrived_at - prediction.predicted_at),
        loss=None if label is None else truth.loss(prediction.output, label),
        assumed=result.assumed,
        disputed=result.disputed,
        sample=prediction.sample,
        probability=None if label is None else 1.0 if truth.certain else result.probability,
    )
