"""Predict requests to typed rows. A row of a request is the event as it would be on the events topic.

    {"instances": [{"station": "A", "event_id": "17", "image": "<base64>", "exposure_ms": 4.0}]}

An image is the base64 of its file or, where the resource allows it (`uris`), the file's URI, under ingest's rules.
Each row is checked against the resource's fields; what does not fit is `InvalidInput` naming row and field.
Fields that the resource does not declare are ignored, as ingest ignores them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import MAX_PICTURE_BYTES
from tidemill.features.pictures import picture_file
from tidemill.spec.model import ContinualModel, EventField

__all__ = ["MAX_ROWS", "RequestRow", "RowReader"]

MAX_ROWS = 1000
"""Rows in one request; they are answered together, and others wait."""
_MAX_KEY = 512
_AT = re.compile(r" - at `\$\[(\d+)\](?:\.(\w+))?.*`$")
_TYPES: dict[str, Any] = {"float": float, "int": int, "string": str, "bool": bool, "image": bytes}


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row to answer: whom it is about, and the event's fields by name (an image as the bytes of its file)."""

    entity: str
    event_id: str | None
    values: dict[str, Any]


class RowReader:
    """Checks rows against one resource."""

    def __init__(self, resource: ContinualModel) -> None:
        events = resource.spec.events
        self._entity, self._id = events.entity.name, events.id
        self._fields = tuple(events.fields)
        self.names = (
            events.entity.name,
            *((events.id,) if events.id else ()),
            *(field.name for field in events.fields),
        )
        """The names that a row may have."""
        self.fetches = any(field.uris for field in events.fields)
        """Whether a row may name a picture that is somewhere else, so that reading it may take seconds."""
        key = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_KEY)]
        declared: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (events.entity.name, int if events.entity.type == "int" else key)
        ]
        if events.id is not None:
            declared.append((events.id, key | int | None, None))
        declared += [_declared(field) for field in events.fields]
        self._rows = list[msgspec.defstruct("Row", declared, kw_only=True)]  # type: ignore[misc]

    def read(self, instances: Any) -> list[RequestRow]:
        """The rows of `instances`, a list of objects.

        Raises `InvalidInput`, and `Unavailable` where the store of a picture does not answer.
        """
        if not isinstance(instances, list) or not instances:
            raise InvalidInput('the request must hold "instances": a list of at least one row')
        if len(instances) > MAX_ROWS:
            raise InvalidInput(f"{len(instances)} rows in one request; at most {MAX_ROWS} are taken")
        try:
            found = msgspec.convert(instances, self._rows)
        except msgspec.ValidationError as error:
            raise InvalidInput(_in_words(str(error), self.names)) from error
        return [self._row(number, row) for number, row in enumerate(found)]

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> list[RequestRow]:
        """The rows of columns by name, all of one length (V2 tensors). Raises `InvalidInput`."""
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise InvalidInput(f"the inputs differ in length: {lengths}" if lengths else "the request has no inputs")
        known = [name for name in self.names if name in columns]
        (count,) = set(lengths.values())
        return self.read([{name: columns[name][number] for name in known} for number in range(count)])

    def _row(self, number: int, row: Any) -> RequestRow:
        values = {field.name: _value(number, field, getattr(row, field.name)) for field in self._fields}
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput(f"row {number}, field {name}: {value} is no number")
            if isinstance(value, bytes) and len(value) > MAX_PICTURE_BYTES:
                raise InvalidInput(
                    f"row {number}, field {name}: {len(value)} bytes; at most {MAX_PICTURE_BYTES} are taken"
                )
        event_id = getattr(row, self._id) if self._id else None
        return RequestRow(
            entity=str(getattr(row, self._entity)),
            event_id=None if event_id is None else str(event_id),
            values=values,
        )


def _value(number: int, field: EventField, found: Any) -> Any:
    if not field.uris or found is None:
        return found
    try:
        return picture_file(found, field.uris)
    except InvalidInput as error:
        raise InvalidInput(f"row {number}, field {field.name}: {error.message}") from error


def _declared(field: EventField) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = str if field.uris else _TYPES[field.type]
    if field.min is not None or field.max is not None:
        kind = Annotated[kind, msgspec.Meta(ge=_bound(field, field.min), le=_bound(field, field.max))]
    return (field.name, kind) if field.required else (field.name, kind | None, None)


def _bound(field: EventField, bound: float | None) -> float | int | None:
    """Bounds of whole numbers must be whole: msgspec compares like with like."""
    if bound is None or field.type != "int":
        return bound
    return math.ceil(bound) if bound == field.min else math.floor(bound)


def _in_words(message: str, names: Sequence[str]) -> str:
    """The message of msgspec with the place in front: "row 3, field exposure_ms: …"."""
    found = _AT.search(message)
    if found is None:
        return message
    number, field = found.groups()
    what = _AT.sub("", message)
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return f"row {number}, field {missing[1]}: is required (a row has {', '.join(names)})"
    return f"row {number}, field {field}: {what}" if field else f"row {number}: {what}"
