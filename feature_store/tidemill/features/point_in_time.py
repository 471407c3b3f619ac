"""What was known of an entity at a time: one ASOF pass, exact for late arrivals too.

Of the events with event_time <= t and available_at <= t, an entity's value at t is that of the greatest by
(event_time, source, offset). An ASOF join on event_time alone would see events that had not arrived yet; one on the
arrival alone would let a late event of yesterday hide today's. But an event counts from
v = max(event_time, available_at) on, and one that comes to count after a greater one never is the greatest. So those
are dropped (a running maximum in the order of v), and what is left rises in both orders: an ASOF join of t on v finds
the greatest. Time to live changes nothing about that: where the greatest is too old, so is every other.

Only keys and times are sorted and joined; of the values just those that were found are gathered.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import polars as pl

__all__ = ["CELLS_AT_ONCE", "point_in_time", "scan_point_in_time", "span"]

CELLS_AT_ONCE = 100_000_000
"""Values of events (events x columns) held at a time, unless one entity has more: 0.8 GB of numbers."""

_ENTITY = ("entity",)


def point_in_time(
    rows: pl.DataFrame,
    events: pl.DataFrame,
    values: Sequence[str],
    *,
    by: Sequence[str] = _ENTITY,
    ttl: timedelta | None = None,
) -> pl.DataFrame:
    """The values of each row's entity as they were known at the row's time; all null where nothing was.

    Args:
        rows: columns `by` and `at`, in any order. A row whose key or time is null finds nothing.
        events: columns `by`, `event_time`, the values and, where there are such, `available_at` (null: at once),
            `source` and `offset`, in any order. Without source and offset the later arrival is the greater of two
            with one event time, then the later row. Times are all of one type.
        values: names of the columns to take.
        by: the key's columns, of one type in both frames; none: all events are of one entity.
        ttl: age above which an event no longer counts; None or 0: never.

    Returns:
        One row for each of `rows`, in their order, with the columns `values`.
    """
    found = _last_known(rows, _ranked(events, by), by, ttl)
    return events.select(pl.col(values).gather(found))


def scan_point_in_time(
    rows: pl.DataFrame,
    events: pl.LazyFrame,
    values: Sequence[str],
    *,
    by: Sequence[str] = _ENTITY,
    ttl: timedelta | None = None,
    at_once: int | None = None,
) -> pl.DataFrame:
    """As `point_in_time`, over a table: only its columns and times that are needed are read, a share at a time.

    Args:
        rows: as there.
        events: as there, lazily.
        values: as there.
        by: as there.
        ttl: as there.
        at_once: how many events are held at a time (default: `CELLS_AT_ONCE`). Where there are more, only events of
            the rows' entities are read; where those are more, the entities are shared out, and the table is read once
            for each share.
    """
    first, last = span(rows, ttl)
    names = events.collect_schema().names()
    wanted = [name for name in (*by, "event_time", "available_at", "source", "offset") if name in names]
    events = events.select(*wanted, *(name for name in values if name not in wanted))
    if last is None:
        return point_in_time(rows, events.clear().collect(), values, by=by, ttl=ttl)
    events = events.filter(pl.col("event_time") <= last)
    if first is not None:
        events = events.filter(pl.col("event_time") >= first)
    at_once = at_once or CELLS_AT_ONCE // (len(wanted) + len(values))
    count = _count(events)
    if count > at_once and by:
        events = events.join(rows.lazy().select(by).unique(), on=by, how="semi", maintain_order="left")
        count = _count(events)
    shares = -(-count // at_once) if by else 1
    if shares <= 1:
        return point_in_time(rows, events.collect(engine="streaming"), values, by=by, ttl=ttl)
    share = pl.struct(by).hash() % shares
    rows = rows.with_row_index("_row").with_columns(_share=share)
    done = []
    for number in range(shares):
        mine = rows.filter(pl.col("_share") == number)
        known = events.filter(share == number).collect(engine="streaming")
        done.append(mine.select("_row").hstack(point_in_time(mine, known, values, by=by, ttl=ttl)))
    return pl.concat(done).sort("_row").select(values)


def span(rows: pl.DataFrame, ttl: timedelta | None) -> tuple[Any, Any]:
    """The event times from and up to which events can count for any of the rows; None: no limit, no row at all."""
    last = rows["at"].max()
    first = rows.select(pl.col("at").min() - ttl).item() if ttl else None
    return first, last


def _count(events: pl.LazyFrame) -> int:
    return int(events.select(pl.len()).collect(engine="streaming").item())


def _ranked(events: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The events that are an entity's greatest at some time, by when they begin to count: `visible`, and `event`."""
    order = [name for name in ("source", "offset") if name in events.columns]
    arrival = ["available_at"] if "available_at" in events.columns else []
    ranked = (
        events.select(*by, "event_time", *arrival, *order)
        .with_row_index("event")
        .drop_nulls([*by, "event_time"])
        .sort("event_time", *(order or arrival), maintain_order=True)
        .with_columns(visible=pl.max_horizontal("event_time", *arrival))
        .select(*by, "event_time", "visible", "event")
    )
    if (ranked["visible"] == ranked["event_time"]).all():
        return ranked
    rank = pl.col("rank").cum_max()
    return (
        ranked.with_row_index("rank")
        .sort("visible", maintain_order=True)
        .filter(pl.col("rank") == (rank.over(by) if by else rank))
    )


def _last_known(rows: pl.DataFrame, ranked: pl.DataFrame, by: Sequence[str], ttl: timedelta | None) -> pl.Series:
    """For each row the number of its event, or null."""
    joined = (
        rows.select(*by, "at")
        .with_row_index("row")
        .drop_nulls()
        .sort("at")
        .join_asof(
            ranked.select(*by, "visible", "event_time", "event"),
            left_on="at",
            right_on="visible",
            by=list(by) or None,
            check_sortedness=False,  # both are sorted above; Polars cannot tell within groups
        )
    )
    if ttl:
        alive = pl.col("event_time") >= pl.col("at") - ttl
        joined = joined.with_columns(event=pl.when(alive).then("event"))
    return pl.select(event=pl.repeat(None, rows.height, dtype=pl.UInt32))["event"].scatter(
        joined["row"], joined["event"]
    )
