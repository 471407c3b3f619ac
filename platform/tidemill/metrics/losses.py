"""Losses of one outcome: what an answer cost, given what turned out to be true. Bounded in [0, 1].

Sequential verdicts take bounded per-outcome losses only (STATISTICS.md 2); F1, recall and AP are not means of
outcomes and belong to the gates.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tidemill.core.errors import InvalidInput
from tidemill.spec.model import LabelField, Prediction

__all__ = ["MIN_IOU", "Mistake", "error", "iou", "mistake", "number", "true_class", "true_number"]

Mistake: TypeAlias = Literal["missed", "false_reject", "confused"]

MIN_IOU = 0.5
"""Least overlap at which a box counts as found (the PASCAL VOC criterion)."""

_LARGEST = 1e100
"""No measurement is larger; sums of squares of such numbers are still sums of floats."""


def iou(a: Sequence[float] | None, b: Sequence[float] | None) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1], in [0, 1].

    No box, an empty one, or one that is no box at all overlaps nothing: 0.
    """
    first, second = _area(a), _area(b)
    if a is None or b is None or first == 0.0 or second == 0.0:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first + second - shared)


def error(
    prediction: Prediction, labels: Sequence[LabelField], output: Mapping[str, Any], label: Mapping[str, Any]
) -> float:
    """1.0 where the answer was wrong, else 0.0.

    Classification: wrong is another class. Detection: wrong is not (the right class, and either that class is
    `classes[0]`, nothing found, or the boxes' IoU is at least 0.5); where the labels declare no box, the class
    alone decides. A label of type `bool` says whether anything was found, so that any class but the first
    agrees with true. An answer without a class is wrong. Regression: wrong is a `value` that is further than
    `tolerance` from the label's number, or none.

    Args:
        prediction: `spec.prediction`.
        labels: `spec.labels.fields`.
        output: the model's answer: `class`, and for detection `box`; for regression `value`.
        label: the label's value by field name.

    Raises:
        InvalidInput: the fields declare nothing to compare with, or the label lacks it.
    """
    if prediction.type == "regression":
        truth, answer = true_number(labels, label), number(output.get("value"))
        return float(answer is None or prediction.tolerance is None or abs(answer - truth) > prediction.tolerance)
    return float(mistake(prediction, labels, output, label) is not None)


def mistake(
    prediction: Prediction, labels: Sequence[LabelField], output: Mapping[str, Any], label: Mapping[str, Any]
) -> Mistake | None:
    """How a class was wrong, by the names of `spec.prediction.value`; None where it was right.

    Arguments and errors as for `error`; for classification and detection only.
    """
    nothing = prediction.classes[0]
    answer, truth = output.get("class"), true_class(labels, label)
    there = truth if isinstance(truth, bool) else truth != nothing
    # Whether the class is declared does not matter: a version answers only what it has learnt.
    right = isinstance(answer, str) and ((answer != nothing) == truth if isinstance(truth, bool) else answer == truth)
    if right and (prediction.type == "classification" or answer == nothing or _boxes_agree(labels, output, label)):
        return None
    if not there:
        return "false_reject"
    return "missed" if answer == nothing else "confused"


def _boxes_agree(labels: Sequence[LabelField], output: Mapping[str, Any], label: Mapping[str, Any]) -> bool:
    box = next((field.name for field in labels if field.type == "box"), None)
    return box is None or iou(output.get("box"), label.get(box)) >= MIN_IOU


def true_class(labels: Sequence[LabelField], label: Mapping[str, Any]) -> str | bool:
    """The label's class, which may be one that is not declared, or whether anything was found.

    Raises:
        InvalidInput: the fields declare neither, or the label lacks it.
    """
    field = next((field for field in labels if field.type == "class"), None) or next(
        (field for field in labels if field.type == "bool"), None
    )
    if field is None:
        raise InvalidInput(
            "labels.fields declares neither a class nor a bool: nothing says whether an answer was right",
            hint="add a field such as {name: defect, type: class}",
        )
    value = label.get(field.name)
    if not isinstance(value, str if field.type == "class" else bool):
        raise InvalidInput(f"the label's {field.name} should be a {field.type}, not {value!r}")
    return value


def true_number(labels: Sequence[LabelField], label: Mapping[str, Any]) -> float:
    """The label's one number.

    Raises:
        InvalidInput: the fields declare none, or the label lacks it.
    """
    field = next((field for field in labels if field.type in {"float", "int"}), None)
    if field is None:
        raise InvalidInput(
            "labels.fields declares no number: nothing says whether an answer was right",
            hint="add a field such as {name: demand, type: float}",
        )
    value = number(label.get(field.name))
    if value is None:
        raise InvalidInput(f"the label's {field.name} should be a {field.type}, not {label.get(field.name)!r}")
    return value


def number(value: Any) -> float | None:
    """A number that can be reckoned with: finite, and its square, too. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        return None
    return float(value)


def _area(box: Sequence[float] | None) -> float:
    """Area of a box; 0 for anything that encloses none."""
    if not isinstance(box, Sequence) or len(box) != 4:
        return 0.0
    if not all(isinstance(side, int | float) and math.isfinite(side) for side in box):
        return 0.0
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
