"""A batch: what one round of polling brought, checked, as the frames and events that the stores take."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import DIGEST_COLUMN, PictureStore
from tidemill.events.records import Quarantined
from tidemill.events.sources import Source
from tidemill.ingest.columns import ColumnReader, Raw, typed
from tidemill.ingest.parse import INT64, YEAR_10000, Event, EventParser, Rejected
from tidemill.ingest.tables import QUARANTINE_COLUMNS, events_schema
from tidemill.spec.model import ContinualModel

__all__ = ["MAX_KEPT_BYTES", "ORIGIN", "Batch", "BatchReader", "Raw", "size_of"]

MAX_KEPT_BYTES = 1 << 20
"""What is larger, key and headers included, is not copied to quarantine whole: source and offset point to it."""

_MAX_REASON = 300
"""Characters of a reason that are kept: it may quote what was sent."""

_MAX_ORIGIN = 200
"""Bytes of a source/offset, which takes some sixty."""

ORIGIN = "origin"
"""Header of a record that is a replay from quarantine: the source/offset at which it first came."""


def size_of(raw: Raw) -> int:
    """Bytes of a record's content."""
    size = len(raw.value or b"") + len(raw.key or b"")
    return size + sum(len(name) + len(value or b"") for name, value in raw.headers) if raw.headers else size


@dataclass(frozen=True)
class Batch:
    """Records of some sources, each from its `begin` up to its `upto` without a gap, good and bad apart."""

    begin: Mapping[Source, int]
    """Offset at which reading began: what lies at or above it, up to `upto`, is in here."""
    upto: Mapping[Source, int]
    """Last offset read."""
    events: pl.DataFrame
    """Rows of the events table, by source in offset order."""
    quarantine: pl.DataFrame
    """Rows of the quarantine table."""
    quarantined: Sequence[Quarantined]
    """The same as records."""

    def without(self, sources: Collection[Source]) -> "Batch":
        """The batch as if nothing had been read of these sources."""
        names = {str(source) for source in sources}
        return replace(
            self,
            begin={source: offset for source, offset in self.begin.items() if source not in sources},
            upto={source: offset for source, offset in self.upto.items() if source not in sources},
            events=self.events.filter(~pl.col("source").is_in(names)),
            quarantine=self.quarantine.filter(~pl.col("source").is_in(names)),
            quarantined=[record for record in self.quarantined if record.source not in names],
        )


class BatchReader:
    """Checks records and sorts each into its table: columns where it surely is good, else by the row parser.

    Args:
        resource: the model.
        pictures: where large pictures go; None: all stay in their rows.
    """

    def __init__(self, resource: ContinualModel, pictures: PictureStore | None = None) -> None:
        self._schema = events_schema(resource)
        self._parser = EventParser(resource, pictures)
        self._columns = ColumnReader(resource, self._schema)

    def read(self, records: Mapping[Source, Sequence[Raw]], begin: Mapping[Source, int]) -> Batch:
        """The batch of these records, each source's in offset order, where reading of it began at `begin`.

        Raises `Unavailable` where the store of a picture does not answer.
        """
        frames: list[pl.DataFrame] = []
        bad: list[Quarantined] = []
        for source, raws in records.items():
            frame, refused = self._read_source(str(source), raws)
            frames.append(frame)
            bad += refused
        return Batch(
            begin={source: begin[source] for source, raws in records.items() if raws},
            upto={source: raws[-1].offset for source, raws in records.items() if raws},
            events=pl.concat(frames, rechunk=True) if frames else pl.DataFrame(schema=self._schema),
            quarantine=_quarantine(bad),
            quarantined=bad,
        )

    def _read_source(self, source: str, raws: Sequence[Raw]) -> tuple[pl.DataFrame, list[Quarantined]]:
        frame, others = self._columns.read(raws)
        good: list[tuple[Raw, Event]] = []
        bad: list[Quarantined] = []
        others.sort(key=lambda raw: raw.offset)
        parsed = self._parser.parse_all([(raw.value, raw.timestamp) for raw in others])
        for raw, found in zip(others, parsed, strict=True):
            if isinstance(found, Rejected):
                bad.append(_quarantined(source, raw, found))
            else:
                good.append((raw, found))
        if good:
            frame = pl.concat([frame, _events(good, frame.schema)]).sort("offset")
        origins = {raw.offset: origin for raw in raws if raw.headers and (origin := origin_of(raw.headers)) is not None}
        frame = frame.with_columns(
            source=pl.lit(source),
            event_date=pl.col("event_time").dt.date(),
            origin=pl.col("offset").replace_strict(origins, default=None, return_dtype=pl.String)
            if origins
            else pl.lit(None, pl.String),
        )
        return frame.select(*self._schema), bad


def _events(good: Sequence[tuple[Raw, Event]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "offset": [raw.offset for raw, _ in good],
        "entity": [event.entity for _, event in good],
        "event_id": [event.event_id for _, event in good],
        "event_time": [event.event_time for _, event in good],
        "available_at": [raw.timestamp for raw, _ in good],
    }
    columns[DIGEST_COLUMN] = [event.picture_sha256 for _, event in good]
    for name in schema.keys() - columns.keys():
        columns[name] = [event.values[name] if name in event.values else event.images[name] for _, event in good]
    return _frame(columns, schema)


def _quarantine(bad: Sequence[Quarantined]) -> pl.DataFrame:
    if not bad:
        return pl.DataFrame(schema=QUARANTINE_COLUMNS)
    columns: dict[str, list[Any]] = {
        name: [getattr(record, name) for record in bad]
        for name in QUARANTINE_COLUMNS
        if name not in {"available_date", "headers"}
    }
    columns["headers"] = [msgspec.json.encode(record.headers).decode() for record in bad]
    columns["available_date"] = columns["available_at"]
    return _frame(columns, QUARANTINE_COLUMNS)


def _frame(columns: Mapping[str, list[Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of the schema's columns, its times and dates given in milliseconds."""
    read = [
        pl.Series(name, columns[name], dtype=pl.Int64() if kind.is_temporal() else kind)
        for name, kind in schema.items()
    ]
    return pl.DataFrame(typed(pl.DataFrame(read), schema))


def origin_of(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """The origin of a record that is a replay, None for any other: producers may have a header of that name, too."""
    return next((value.decode() for name, value in headers if name == ORIGIN and value and _is_place(value)), None)


def _is_place(value: bytes) -> bool:
    """Whether it is a source/offset just as we write it."""
    if len(value) > _MAX_ORIGIN:
        return False
    try:
        text = value.decode()
        source, _, offset = text.rpartition("/")
        return 0 <= int(offset) < INT64 and f"{Source.parse(source)}/{int(offset)}" == text
    except (ValueError, InvalidInput):
        return False


def _quarantined(source: str, raw: Raw, error: Rejected) -> Quarantined:
    key, value, headers, whole = _kept(raw)
    return Quarantined(
        source=source,
        offset=raw.offset,
        reason=error.reason if len(error.reason) <= _MAX_REASON else f"{error.reason[: _MAX_REASON - 1]}…",
        field=error.field,
        available_at=raw.timestamp if 0 <= raw.timestamp < YEAR_10000 else 0,
        key=key,
        value=value,
        headers=headers,
        truncated=not whole,
        origin=origin_of(raw.headers),
    )


def _kept(raw: Raw) -> tuple[bytes | None, bytes, list[tuple[str, bytes]], bool]:
    """Key, value and headers as far as they fit into `MAX_KEPT_BYTES`, in this order of need: key, headers, value."""
    key, value, headers = raw.key, raw.value or b"", [(name, content or b"") for name, content in raw.headers]
    # Names are text, which JSON may write with six bytes for one.
    sizes = len(key or b""), len(msgspec.json.encode(headers)) if headers else 0, len(value)
    fits = [sum(sizes[: part + 1]) <= MAX_KEPT_BYTES for part in range(3)]
    return key if fits[0] else None, value if fits[2] else b"", headers if fits[1] else [], fits[2]
