"""Label Studio's export: tasks, annotations, results, a task at a time."""

import io
import json
from typing import Any

import pytest
from tests.labels.test_files import Imported

from tidemill.labels.json_array import LARGEST_ELEMENT, elements
from tidemill.labels.lines import Format

DATA = {"station": "A", "event_id": "e1", "image": "/data/1.png", "defect": "not what anybody said"}


def choice(*names: str, control: str = "defect") -> dict[str, Any]:
    return {"type": "choices", "from_name": control, "to_name": "image", "value": {"choices": list(names)}}


def rectangle(x: float, y: float, width: float, height: float, label: str = "", **about: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"x": x, "y": y, "width": width, "height": height, "rotation": about.pop("rotation", 0)}
    value |= {"rectanglelabels": [label]} if label else {}
    size = {"original_width": 640, "original_height": 480} | about
    return {"type": "rectanglelabels" if label else "rectangle", "from_name": "tag", "value": value} | size


def annotation(*results: Any, **about: Any) -> dict[str, Any]:
    return {"id": 7, "completed_by": 3, "created_at": "2026-01-01T12:00:00.123456Z", "result": list(results)} | about


def task(*annotations: Any, **data: Any) -> dict[str, Any]:
    return {"id": 41, "data": DATA | data, "annotations": list(annotations)}


def imported(*tasks: Any, **options: Any) -> Imported:
    return Imported(json.dumps(tasks, indent=1).encode(), Format.LABEL_STUDIO, **options)


def test_a_choice_and_a_rectangle_are_a_label_in_pixels() -> None:
    found = imported(task(annotation(choice("scratch"), rectangle(25, 50, 12.5, 10))))
    assert found.why == []
    assert found.sink.labels == [
        {
            "value": {"defect": "scratch", "box": [160, 240, 240, 288]},
            "labeller": "3",
            "entity": "A",
            "event_id": "e1",
            "time": 1_767_268_800_123,
        }
    ]


def test_a_rectangle_with_a_class_says_both() -> None:
    found = imported(task(annotation(rectangle(0, 0, 50, 50, "scratch"))))
    assert found.sink.labels[0]["value"] == {"defect": "scratch", "box": [0, 0, 320, 240]}


def test_each_annotation_is_a_label_of_its_labeller_but_for_cancelled_ones() -> None:
    eve = annotation(
        choice("ok"), completed_by={"id": 5, "email": "eve@example.com"}, updated_at="2026-01-01T13:00:00Z"
    )
    nobody = annotation(choice("ok"), completed_by=None)
    cancelled = annotation(choice("scratch"), was_cancelled=True)
    found = imported(task(annotation(choice("scratch")), cancelled, eve, nobody), task(prediction_id="p"), by="adam")
    assert [(one["labeller"], one["value"]["defect"]) for one in found.sink.labels] == [
        ("3", "scratch"),
        ("eve@example.com", "ok"),
        ("adam", "ok"),
    ]
    assert found.summary.refused == 0  # a task that nobody has labelled is no mistake


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ([choice("dirt")], "defect should be one of ok, scratch, not 'dirt'"),
        ([choice("ok", "scratch")], "has 2 choices in one result"),
        ([choice("ok"), choice("scratch")], "says defect twice"),
        ([choice("ok"), rectangle(0, 0, 1, 1), rectangle(5, 5, 1, 1)], "says box twice"),
        ([choice("ok"), rectangle(0, 0, 10, 10, rotation=45)], "a rectangle is rotated"),
        ([choice("ok"), rectangle(0, 0, 10, 10, original_width=None)], "lacks original_width"),
        ([choice("ok"), rectangle(0, 0, 0, 10)], "box should be"),
        ([choice("ok"), rectangle("a", 0, 0, 10)], "Expected `float`, got `str`"),  # type: ignore[arg-type]
        ([{"type": "polygonlabels", "value": {"points": []}}], "a result of type 'polygonlabels'"),
        ([choice("ok"), {"type": "number", "from_name": "depth", "value": {"number": 1}}], "control 'depth' is named"),
        ([], "says nothing"),
        ("x", "Expected `array`, got `str`"),
    ],
)
def test_what_a_label_cannot_hold_is_refused_with_task_and_annotation(result: Any, why: str) -> None:
    found = imported(task(annotation() | {"result": result}), task(annotation(choice("ok")), event_id="e2"))
    assert len(found.why) == 1
    assert found.why[0].startswith("line 2, task 41, annotation 1: ")
    assert why in found.why[0]
    assert found.taken == ["e2"]


@pytest.mark.parametrize("bad", [3, None, "x", [], {"id": 41}, {"id": 41, "annotations": {}}])
def test_what_is_no_task_is_refused_and_the_rest_is_taken(bad: Any) -> None:
    found = imported(bad, task(annotation(choice("ok"))))
    assert (found.summary.refused, found.taken) == (1, ["e1"])


def test_what_follows_broken_json_is_not_read_and_what_stood_before_is_taken() -> None:
    content = json.dumps([task(annotation(choice("ok"))), 1], indent=1)[:-3] + '{"a": tru},\n 2]'
    found = Imported(content.encode(), Format.LABEL_STUDIO)
    assert found.taken == ["e1"]
    assert found.why == ["line 30, task 2: is no JSON: Expecting value in line 30; nothing after it was read"]


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'[{"a":' + b"[" * 100_000])
def test_json_that_is_nested_too_deeply_is_refused(deep: bytes) -> None:
    assert Imported(deep, Format.LABEL_STUDIO).why == [
        "line 1, task 1: is nested too deeply; nothing after it was read"
    ]


def test_an_array_is_read_an_element_at_a_time_however_long() -> None:
    one = json.dumps(task(annotation(choice("ok"))))
    file = io.BytesIO(f"\n [{one},\n\n{', '.join([one] * 999)}  ] ".encode())
    found = elements(file)
    assert next(found).line == 2
    assert file.tell() < 70_000
    rest = list(found)
    assert {element.line for element in rest} == {4}
    assert [element.value for element in rest] == [json.loads(one)] * 999


def test_an_element_without_an_end_is_given_up() -> None:
    (element,) = elements(io.BytesIO(b'["' + b"x" * (LARGEST_ELEMENT * 2)))
    assert "longer than" in element.why
