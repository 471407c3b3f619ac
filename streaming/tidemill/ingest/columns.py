"""The quick way from records to columns: one typed decoder of the resource's fields, then checks over whole columns.

It takes a record only where it surely is good; every other one is left to `EventParser`, which alone decides and says
why. A property test holds it to that: what it takes, the row parser takes with equal values.

Records are decoded one by one. A decode of a joined batch would be a tenth faster, and two broken records could join
into a third that nobody sent.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.ingest.parse import INT64, LARGEST, MAX_KEY, YEAR_10000, Rejected, time_of
from tidemill.spec.model import ContinualModel, Entity, EventField

__all__ = ["ColumnReader", "Raw", "typed"]

_T = TypeVar("_T")

_CHUNK = 256
"""Records decoded before they are split into columns: so many rows fit into the processor's cache."""

_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Raw(Protocol):
    """What is read of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class ColumnReader:
    """Reads records that are surely good into columns.

    Args:
        resource: the model, whose fields are decoded.
        schema: columns of its events table.
    """

    def __init__(self, resource: ContinualModel, schema: Mapping[str, pl.DataType]) -> None:
        events = resource.spec.events
        self._schema = {name: kind for name, kind in schema.items() if name not in {"source", "event_date", "origin"}}
        self._max_future_ms = to_ms(events.max_future)
        fields: dict[str, tuple[str, Any]] = {"entity": (events.entity.name, _entity_type(events.entity))}
        if events.id is not None:
            fields["event_id"] = (events.id, _KEY | _INT)
        fields["event_time"] = (events.timestamp, Annotated[int, msgspec.Meta(ge=0, lt=YEAR_10000)] | str)
        fields |= {field.name: (field.name, _type(field)) for field in events.fields}
        self._columns = tuple(fields)
        self._all_have_pictures = any(field.required for field in events.fields if field.type == "image")
        # An unknown field may hold what is no JSON, which a typed decoder skips unseen: such records go the longer way.
        self._strict = msgspec.json.Decoder(_struct(fields, forbid_unknown=True)).decode
        self._lenient = _struct(fields, forbid_unknown=False)
        self._untyped = msgspec.json.Decoder().decode

    def read(self, raws: Sequence[Raw]) -> tuple[pl.DataFrame, list[Raw]]:
        """The good records of one source as rows of the events table, without what makes them known; and the others.

        The frame has the table's columns but `source`, `event_date` and `origin`, and is in the records' order.
        """
        columns: dict[str, list[Any]] = {name: [] for name in self._columns}
        kept: list[Raw] = []
        others: list[Raw] = list(raws) if self._all_have_pictures else []
        for chunk in [] if self._all_have_pictures else _chunks(raws):
            found = self._decoded(chunk)
            rows = [row for row in found if row is not None]
            if len(rows) == len(chunk):
                kept += chunk
            else:
                kept += [raw for raw, row in zip(chunk, found, strict=True) if row is not None]
                others += [raw for raw, row in zip(chunk, found, strict=True) if row is None]
            if rows:
                for column, values in zip(columns.values(), zip(*map(_astuple, rows), strict=True), strict=True):
                    column.extend(values)
        frame = self._frame(kept, columns)
        good = self._good(frame)
        if not good.all():
            others += [raw for raw, is_good in zip(kept, good, strict=True) if not is_good]
            frame = frame.filter(good)
        return frame.select(typed(frame, self._schema)), others

    def _decoded(self, raws: Sequence[Raw]) -> list[Any]:
        """Each record's row, None where it is not surely good; usually all are, and quickly known to be."""
        decode = self._strict
        try:
            return [decode(raw.value) for raw in raws]  # type: ignore[arg-type]  # None is no buffer: TypeError
        except (*_FAILURES, TypeError):
            return [self._decode(raw.value) for raw in raws]

    def _decode(self, value: bytes | None) -> Any:
        try:
            return self._strict(value)  # type: ignore[arg-type]  # None is no buffer: TypeError
        except (*_FAILURES, TypeError):
            return None if value is None else self._decode_lenient(value)

    def _decode_lenient(self, value: bytes) -> Any:
        try:
            return msgspec.convert(self._untyped(value), self._lenient)
        except _FAILURES:
            return None

    def _frame(self, kept: Sequence[Raw], columns: Mapping[str, list[Any]]) -> pl.DataFrame:
        """Columns with times in milliseconds, as they were read; those that no field fills are null."""
        made: dict[str, list[Any]] = dict(columns)
        made["offset"] = [raw.offset for raw in kept]
        made["available_at"] = [raw.timestamp for raw in kept]
        made["event_time"] = [time if type(time) is int else _time_or_none(time) for time in columns["event_time"]]
        for name in ("entity", "event_id"):
            if name in made:
                made[name] = list(map(str, made[name]))
        times = {"event_time", "available_at"}
        return pl.DataFrame(
            [
                pl.Series(name, made[name], dtype=pl.Int64() if name in times else kind)
                if name in made
                else pl.repeat(None, len(kept), dtype=kind, eager=True).alias(name)
                for name, kind in self._schema.items()
            ]
        )

    def _good(self, frame: pl.DataFrame) -> pl.Series:
        time, arrival = frame["event_time"], frame["available_at"]
        known = time.is_between(0, YEAR_10000, closed="left") & arrival.is_between(0, YEAR_10000, closed="left")
        return (known & (time <= arrival + self._max_future_ms)).fill_null(False)


def typed(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> list[pl.Series]:
    """The frame's columns as the schema has them, its times and dates given in milliseconds since the epoch."""
    return [
        frame[name].cast(pl.Datetime("ms", "UTC")).cast(kind) if kind.is_temporal() else frame[name].cast(kind)
        for name, kind in schema.items()
    ]


_KEY = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]
_INT = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64 - 1)]
_MOST = math.nextafter(LARGEST, 0)
_NOTHING = Annotated[int, msgspec.Meta(ge=1, le=0)]
_astuple = msgspec.structs.astuple


def _struct(fields: Mapping[str, tuple[str, Any]], *, forbid_unknown: bool) -> type[msgspec.Struct]:
    """A struct with the columns' names in order; an event's own names may be anything, such as `class`."""
    attributes = {f"c{number}": field for number, field in enumerate(fields.values())}
    return msgspec.defstruct(
        "EventRow",
        [
            (attribute, kind, None) if _allows_none(kind) else (attribute, kind)
            for attribute, (_, kind) in attributes.items()
        ],
        rename={attribute: name for attribute, (name, _) in attributes.items()},
        forbid_unknown_fields=forbid_unknown,
        kw_only=True,
        gc=False,
    )


def _entity_type(entity: Entity) -> Any:
    return _INT if entity.type == "int" else _KEY


def _type(field: EventField) -> Any:
    """What is surely good of a field. A picture is looked into, and that is the row parser's."""
    if field.type == "image":
        return None
    kind: Any = {"string": str, "bool": bool}.get(field.type)
    if field.type == "float":
        low = -_MOST if field.min is None else max(-_MOST, field.min)
        high = _MOST if field.max is None else min(_MOST, field.max)
        kind = Annotated[float, msgspec.Meta(ge=low, le=high)] if low <= high else _NOTHING
    elif field.type == "int":
        kind = _whole(field)
    elif field.enum is not None:
        kind = Literal[field.enum]
    return kind if field.required else kind | None


def _whole(field: EventField) -> Any:
    low = -INT64 if field.min is None else max(-INT64, math.ceil(field.min))
    high = INT64 - 1 if field.max is None else min(INT64 - 1, math.floor(field.max))
    if field.enum is not None:
        allowed = tuple(value for value in field.enum if isinstance(value, int) and low <= value <= high)
        return Literal[allowed] if allowed else _NOTHING
    return Annotated[int, msgspec.Meta(ge=low, le=high)] if low <= high else _NOTHING


def _allows_none(kind: Any) -> bool:
    return kind is None or (hasattr(kind, "__args__") and type(None) in kind.__args__)


def _time_or_none(text: str) -> int | None:
    try:
        return time_of(text, "")
    except Rejected:
        return None


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
