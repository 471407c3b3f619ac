"""A batch: what one round of polling brought, checked, as the frames and events that the stores take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import polars as pl

from tidemill.events.pictures import DIGEST_COLUMN
from tidemill.events.records import Quarantined
from tidemill.events.sources import Source
from tidemill.ingest.parse import YEAR_10000, Event, EventParser, Rejected
from tidemill.ingest.tables import QUARANTINE_COLUMNS, TIME

__all__ = ["MAX_KEPT_BYTES", "Batch", "Raw", "make_batch"]

MAX_KEPT_BYTES = 1 << 20
"""A larger value is not copied to quarantine: source and offset point to it."""

_ORIGIN = "origin"
"""Header of a record that is a replay from quarantine."""


class Raw(Protocol):
    """What is read of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


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


def make_batch(
    records: Mapping[Source, Sequence[Raw]],
    begin: Mapping[Source, int],
    parser: EventParser,
    schema: Mapping[str, pl.DataType],
) -> Batch:
    """Check each record and sort it into its table; `schema` is that of the events table."""
    good: list[tuple[str, Raw, Event]] = []
    bad: list[Quarantined] = []
    for source, raws in records.items():
        name = str(source)
        for raw, found in zip(raws, parser.parse_all([(raw.value, raw.timestamp) for raw in raws]), strict=True):
            if isinstance(found, Rejected):
                bad.append(_quarantined(name, raw, found))
            else:
                good.append((name, raw, found))
    return Batch(
        begin={source: begin[source] for source, raws in records.items() if raws},
        upto={source: raws[-1].offset for source, raws in records.items() if raws},
        events=_events(good, schema),
        quarantine=_quarantine(bad),
        quarantined=bad,
    )


def _events(good: Sequence[tuple[str, Raw, Event]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "source": [source for source, _, _ in good],
        "offset": [raw.offset for _, raw, _ in good],
        "entity": [event.entity for _, _, event in good],
        "event_id": [event.event_id for _, _, event in good],
        "event_time": [event.event_time for _, _, event in good],
        "available_at": [raw.timestamp for _, raw, _ in good],
        "origin": [_origin(raw) for _, raw, _ in good],
    }
    columns["event_date"] = columns["event_time"]
    columns[DIGEST_COLUMN] = [event.picture_sha256 for _, _, event in good]
    for name in schema.keys() - columns.keys():
        columns[name] = [event.values[name] if name in event.values else event.images[name] for _, _, event in good]
    return _typed(columns, schema)


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
    return _typed(columns, QUARANTINE_COLUMNS)


def _typed(columns: Mapping[str, list[Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of the schema's columns, its times and dates given in milliseconds."""
    series = []
    for name, kind in schema.items():
        if kind == TIME or kind == pl.Date():
            milliseconds = pl.Series(name, columns[name], dtype=pl.Int64())
            series.append(milliseconds.cast(pl.Datetime("ms", "UTC")).cast(kind))
        else:
            series.append(pl.Series(name, columns[name], dtype=kind))
    return pl.DataFrame(series)


def _origin(raw: Raw) -> str | None:
    return next((value.decode(errors="replace") for name, value in raw.headers if name == _ORIGIN and value), None)


def _quarantined(source: str, raw: Raw, error: Rejected) -> Quarantined:
    value = raw.value or b""
    truncated = len(value) > MAX_KEPT_BYTES
    return Quarantined(
        source=source,
        offset=raw.offset,
        reason=error.reason,
        field=error.field,
        available_at=raw.timestamp if 0 <= raw.timestamp < YEAR_10000 else 0,
        key=raw.key,
        value=b"" if truncated else value,
        headers=[(name, content or b"") for name, content in raw.headers],
        truncated=truncated,
    )
