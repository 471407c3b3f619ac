"""Labels as systems write them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.labels.parse import event_key, label_order, read_label
from tidemill.spec.model import LabelField

CLASSES = ("ok", "scratch")
FIELDS = (LabelField(name="defect", type="class"), LabelField(name="box", type="box"))


def written(value: dict[str, Any], **about: Any) -> bytes:
    return json.dumps({"value": value, **(about or {"entity": "a", "event_id": "e"})}).encode()


def test_a_label_of_an_event_is_read_with_all_that_it_says() -> None:
    data = written(
        {"defect": "scratch", "box": [0, 0, 4, 4.5], "note": "deep"}, entity=7, event_id=12, time=5, labeller="me"
    )
    label = read_label(data, FIELDS, CLASSES)
    assert (label.entity, label.event_id, label.prediction_id) == ("7", "12", None)
    assert label.value == {"defect": "scratch", "box": [0, 0, 4, 4.5], "note": "deep"}
    assert (label.labeller, label.time) == ("me", 5)


@pytest.mark.parametrize("value", [{"defect": "ok"}, {"defect": "ok", "box": None}])
def test_a_box_may_be_absent(value: dict[str, Any]) -> None:
    assert read_label(written(value), FIELDS, CLASSES).value == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "not a label"),
        (b"", "not a label"),
        (b"[1]", "not a label"),
        (b'{"value": "ok", "prediction_id": "p"}', "not a label"),
        (b'{"prediction_id": "p"}', "either what is true"),
        (b"\xff\xfe", "not a label"),
        (b"[" * 100_000, "not a label"),
        (written({"defect": "ok"}, entity="a"), "names neither"),
        (written({"defect": "ok"}, event_id="e"), "names neither"),
        (written({}), "defect should be one of ok, scratch, not None"),
        (written({"defect": "dent"}), "defect should be one of ok, scratch, not 'dent'"),
        (written({"defect": ["ok"]}), "defect should be one of"),
        (written({"defect": "scratch", "box": [1, 2, 3]}), "box should be"),
        (written({"defect": "scratch", "box": [4, 0, 4, 9]}), "box should be"),
        (written({"defect": "scratch", "box": [0, 0, 1, True]}), "box should be"),
        (written({"defect": "ok"}, prediction_id="p", time=-1), "time should be"),
        (written({"defect": "ok"}, prediction_id="p", time=10**15), "time should be"),
    ],
)
def test_what_is_refused_says_why(data: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_label(data, FIELDS, CLASSES)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("bool", [True, False], [1, "true", None]),
        ("float", [0.5, 3, -1e9], [True, "1", None, 10**400]),
        ("int", [3, -1], [1.5, True, None]),
        ("string", ["", "x"], [1, None]),
    ],
)
def test_values_are_of_their_declared_type(kind: Any, good: list[Any], bad: list[Any]) -> None:
    field = LabelField(name="x", type=kind)
    for value in good:
        assert read_label(written({"x": value}), (field,), CLASSES).value == {"x": value}
    for value in bad:
        with pytest.raises(InvalidInput, match="x should be"):
            read_label(written({"x": value}), (field,), CLASSES)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_label(data, FIELDS, CLASSES)


@given(st.text(), st.text(), st.text(), st.text())
def test_event_keys_are_unambiguous(entity: str, event: str, entity2: str, event2: str) -> None:
    assert (event_key(entity, event) == event_key(entity2, event2)) == ((entity, event) == (entity2, event2))


def test_labels_of_one_millisecond_are_ordered_by_offset_as_a_number() -> None:
    assert label_order(5, "c/t/0@9") < label_order(5, "c/t/0@10") < label_order(6, "c/t/0@1")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"value": {"defect": ""}}, "a class of 1 to 200"),
        ({"value": {"defect": "  "}}, "a class of 1 to 200"),
        ({"value": {"defect": "x" * 201}}, "201 characters"),
        ({"value": {"defect": 3}}, "a class of 1 to 200"),
        ({"value": {"defect": "ok"}, "reasons": {"control": 0.1}}, "either what is true"),
        ({"reasons": {}}, "reasons should be 1 to"),
        ({"reasons": {"control": 0}}, "above 0 and at most 1, not 0"),
        ({"reasons": {"control": 1.5}}, "above 0 and at most 1, not 1.5"),
        ({"reasons": {"": 0.5}}, "a reason's name"),
        ({"value": {"defect": "ok"}, "time": 61_001}, "0.001 s further in the future than maxFuture allows"),
    ],
)
def test_what_the_topic_may_not_say_is_refused_with_the_reason(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_label(json.dumps({"prediction_id": "p", **said}).encode(), FIELDS, latest=61_000)


def test_a_class_that_nobody_declared_is_kept() -> None:
    assert read_label(written({"defect": "dent"}), FIELDS).value == {"defect": "dent"}


def test_a_pick_for_labelling_says_why_and_nothing_of_the_truth() -> None:
    picked = read_label(b'{"prediction_id": "p", "value": null, "reasons": {"control": 0.05}}', FIELDS)
    assert (picked.value, picked.reasons) == (None, {"control": 0.05})
