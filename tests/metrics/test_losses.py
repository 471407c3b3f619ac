"""What an answer costs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.metrics.losses import error, iou
from tidemill.spec.model import LabelField, Prediction

CLASSES = ("ok", "scratch", "dent")
DETECTION = Prediction(type="detection", classes=CLASSES)
CLASSIFICATION = Prediction(type="classification", classes=CLASSES)
DEFECT = LabelField(name="defect", type="class")
BOX = LabelField(name="where", type="box")

coordinate = st.floats(-1e6, 1e6, allow_nan=False)
boxes = st.tuples(coordinate, coordinate, st.floats(0.1, 1e5), st.floats(0.1, 1e5)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a: list[float], b: list[float]) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0.0 <= iou(a, b) <= 1.0 + 1e-9


@given(boxes)
def test_a_box_covers_itself(box: list[float]) -> None:
    assert iou(box, box) == pytest.approx(1.0)


def test_iou_of_boxes_that_share_a_third() -> None:
    assert iou([0, 0, 2, 1], [1, 0, 3, 1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "box",
    [None, [], [0, 0, 1], [0, 0, 0, 5], [5, 5, 1, 1], [0, 0, float("nan"), 1], [0, 0, float("inf"), 1], list("abcd")],
)
def test_what_is_no_box_overlaps_nothing(box: list[float] | None) -> None:
    assert iou(box, [0, 0, 9, 9]) == 0.0
    assert iou([0, 0, 9, 9], box) == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("ok", "ok", 0.0),
        ("scratch", "scratch", 0.0),
        ("scratch", "dent", 1.0),
        ("ok", "scratch", 1.0),
        (None, "ok", 1.0),
        ("dent", "dent", 0.0),  # a version has learnt it, whether or not anyone declares it
        ("ok", "dent", 1.0),
    ],
)
def test_classification_is_wrong_when_the_class_differs(answer: str | None, truth: str, expected: float) -> None:
    assert error(CLASSIFICATION, (DEFECT,), {"class": answer}, {"defect": truth}) == expected


@pytest.mark.parametrize(
    ("output", "label", "expected"),
    [
        ({"class": "ok", "box": None}, {"defect": "ok", "where": None}, 0.0),
        ({"class": "ok", "box": [0, 0, 1, 1]}, {"defect": "ok", "where": None}, 0.0),
        ({"class": "scratch", "box": [0, 0, 4, 4]}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 0.0),
        ({"class": "scratch", "box": [0, 0, 4, 2]}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 0.0),
        ({"class": "scratch", "box": [0, 0, 4, 1.9]}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 1.0),
        ({"class": "scratch", "box": None}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 1.0),
        ({"class": "dent", "box": [0, 0, 4, 4]}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 1.0),
        ({"class": "ok"}, {"defect": "scratch", "where": [0, 0, 4, 4]}, 1.0),
        ({}, {"defect": "ok"}, 1.0),
    ],
)
def test_detection_needs_the_class_and_half_of_the_box(
    output: dict[str, Any], label: dict[str, Any], expected: float
) -> None:
    assert error(DETECTION, (DEFECT, BOX), output, label) == expected


def test_without_a_declared_box_the_class_alone_decides() -> None:
    assert error(DETECTION, (DEFECT,), {"class": "scratch", "box": None}, {"defect": "scratch"}) == 0.0


@pytest.mark.parametrize(("answer", "found", "expected"), [("dent", True, 0.0), ("ok", True, 1.0), ("ok", False, 0.0)])
def test_a_bool_label_says_whether_anything_was_found(answer: str, found: bool, expected: float) -> None:
    assert error(CLASSIFICATION, (LabelField(name="bad", type="bool"),), {"class": answer}, {"bad": found}) == expected


@pytest.mark.parametrize("label", [{}, {"defect": None}, {"defect": 3}])
def test_a_label_without_its_class_is_refused(label: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="defect should be a class"):
        error(CLASSIFICATION, (DEFECT,), {"class": "ok"}, label)


def test_fields_with_nothing_to_compare_are_refused() -> None:
    with pytest.raises(InvalidInput, match="neither a class nor a bool"):
        error(CLASSIFICATION, (BOX,), {"class": "ok"}, {"where": None})
