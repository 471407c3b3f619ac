"""The file's rows as the product has them: events, labels that come a day later, and the features that are served.

Row r is one half hour of the New South Wales market, from 7 May 1996 on (M. Harries, Splice-2 comparative evaluation:
Electricity pricing, 1999). Its label is known from the moment on in which row r + 48 is answered, for everyone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.sources import Source
from tidemill.ingest.tables import events_schema
from tidemill.outcomes.tables import LABELS
from tidemill.spec.model import ContinualModel
from tidemill.training.windows import with_windows

__all__ = ["DELAY", "ENTITY", "EVENTS", "LABELLED", "Market", "known_at", "market_of", "read_market"]

DELAY = 48
"""How many rows later a row's label is known: a day."""
ENTITY = "nsw"
BEGIN = datetime(1996, 5, 7, tzinfo=UTC)
HALF_HOUR_MS = 1_800_000
COLUMNS = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer", "class")
EVENTS, LABELLED = Source("file", "events", 0), Source("file", "labels", 0)
"""Where events and labels are said to come from; a row's number is the offset of its event and of its label."""


@dataclass(frozen=True)
class Market:
    """Rows in order, as frames of the lake's columns."""

    resource: ContinualModel
    events: pl.DataFrame
    labels: pl.DataFrame
    """One per row; `available_at` is when it is known."""

    def __len__(self) -> int:
        return self.events.height

    @cached_property
    def times(self) -> Sequence[int]:
        """When each row is answered, in milliseconds since the epoch."""
        found: list[int] = self.events["event_time"].dt.epoch("ms").to_list()
        return found

    @cached_property
    def directions(self) -> Sequence[str]:
        """What each row's label says: `up` or `down`."""
        found: list[str] = self.labels["value"].str.json_path_match("$.direction").to_list()
        return found

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """What a model is shown of each row: its fields, and the windows as they stand when it is answered."""
        fields = [field.name for field in self.resource.spec.events.fields]
        seen = with_windows(self.events, self.events.lazy(), self.resource, labels=self.labels.lazy())
        return seen.select(*fields, *self.resource.spec.features.window_names).to_dicts()


def read_market(file: Path, resource: ContinualModel, *, rows: int | None = None, shift_s: int = 0) -> Market:
    """The first `rows` rows of the file, or all; no later row is read.

    Args:
        file: CSV with `COLUMNS`.
        resource: for the names of fields.
        rows: how many.
        shift_s: by how many seconds all times are later. A run is named after its time and draws its seed from its
            name: another shift is another seed.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it has other columns, or too few rows.
    """
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="give the electricity market's CSV with --data FILE")
    table = pl.read_csv(file, n_rows=rows)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise InvalidInput(f"{file} has no column {', '.join(missing)}")
    if table.height <= DELAY:
        raise InvalidInput(f"{file}: {table.height} rows are too few: the first label is known after {DELAY}")
    return market_of(table, resource, shift_s=shift_s)


def market_of(table: pl.DataFrame, resource: ContinualModel, *, shift_s: int = 0) -> Market:
    """A table with `COLUMNS` as events and labels."""
    since = pl.lit(BEGIN + timedelta(seconds=shift_s)).cast(pl.Datetime("us", "UTC"))
    number = pl.int_range(pl.len(), dtype=pl.Int64)
    time = since + pl.duration(milliseconds=number * HALF_HOUR_MS)
    table = table.with_columns(
        offset=number, event_time=time, entity=pl.lit(ENTITY), event_id=pl.format("row-{}", number)
    ).with_columns(day=(pl.col("event_time").dt.weekday() - 1).cast(pl.Int64))
    late = pl.col("event_time") + timedelta(milliseconds=DELAY * HALF_HOUR_MS)
    direction = pl.when(_is_up(table)).then(pl.lit("up")).otherwise(pl.lit("down"))
    labels = table.select(
        "offset",
        "entity",
        "event_id",
        source=pl.lit(str(LABELLED)),
        label_id=pl.format("row-{}", "offset"),
        labeller=pl.lit("market"),
        value=pl.concat_str(pl.lit('{"direction":"'), direction, pl.lit('"}')),
        event_time=late,
        available_at=late,
        available_date=late.dt.date(),
    )
    events = table.with_columns(
        source=pl.lit(str(EVENTS)), available_at=pl.col("event_time"), event_date=pl.col("event_time").dt.date()
    )
    return Market(resource, _as(events, events_schema(resource)), _as(labels, LABELS))


def _is_up(table: pl.DataFrame) -> pl.Series:
    values = table["class"].cast(pl.String)
    if not set(values.unique()) <= {"0", "1", "UP", "DOWN"}:
        raise InvalidInput("the column class should be 1 or UP, and 0 or DOWN")
    return values.is_in(["1", "UP"])


def _as(frame: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """The frame with exactly these columns; null where it has none."""
    absent = [pl.lit(None).alias(name) for name in schema if name not in frame.columns]
    return frame.with_columns(*absent).select(pl.col(name).cast(kind) for name, kind in schema.items())


def known_at(row: int) -> int:
    """How many labels are known when `row` is answered."""
    return max(0, row - DELAY + 1)
