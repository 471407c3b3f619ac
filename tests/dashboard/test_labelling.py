"""What a label says, from what a person chose; and where a drawn box lies."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.dashboard.queries.browse import Box, Kind, Thing, box_of
from tidemill.dashboard.queries.labelling import before_of, choices_of, drawn_box, is_repair, value_of
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

BOXES = example_resource()
NUMBER = example_resource(
    prediction={"type": "regression", "tolerance": 0.1},
    labels={"fields": [{"name": "price", "type": "float"}]},
)
YES_NO = example_resource(
    prediction={"type": "classification", "classes": ["ok", "scratch"]},
    labels={"fields": [{"name": "found", "type": "bool"}]},
)
corners = st.tuples(st.floats(-200, 200), st.floats(-200, 200))


@pytest.mark.parametrize(
    ("resource", "choice", "box", "value"),
    [
        (BOXES, "scratch", (1.04, 2.0, 3.0, 4.0), {"defect": "scratch", "box": [1.0, 2.0, 3.0, 4.0]}),
        (BOXES, "ok", (1.0, 2.0, 3.0, 4.0), {"defect": "ok", "box": None}),
        (BOXES, "scratch", None, {"defect": "scratch", "box": None}),
        (NUMBER, "1.5", None, {"price": 1.5}),
        (YES_NO, "yes", None, {"found": True}),
        (YES_NO, "no", None, {"found": False}),
    ],
)
def test_a_label_says_what_was_chosen(
    resource: ContinualModel, choice: str, box: Box | None, value: dict[str, Any]
) -> None:
    assert value_of(resource, choice, box) == value


def test_there_is_a_choice_where_there_are_classes() -> None:
    assert [choices_of(one) for one in (BOXES, NUMBER, YES_NO)] == [("ok", "scratch"), (), ("no", "yes")]
    with pytest.raises(ValueError, match="could not convert"):
        value_of(NUMBER, "much", None)


@pytest.mark.parametrize(
    ("label", "before"),
    [(None, None), ("ok", {"defect": "ok", "box": None}), ("dent", {"defect": "dent", "box": None})],
)
def test_what_was_true_before_can_be_said_again(label: str | None, before: dict[str, Any] | None) -> None:
    thing = Thing("p", "v1", "north", "e", 0, "ok", 0.9, None, label, None, None, "right")
    assert before_of(BOXES, thing) == before


@pytest.mark.parametrize(("label", "kind", "seen"), [(None, "unlabelled", False), ("ok", "right", True)])
def test_who_labels_what_has_a_label_repairs_it(label: str | None, kind: Kind, seen: bool) -> None:
    thing = Thing("p", "v1", "north", "e", 0, "ok", 0.9, None, label, None, None, kind)
    assert is_repair(thing) is seen
    assert is_repair(replace(thing, label=None, kind="disputed"))
    assert not is_repair(replace(thing, assumed=True))  # nobody said it


@given(corners, corners)
def test_a_drawn_box_lies_in_the_picture_and_is_no_click(begin: tuple[float, float], end: tuple[float, float]) -> None:
    found = drawn_box(begin, end, 64, 48)
    if found is not None:
        x0, y0, x1, y1 = found
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 48
        assert drawn_box(end, begin, 64, 48) == found


@pytest.mark.parametrize("value", [None, "1234", [1, 2, 3], [1, 2, 3, "4"], {"x": 1}, 7])
def test_what_is_no_box_is_none(value: Any) -> None:
    assert box_of(value) is None
