"""All measures of one resource: what a labelled outcome adds to the sums of its cell, and the figures from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.metrics.classification import Classes, ClassificationFigures
from tidemill.metrics.detection import Boxes, DetectionFigures
from tidemill.metrics.losses import Mistake, error, mistake
from tidemill.metrics.regression import Numbers, RegressionFigures
from tidemill.metrics.sums import Sums, Terms, exact
from tidemill.spec.model import LabelField, Prediction

__all__ = ["Cost", "Figures", "Measures"]

_MISTAKES: tuple[Mistake, ...] = ("missed", "false_reject", "confused")


@dataclass(frozen=True, slots=True)
class Cost:
    """Business value: what wrong answers cost, in the unit of `spec.prediction.value`."""

    total: float
    per_outcome: float
    """Of the labelled ones."""
    mistakes: Mapping[Mistake, int]
    """How many there were, by the name of their price."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the labelled outcomes of a cell; parts that its resource does not have are None."""

    labelled: int
    error: float
    """Mean of the bounded loss."""
    classification: ClassificationFigures | None = None
    detection: DetectionFigures | None = None
    regression: RegressionFigures | None = None
    cost: Cost | None = None


class Measures:
    """Scores labelled outcomes as a resource declares them.

    Args:
        prediction: `spec.prediction`.
        fields: `spec.labels.fields`.
    """

    def __init__(self, prediction: Prediction, fields: Sequence[LabelField]) -> None:
        self._prediction, self._fields = prediction, fields
        self._numbers = Numbers(prediction, fields) if prediction.type == "regression" else None
        self._classes = None if self._numbers else Classes(prediction, fields)
        detects = self._classes is not None and prediction.type == "detection"
        self._boxes = Boxes(self._classes, fields) if self._classes and detects else None

    def terms(self, output: Mapping[str, Any], label: Mapping[str, Any]) -> Terms:
        """What one labelled outcome adds.

        Args:
            output: the model's answer.
            label: the label's value by field name.

        Raises:
            InvalidInput: the label does not say what is judged.
        """
        loss = error(self._prediction, self._fields, output, label)
        found: Terms = [(("labelled",), 1), (("loss",), exact(loss))]
        if self._numbers:
            return found + self._numbers.terms(output, label)
        if self._classes:
            found += self._classes.terms(output, label)
        if self._boxes:
            found += self._boxes.terms(output, label)
        if loss and self._prediction.value and (kind := mistake(self._prediction, self._fields, output, label)):
            found.append((("mistake", kind), 1))
        return found

    def figures(self, sums: Sums) -> Figures | None:
        """The figures of a cell; None where it has no labelled outcome."""
        labelled = sums.count("labelled")
        if not labelled:
            return None
        return Figures(
            labelled=labelled,
            error=sums.total("loss") / labelled,
            classification=self._classes.figures(sums) if self._classes else None,
            detection=self._boxes.figures(sums) if self._boxes else None,
            regression=self._numbers.figures(sums) if self._numbers else None,
            cost=self._cost(sums, labelled),
        )

    def _cost(self, sums: Sums, labelled: int) -> Cost | None:
        value = self._prediction.value
        if value is None:
            return None
        mistakes = {kind: sums.count("mistake", kind) for kind in _MISTAKES}
        prices = {"missed": value.missed, "false_reject": value.false_reject, "confused": value.confused}
        total = sum(count * prices[kind] for kind, count in mistakes.items())
        return Cost(total, total / labelled, mistakes)
