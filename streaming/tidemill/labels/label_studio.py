"""Label Studio's JSON export: an array of tasks, each with its annotations and their results.

    task.data           prediction_id, or entity and event_id (or the names that the resource's events have for them)
    annotation          completed_by: the labeller; updated_at or created_at: the time; cancelled ones are skipped
    result              choices, rectanglelabels, rectangle, number, rating, textarea

A result is of the declared field that its control (`from_name`) is named after, else of the only field of its type.
Rectangles are in percent of the picture there, and in pixels here, to a millionth. The array is read a task at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TextIO

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.check import iso_time
from tidemill.labels.columns import Columns, typed
from tidemill.labels.json_array import Element, elements
from tidemill.labels.lines import Row, beginning
from tidemill.spec.model import ContinualModel, LabelField

__all__ = ["LabelStudioRows", "LabelStudioWriter"]

_ABOUT = ("prediction_id", "entity", "event_id", "model")
_TEXTS = {"choices": ("class", "bool", "string"), "text": ("string", "class")}
_NUMBERS = ("number", "rating")
_RECTANGLES = ("rectangle", "rectanglelabels")


class _Result(msgspec.Struct, frozen=True):
    type: str = ""
    from_name: str = ""
    original_width: float | None = None
    original_height: float | None = None
    value: dict[str, Any] = {}


class _Annotation(msgspec.Struct, frozen=True):
    id: int | str | None = None
    completed_by: int | str | dict[str, Any] | None = None
    was_cancelled: bool = False
    created_at: str | None = None
    updated_at: str | None = None
    result: list[_Result] = []


class _Rectangle(msgspec.Struct, frozen=True):
    x: float
    y: float
    width: float
    height: float
    rotation: float = 0
    rectanglelabels: list[str] = []


class LabelStudioRows:
    """Reads an export. Implements `RowReader`.

    Args:
        resource: the model.
        columns: which key of a task's data says what.
    """

    def __init__(self, resource: ContinualModel, columns: Columns) -> None:
        self._fields = resource.spec.labels.fields
        self._columns = columns

    def __call__(self, file: BinaryIO) -> Iterator[Row]:
        """A row for each annotation that was not cancelled, and for each task that is none."""
        for number, element in enumerate(elements(file), 1):
            yield from self._rows(number, element)

    def _rows(self, number: int, element: Element) -> Iterator[Row]:
        task = element.value
        if not isinstance(task, dict):
            why = element.why or "is no task: an object with data and annotations"
            yield Row(element.line, None, why, beginning([element.text]), f"task {number}")
            return
        where, text = f"task {task.get('id', number)}"[:80], beginning([element.text])
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            yield Row(element.line, None, "has no list of annotations: export as JSON, not JSON-MIN", text, where)
            return
        for at, raw in enumerate(annotations, 1):
            try:
                annotation = msgspec.convert(raw, _Annotation, strict=False)
                if annotation.was_cancelled:
                    continue
                said = self._said(task, annotation)
            except (InvalidInput, msgspec.ValidationError) as refusal:
                yield Row(element.line, None, str(refusal), text, f"{where}, annotation {at}")
            else:
                yield Row(element.line, said, "", text, f"{where}, annotation {at}")

    def _said(self, task: Mapping[str, Any], annotation: _Annotation) -> dict[str, Any]:
        data = task.get("data")
        about = {name: found for name, found in data.items() if self._is_about(name)} if isinstance(data, dict) else {}
        said = self._columns.said(about, cells=False)
        if labeller := _labeller(annotation.completed_by):
            said["labeller"] = labeller
        if time := annotation.updated_at or annotation.created_at:
            said["time"] = time
        meta = task.get("meta")
        kept = meta.get("value") if isinstance(meta, dict) else None
        said["value"] = self._value(annotation.result, dict(kept) if isinstance(kept, dict) else {})
        return said

    def _is_about(self, name: str) -> bool:
        return self._columns.of(name) in _ABOUT

    def _value(self, results: Sequence[_Result], value: dict[str, Any]) -> dict[str, Any]:
        for result in results:
            for name, content in self._contents(result):
                if name in value and value[name] != content:
                    raise InvalidInput(f"says {name} twice")
                value[name] = content
        return value

    def _contents(self, result: _Result) -> Iterator[tuple[str, Any]]:
        """The fields that a result is about, and what it says of each."""
        if result.type in _RECTANGLES:
            shape = msgspec.convert(result.value, _Rectangle)
            yield self._field(result.from_name, ("box",)).name, _pixels(result, shape)
            if shape.rectanglelabels:
                yield self._field("", ("class",)).name, _one(result.type, shape.rectanglelabels)
            return
        for kind, types in _TEXTS.items():
            if kind in result.value:
                field = self._field(result.from_name, types)
                yield field.name, typed(_one(kind, result.value[kind]), field)
                return
        for kind in _NUMBERS:
            if kind in result.value:
                yield self._field(result.from_name, ("float", "int")).name, result.value[kind]
                return
        raise InvalidInput(f"has a result of type {result.type!r}, which no field of a label holds")

    def _field(self, control: str, types: Sequence[str]) -> LabelField:
        fitting = [field for field in self._fields if field.type in types]
        named = next((field for field in fitting if field.name == control), None)
        first = [field for field in fitting if field.type == types[0]]
        if named is None and len(first) != 1:
            raise InvalidInput(f"the control {control!r} is named after no field of the label of type {types[0]}")
        return named or first[0]


class LabelStudioWriter:
    """Writes an array of tasks that Label Studio imports and `LabelStudioRows` reads back: one for each label.

    What Label Studio has no result for (fields that are not declared, a box that is null) stands in the task's `meta`.

    Args:
        file: where to.
        resource: the model.
        picture: width and height of its pictures in pixels; needed where a label has a box.
    """

    def __init__(self, file: TextIO, resource: ContinualModel, picture: tuple[int, int] | None = None) -> None:
        self._file, self._picture = file, picture
        self._fields = {field.name: field for field in resource.spec.labels.fields}
        self._is_first = True

    def write(self, label: Label) -> None:
        """A task with one annotation; raises `InvalidInput` for a box where the pictures' size is not known."""
        left = dict(label.value or {})
        results = [
            self._result(self._fields[name], left.pop(name)) for name in self._fields if left.get(name) is not None
        ]
        annotation: dict[str, Any] = {"was_cancelled": False, "result": results}
        if label.labeller:
            annotation["completed_by"] = {"email": label.labeller}
        if label.time is not None:
            annotation["created_at"] = iso_time(label.time)
        data = {name: found for name in _ABOUT[:3] if (found := getattr(label, name)) is not None}
        self.write_task(data, [annotation], {"value": left} if left else {})

    def write_task(
        self, data: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]] = (), meta: Mapping[str, Any] = {}
    ) -> None:
        """A task; without annotations it is one to be labelled."""
        task = {"data": data, "annotations": annotations} | ({"meta": meta} if meta else {})
        self._file.write(("[\n" if self._is_first else ",\n") + msgspec.json.encode(task).decode())
        self._is_first = False

    def close(self) -> None:
        """End the array."""
        self._file.write("[]\n" if self._is_first else "\n]\n")

    def _result(self, field: LabelField, content: Any) -> dict[str, Any]:
        about = {"from_name": field.name, "to_name": "image"}
        if field.type == "box":
            if self._picture is None:
                raise InvalidInput(
                    "Label Studio's boxes are in percent of the picture, whose size is not known",
                    hint="--picture 640x480 says it",
                )
            width, height = self._picture
            x0, y0, x1, y1 = content
            sides = {"x": x0 / width * 100, "width": (x1 - x0) / width * 100}
            sides |= {"y": y0 / height * 100, "height": (y1 - y0) / height * 100, "rotation": 0}
            return about | {
                "type": "rectangle",
                "original_width": width,
                "original_height": height,
                "value": sides,
            }
        if field.type == "string":
            return about | {"type": "textarea", "value": {"text": [content]}}
        if field.type in {"int", "float"}:
            return about | {"type": "number", "value": {"number": content}}
        choice = content if isinstance(content, str) else str(content).lower()
        return about | {"type": "choices", "value": {"choices": [choice]}}


def _labeller(said: int | str | dict[str, Any] | None) -> str:
    if isinstance(said, dict):
        said = said.get("email") or said.get("id")
    return "" if said is None else str(said)


def _one(kind: str, found: Any) -> str:
    if isinstance(found, str):
        return found
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], str):
        count = len(found) if isinstance(found, list) else "no"
        raise InvalidInput(f"has {count} {kind} in one result, and a field takes one")
    return found[0]


def _pixels(result: _Result, shape: _Rectangle) -> list[float]:
    width, height = result.original_width, result.original_height
    if not width or not height:
        raise InvalidInput("a rectangle lacks original_width and original_height, of which it is percent")
    if shape.rotation:
        raise InvalidInput("a rectangle is rotated, and a box is not")
    right, below = shape.x + shape.width, shape.y + shape.height
    return [_side(shape.x, width), _side(shape.y, height), _side(right, width), _side(below, height)]


def _side(percent: float, pixels: float) -> float:
    side = round(percent * pixels / 100, 6)
    return int(side) if side.is_integer() else side
