"""Predict requests to typed rows. A row of a request is the event as it would be on the events topic.

    {"instances": [{"station": "A", "event_id": "17", "image": "<base64>", "exposure_ms": 4.0}]}

An image is the base64 of its file (in a binary tensor: or the file itself) or, where the resource allows it (`uris`),
the file's URI, under ingest's rules.
Each row is checked against the resource's fields as ingest checks events; what does not fit is `InvalidInput` naming
row and field.
Fields that the resource does not declare are ignored, as ingest ignores them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import MAX_PICTURE_BYTES
from tidemill.features.pictures import picture_file
from tidemill.ingest.parse import INT64, MAX_KEY, Rejected, checked
from tidemill.spec.model import ContinualModel, EventField

__all__ = ["MAX_ROWS", "RequestRow", "RowReader"]

MAX_ROWS = 1000
"""Rows in one request; they are answered together, and others wait."""
_AT = re.compile(r" - at `\$(?:\.instances)?\[(\d+)\](?:\.(\w+))?.*`$")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]*={0,2}\s*")
"""No picture's file has these bytes alone: each kind begins with others, or has zeros in front."""
_DATATYPES = {"float": "FP64", "int": "INT64", "string": "BYTES", "bool": "BOOL", "image": "BYTES"}
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
        self.datatypes = dict.fromkeys(self.names, "BYTES") | {one.name: _DATATYPES[one.type] for one in self._fields}
        """V2's datatype of each of them."""
        if events.entity.type == "int":
            self.datatypes[events.entity.name] = "INT64"
        self._files = {field.name for field in self._fields if field.type == "image" and not field.uris}
        self.fetches = any(field.uris for field in events.fields)
        """Whether a row may name a picture that is somewhere else, so that reading it may take seconds."""
        key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]
        whole = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64 - 1)]
        declared: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (events.entity.name, whole if events.entity.type == "int" else key)
        ]
        if events.id is not None:
            declared.append((events.id, key | int | None, None))
        declared += [_declared(field) for field in events.fields]
        self.type: Any = list[msgspec.defstruct("Row", declared, kw_only=True)]  # type: ignore[misc]
        """What `instances` must be, for its schema."""
        body: Any = msgspec.defstruct("Body", [("instances", self.type)])
        self._body: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)

    def read_json(self, body: bytes) -> list[RequestRow]:
        """The rows of a V1 request.

        Raises `InvalidInput`, and `Unavailable` where the store of a picture does not answer.
        """
        try:
            found = self._body.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidInput(_in_words(str(error), self.names)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the request is no JSON: {error}") from error
        return self._checked(found.instances)

    def read(self, instances: Any) -> list[RequestRow]:
        """The rows of `instances`, a list of objects. Raises as `read_json`."""
        try:
            found = msgspec.convert(instances, self.type)
        except msgspec.ValidationError as error:
            raise InvalidInput(_in_words(str(error), self.names)) from error
        return self._checked(found)

    def _checked(self, found: Sequence[Any]) -> list[RequestRow]:
        if not found:
            raise InvalidInput('the request must hold "instances": a list of at least one row')
        if len(found) > MAX_ROWS:
            raise InvalidInput(f"{len(found)} rows in one request; at most {MAX_ROWS} are taken")
        return [self._row(number, row) for number, row in enumerate(found)]

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> list[RequestRow]:
        """The rows of columns by name, all of one length (V2 tensors); texts may be bytes. Raises `InvalidInput`."""
        known = {name: columns[name] for name in self.names if name in columns}
        lengths = {name: len(values) for name, values in known.items()}
        if len(set(lengths.values())) != 1:
            told = f"the inputs differ in length: {lengths}" if lengths else "the request has no inputs that are known"
            raise InvalidInput(f"{told} (a row has {', '.join(self.names)})")
        (count,) = set(lengths.values())
        return self.read(
            [{name: self._text(number, name, known[name][number]) for name in known} for number in range(count)]
        )

    def _text(self, number: int, name: str, found: Any) -> Any:
        """An element of a binary tensor as it would be in JSON, but for the file of a picture, which stays as it is."""
        if type(found) is not bytes or (name in self._files and not _BASE64.fullmatch(found)):
            return found
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"row {number}, field {name}: is not UTF-8") from error

    def _row(self, number: int, row: Any) -> RequestRow:
        values = {field.name: _value(number, field, getattr(row, field.name)) for field in self._fields}
        event_id = getattr(row, self._id) if self._id else None
        return RequestRow(
            entity=str(getattr(row, self._entity)),
            event_id=None if event_id is None else str(event_id),
            values=values,
        )


def _value(number: int, field: EventField, found: Any) -> Any:
    try:
        return checked(field, found) if field.type != "image" else _picture(field, found)
    except (InvalidInput, Rejected) as error:
        reason = error.reason if isinstance(error, Rejected) else error.message
        raise InvalidInput(f"row {number}, field {field.name}: {reason}") from error


def _picture(field: EventField, found: Any) -> Any:
    picture = picture_file(found, field.uris) if field.uris and found is not None else found
    if picture is not None and len(picture) > MAX_PICTURE_BYTES:
        raise InvalidInput(f"{len(picture)} bytes; at most {MAX_PICTURE_BYTES} are taken")
    return picture


def _declared(field: EventField) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = str if field.uris else _TYPES[field.type]
    return (field.name, kind) if field.required else (field.name, kind | None, None)


def _in_words(message: str, names: Sequence[str]) -> str:
    """The message of msgspec with the place in front: "row 3, field exposure_ms: …"."""
    found = _AT.search(message)
    if found is None:
        return f'the request must be an object that holds "instances": a list of at least one row ({message})'
    number, field = found.groups()
    what = _AT.sub("", message)
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return f"row {number}, field {missing[1]}: is required (a row has {', '.join(names)})"
    return f"row {number}, field {field}: {what}" if field else f"row {number}: {what}"
