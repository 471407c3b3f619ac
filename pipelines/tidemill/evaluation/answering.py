"""A version answers the rows of a set. What is no answer is told, and counts as a wrong one: it stops no evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from tidemill.core.errors import InvalidInput, UserCodeError
from tidemill.evaluation.scoring import Rows, Scores, losses_of
from tidemill.metrics.classification import Classes
from tidemill.metrics.losses import number, true_number
from tidemill.spec.model import ContinualModel
from tidemill.training.protocols import Answer, Row

__all__ = ["NO_GROUP", "Answering", "Labelled", "answers_of", "classes_of", "rows_of", "score"]

NO_GROUP = "(none)"
"""Stands for the group of rows that have no value to group by."""
_PROBLEMS = 3
"""Reasons that are kept."""

Labelled = Sequence[Mapping[str, Any]]


class Answering(Protocol):
    """Answers rows as a version does when it serves; `tidemill.training.predictor.OnnxModel` is one."""

    @property
    def version(self) -> str:
        """The version that answers."""
        ...

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order.

        Raises `InvalidInput` for a row that cannot be answered, `UserCodeError` for what is no answer.
        """
        ...


def classes_of(resource: ContinualModel) -> Classes | None:
    """How truths and answers are read; None for a regression."""
    spec = resource.spec
    return None if spec.prediction.type == "regression" else Classes(spec.prediction, spec.labels.fields)


def answers_of(model: Answering, rows: Sequence[Row]) -> tuple[list[Answer], tuple[str, ...]]:
    """An answer per row, in order, empty where there was none as declared; and the reasons why not.

    Rows are asked together, as training and warm servers do; where that fails, by halves until the rows that are to
    blame are found. A model that answers each row alone and not together has a reason, too.
    """
    together: list[str] = []
    alone: dict[str, None] = {}

    def ask(part: Sequence[Row]) -> Iterator[Answer]:
        try:
            yield from model.answers(part)
        except (InvalidInput, UserCodeError) as error:
            if len(part) > 1:
                together.append(error.message)
                middle = len(part) // 2
                yield from [*ask(part[:middle]), *ask(part[middle:])]
            else:
                alone[error.message] = None
                yield {}

    found = list(ask(rows)) if rows else []
    return found, tuple(alone)[:_PROBLEMS] or tuple(together[:1])


def score(model: Answering, rows: Sequence[Row], labels: Labelled, resource: ContinualModel) -> Scores:
    """A version on rows, given what turned out to be true of them."""
    answers, problems = answers_of(model, rows)
    prediction, classes = resource.spec.prediction, classes_of(resource)
    unanswered = sum(not answer for answer in answers)
    return Scores(
        version=model.version,
        losses=losses_of(answers, labels, prediction=prediction, fields=resource.spec.labels.fields),
        classes=tuple(classes.answer(answer) for answer in answers) if classes else (),
        confidences=tuple(number(answer.get("confidence")) for answer in answers) if classes else (),
        numbers=() if classes else tuple(number(answer.get("value")) for answer in answers),
        # A failure of rows together is one of all of them.
        unanswered=unanswered or (len(rows) if problems else 0),
        problems=problems,
    )


def rows_of(frame: pl.DataFrame, labels: Labelled, resource: ContinualModel) -> Rows:
    """Which rows these are, and what was true of each.

    Args:
        frame: rows of a snapshot.
        labels: their label values.
        resource: for how labels are read, and the groups that gates look at.
    """
    classes, fields = classes_of(resource), resource.spec.labels.fields
    groups = {gate.by: _column(frame, _place(gate.by, resource)) for gate in resource.spec.gates.slices}
    return Rows(
        ids=_column(frame, "event_id"),
        entities=_column(frame, "entity"),
        truths=tuple(classes.truth(label) for label in labels) if classes else (),
        numbers=() if classes else tuple(true_number(fields, label) for label in labels),
        groups=groups,
    )


def _place(by: str, resource: ContinualModel) -> str:
    return "entity" if by == resource.spec.events.entity.name else by


def _column(frame: pl.DataFrame, name: str) -> tuple[str, ...]:
    return tuple(frame[name].cast(pl.String).fill_null(NO_GROUP))
