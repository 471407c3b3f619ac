"""A Feast source as a frame of events: its columns under the names that the point-in-time join knows.

Columns `key_0` …, `event_time`, `available_at` and, of our own tables, `source` and `offset`; `value_0` … for what is
asked for. A user's names can then be anything.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
from feast import FeatureView, FileSource
from feast.data_format import DeltaFormat, ParquetFormat
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID

from tidemill.core.errors import InvalidInput, NotFound, Unavailable, Unsupported
from tidemill.events.lake import LakeTable
from tidemill.features.label_events import label_events
from tidemill.features.point_in_time import scan_point_in_time, scan_windows, span
from tidemill.features.window_tag import ViewWindows, windows_in

__all__ = ["Asked", "failures", "in_utc", "join", "original_name", "scan", "window_features"]

_DAY = "event_date"
"""Column by which our tables are partitioned: the day of the event time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one feature view."""

    view: FeatureView
    source: DataSource
    features: Mapping[str, str]
    """The features, each with the name of its column in the result."""
    is_ours: bool
    """Whether ingest wrote it: events then have an arrival, a source and an offset."""
    created_is_arrival: bool
    """Whether the created timestamp says when a value could be known, or only which of two with one time counts."""

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Columns of the key, in the source and in the rows that are asked about."""
        mapped = self.view.projection.join_key_map
        names = [column.name for column in self.view.entity_columns if column.name != DUMMY_ENTITY_ID]
        return [(original_name(self.source, name), mapped.get(name, name)) for name in names]


def join(rows: pl.DataFrame, at: pl.Expr, asked: Asked, repository: Path | None) -> pl.DataFrame:
    """The features of a view as they were known at each row's time, in the order of the rows.

    Args:
        rows: with the view's join keys.
        at: the time of a row, UTC.
        asked: the view and its features.
        repository: the folder that relative paths are below.
    """
    table = scan(asked.source, repository)
    schema = table.collect_schema()
    keys = asked.keys
    missing = [name for _, name in keys if name not in rows.columns]
    if missing:
        raise InvalidInput(f"the rows have no column {', '.join(missing)}, which {asked.view.name} is joined by")
    time = _time(asked.source, schema, asked.view.name)
    left = rows.select(
        *(
            _as_type(rows.schema[name], schema[column], pl.col(name)).alias(f"key_{number}")
            for number, (column, name) in enumerate(keys)
        ),
        at=at.dt.cast_time_unit(time.unit),
    )
    windows = windows_in(asked.view.tags)
    plain = [name for name in asked.features if name not in windows.names]
    found = [_last(left, table, schema, time, asked, plain)] if plain else []
    if names := asked.features.keys() & windows.names:
        found.append(window_features(left.rename({"key_0": "entity"}), table, windows, names))
    return pl.concat(found, how="horizontal").select(pl.col(name).alias(new) for name, new in asked.features.items())


def window_features(rows: pl.DataFrame, table: pl.LazyFrame, windows: ViewWindows, names: Set[str]) -> pl.DataFrame:
    """The window features `names` of our own table for `rows` (columns `entity` and `at`), in their order."""
    return scan_windows(
        rows,
        table,
        windows.of(names),
        allowed_lateness=windows.allowed_lateness,
        max_future=windows.max_future,
    ).select(sorted(names))


def scan(source: DataSource, repository: Path | None) -> pl.LazyFrame:
    """A file source, lazily; raises `Unsupported` for what is no Parquet or Delta file."""
    if not isinstance(source, FileSource) or not isinstance(source.file_format, DeltaFormat | ParquetFormat | None):
        kind = getattr(source, "file_format", None) or source
        raise Unsupported(
            f"the offline store reads Parquet and Delta files; {source.name} is a {type(kind).__name__}",
            hint="name a FileSource, or give the repository the offline store of that source",
        )
    uri = FileSource.get_uri_for_file_path(repository, source.path)
    options = {"aws_endpoint_url": source.s3_endpoint_override} if source.s3_endpoint_override else None
    if isinstance(source.file_format, DeltaFormat):
        if options:
            raise Unsupported(
                f"{source.name}: an s3_endpoint_override of a Delta table is not read",
                hint="set AWS_ENDPOINT_URL instead",
            )
        table, of_labels = LakeTable(uri).scan(), windows_in(source.tags).label_fields
        return label_events(table, of_labels) if of_labels else table
    return pl.scan_parquet(uri, storage_options=options)


def original_name(source: DataSource, name: str) -> str:
    """What a column is called in the source that Feast calls `name`."""
    return next((theirs for theirs, ours in source.field_mapping.items() if ours == name), name)


def in_utc(column: pl.Expr, kind: Any, name: str) -> pl.Expr:
    """A column of times in UTC; without a zone they are UTC already. Raises `InvalidInput` for other columns."""
    if isinstance(kind, pl.Date):
        column, kind = column.cast(pl.Datetime("us")), pl.Datetime("us")
    if not isinstance(kind, pl.Datetime):
        raise InvalidInput(f"column {name} holds no times: {kind}")
    if kind.time_zone == "UTC":
        return column
    return column.dt.replace_time_zone("UTC") if kind.time_zone is None else column.dt.convert_time_zone("UTC")


@contextmanager
def failures(doing: str) -> Iterator[None]:
    """Errors of the libraries that read, as ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{doing}: there is no such file or table: {error}") from error
    except pl.exceptions.ColumnNotFoundError as error:
        raise InvalidInput(f"{doing}: the source has no such column: {error}") from error
    except OSError as error:
        raise Unavailable(f"{doing}: {error}") from error
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{doing}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Times:
    """How a source tells times, all in one unit."""

    unit: Literal["ns", "us"]
    event: pl.Expr
    created: pl.Expr | None


def _time(source: DataSource, schema: pl.Schema, view: str) -> _Times:
    event = original_name(source, source.timestamp_field)
    created = original_name(source, source.created_timestamp_column or "")
    _has(schema, view, [event, *([created] if created else [])])
    unit: Literal["ns", "us"] = "ns" if getattr(schema[event], "time_unit", None) == "ns" else "us"

    def moment(name: str) -> pl.Expr:
        return in_utc(pl.col(name), schema[name], name).dt.cast_time_unit(unit)

    return _Times(unit, moment(event), moment(created) if created else None)


def _last(
    rows: pl.DataFrame, table: pl.LazyFrame, schema: pl.Schema, time: _Times, asked: Asked, names: Sequence[str]
) -> pl.DataFrame:
    """The values of each row's last event."""
    originals = [original_name(asked.source, name) for name in names]
    _has(schema, asked.view.name, [*originals, *(column for column, _ in asked.keys)])
    by = [f"key_{number}" for number in range(len(asked.keys))]
    columns = {key: _plain(schema[column], column) for key, (column, _) in zip(by, asked.keys, strict=True)}
    columns["event_time"] = time.event
    if time.created is not None:
        # Where it is no arrival it still says which of two values of one time is the last.
        columns["available_at" if asked.is_ours or asked.created_is_arrival else "offset"] = time.created
    if asked.is_ours:
        columns |= {name: pl.col(name) for name in ("source", "offset", _DAY)}
    values = [f"value_{number}" for number in range(len(names))]
    columns |= {value: pl.col(name) for value, name in zip(values, originals, strict=True)}
    events = table.select(**columns)
    if asked.is_ours:
        events = _days(events, *span(rows, asked.view.ttl))
    found = scan_point_in_time(rows, events, values, by=by, ttl=asked.view.ttl)
    return found.rename(dict(zip(values, names, strict=True)))


def _days(events: pl.LazyFrame, first: datetime | None, last: datetime | None) -> pl.LazyFrame:
    """Without the partitions in which nothing can be: their files are not opened."""
    if first is not None:
        events = events.filter(pl.col(_DAY) >= first.date())
    return events if last is None else events.filter(pl.col(_DAY) <= last.date())


def _has(schema: pl.Schema, view: str, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in schema]
    if missing:
        raise InvalidInput(f"the source of {view} has no column {', '.join(missing)}; it has {', '.join(schema)}")


def _plain(kind: pl.DataType, column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String) if isinstance(kind, pl.Categorical | pl.Enum) else pl.col(column)


def _as_type(kind: pl.DataType, wanted: pl.DataType, column: pl.Expr) -> pl.Expr:
    """A key as the source has it; what cannot be one is null and finds nothing."""
    if isinstance(wanted, pl.Categorical | pl.Enum):
        wanted = pl.String()
    if kind.is_float() and not wanted.is_float():  # pandas makes floats of whole numbers where one is missing
        column = column.cast(pl.Int64, strict=False)
    return column.cast(wanted, strict=False)
