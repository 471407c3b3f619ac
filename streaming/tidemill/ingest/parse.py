"""An event's JSON to typed values, or the reason why not. Whatever bytes arrive, nothing else comes out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec

from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import MAX_PICTURE_BYTES, PictureStore
from tidemill.features.pictures import PictureIntake, Taken
from tidemill.features.rows import Value
from tidemill.spec.model import ContinualModel, EventField

__all__ = [
    "INT64",
    "LARGEST",
    "MAX_KEY",
    "YEAR_10000",
    "Event",
    "EventParser",
    "Rejected",
    "checked",
    "time_of",
]

_FETCHERS = 8
"""Pictures fetched at once: an object store takes 10 to 50 ms for each, however many are asked for."""

MAX_KEY = 512
"""Longest entity or event id in characters: they become keys in Redis and Kafka."""

INT64 = 1 << 63
"""The first whole number that is too large for 64 bits."""
LARGEST = 1e150
"""Of numbers: their squares and the sums of these still are numbers."""
YEAR_10000 = 253_402_300_800_000
"""In milliseconds: the first time that is too late."""


class Rejected(Exception):
    """Why an event cannot be taken in, and the field at fault, if it is one."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class Event(msgspec.Struct, frozen=True):
    """An event that was taken in."""

    entity: str
    event_id: str | None
    event_time: int
    """Milliseconds since the epoch."""
    values: dict[str, Value]
    """Each field that is no picture, then each picture statistic; None where absent."""
    images: dict[str, bytes | None]
    """The picture field's file, unless it lies in the picture store."""
    picture_sha256: str | None = None
    """Digest of the picture in the store."""


class EventParser:
    """Checks events against the resource: required fields, types, ranges, time, pictures.

    Args:
        resource: the model.
        pictures: where large pictures go; None: all stay in their rows.
    """

    def __init__(self, resource: ContinualModel, pictures: PictureStore | None = None) -> None:
        events = resource.spec.events
        self._entity = events.entity
        self._id = events.id
        self._timestamp = events.timestamp
        self._max_future_ms = to_ms(events.max_future)
        self._plain = tuple(field for field in events.fields if field.type != "image")
        self._image = resource.image_field
        self._statistics = resource.spec.features.image
        self._pictures = PictureIntake(self._image.uris if self._image else (), self._statistics, pictures)

    def parse(self, value: bytes | None, available_at: int) -> Event:
        """The event in a record's value that arrived at `available_at` (ms); raises `Rejected`.

        And `Unavailable` where the store of a picture does not answer; nothing else.
        """
        if not 0 <= available_at < YEAR_10000:
            raise Rejected(f"the record's timestamp {available_at} is not in the years 1970 to 9999")
        data = _object(value)
        entity = self._read_entity(data)
        event_id = None if self._id is None else _key(data.get(self._id), self._id, "string or whole number")
        event_time = time_of(data.get(self._timestamp), self._timestamp)
        if event_time > available_at + self._max_future_ms:
            ahead = (event_time - available_at) / 1000
            raise Rejected(f"lies {ahead:g} s after its arrival, more than maxFuture", self._timestamp)
        values: dict[str, Value] = {field.name: checked(field, data.get(field.name)) for field in self._plain}
        taken = self._take_picture(data, event_time)
        values.update(taken.statistics if taken else dict.fromkeys(self._statistics))
        images = {} if self._image is None else {self._image.name: taken.file if taken else None}
        return Event(entity, event_id, event_time, values, images, taken.digest if taken else None)

    def parse_all(self, records: Sequence[tuple[bytes | None, int]]) -> list[Event | Rejected]:
        """`parse` of each value and arrival, in order; several at once where their pictures may have to be fetched."""
        if not self._pictures.fetches:
            return [self._tried(one) for one in records]
        with ThreadPoolExecutor(_FETCHERS) as pool:
            return list(pool.map(self._tried, records))

    def _tried(self, record: tuple[bytes | None, int]) -> Event | Rejected:
        try:
            return self.parse(*record)
        except Rejected as error:
            return error

    def _read_entity(self, data: dict[str, Any]) -> str:
        name, found = self._entity.name, data.get(self._entity.name)
        if self._entity.type == "int":
            return str(_int(found, name))
        if not isinstance(found, str):
            raise Rejected(_expected("a string", found), name)
        return _key(found, name, "string")

    def _take_picture(self, data: dict[str, Any], event_time: int) -> Taken | None:
        field = self._image
        if field is None or (found := data.get(field.name)) is None:
            if field is not None and field.required:
                raise Rejected("is required", field.name)
            return None
        if not isinstance(found, str):
            raise Rejected(_expected("the base64 of a picture", found), field.name)
        try:
            return self._pictures.take(found, from_ms(event_time).date(), max_bytes=MAX_PICTURE_BYTES)
        except InvalidInput as error:
            raise Rejected(error.message, field.name) from error


def _object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise Rejected("the record has no value")
    try:
        data = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"no JSON: {error}") from error
    if not isinstance(data, dict):
        raise Rejected(f"a JSON object is expected, not {_name(data)}")
    return data


def checked(field: EventField, found: Any) -> Value:
    """The value of a field that is no picture, from JSON; raises `Rejected` where events may not have it."""
    if found is None:
        if field.required:
            raise Rejected("is required", field.name)
        return None
    value = _CHECKS[field.type](found, field.name)
    if (field.min is not None or field.max is not None) and isinstance(value, int | float):
        if field.min is not None and value < field.min:
            raise Rejected(f"{value:g} is below {field.min:g}", field.name)
        if field.max is not None and value > field.max:
            raise Rejected(f"{value:g} is above {field.max:g}", field.name)
    if field.enum is not None and value not in field.enum:
        raise Rejected(f"is none of {', '.join(map(str, field.enum))}", field.name)
    return value


def _float(found: Any, name: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Rejected(_expected("a number", found), name)
    if not -LARGEST < found < LARGEST:
        raise Rejected(f"is not between -{LARGEST:g} and {LARGEST:g}", name)
    return float(found)


def _int(found: Any, name: str) -> int:
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        raise Rejected(_expected("a whole number", found), name)
    if not -INT64 <= found < INT64:
        raise Rejected("is too large for a whole number of 64 bits", name)
    return found


def _string(found: Any, name: str) -> str:
    if not isinstance(found, str):
        raise Rejected(_expected("a string", found), name)
    return found


def _bool(found: Any, name: str) -> bool:
    if not isinstance(found, bool):
        raise Rejected(_expected("true or false", found), name)
    return found


_CHECKS: dict[str, Callable[[Any, str], Value]] = {"float": _float, "int": _int, "string": _string, "bool": _bool}


def _key(found: Any, name: str, expected: str) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise Rejected(_expected(f"a {expected}", found), name)
    try:
        text = str(found)
    except ValueError as error:  # Python writes no number of more than 4300 digits
        raise Rejected("has more digits than anyone can mean", name) from error
    if not 0 < len(text) <= MAX_KEY:
        raise Rejected(f"has {len(text)} characters; 1 to {MAX_KEY} are taken", name)
    return text


def time_of(found: Any, name: str) -> int:
    """A field's time in milliseconds since the epoch; raises `Rejected` where it is none."""
    if isinstance(found, str):
        try:
            moment = datetime.fromisoformat(found)
            milliseconds = to_ms(moment)
        except (ValueError, OverflowError) as error:
            raise Rejected(f"is no time in ISO 8601 with a zone: {error}", name) from error
    else:
        milliseconds = _int(found, name)
    if not 0 <= milliseconds < YEAR_10000:
        raise Rejected(f"{milliseconds} ms since 1970 is not in the years 1970 to 9999", name)
    return milliseconds


def _expected(what: str, found: Any) -> str:
    return "is required" if found is None else f"{what} is expected, not {_name(found)}"


def _name(found: Any) -> str:
    kinds = {type(None): "null", bool: "a truth value", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(found), "a number")
