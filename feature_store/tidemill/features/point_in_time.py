"""What was known of an entity at a time: one ASOF pass, exact for late arrivals too.

Of the events with event_time <= t and available_at <= t, an entity's value at t is that of the greatest by
(event_time, source, offset). An ASOF join on event_time alone would see events that had not arrived yet; one on the
arrival alone would let a late event of yesterday hide today's. But an event counts from
v = max(event_time, available_at) on, and one that comes to count after a greater one never is the greatest. So those
are dropped (a running maximum in the order of v), and what is left rises in both orders: an ASOF join of t on v finds
the greatest. Time to live changes nothing about that: where the greatest is too old, so is every other.

Only keys and times are sorted and joined; of the values just those that were found are gathered.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from tidemill.features.tiles import window_values
from tidemill.spec.model import Window

__all__ = ["CELLS_AT_ONCE", "point_in_time", "scan_point_in_time", "scan_windows", "span"]

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
    return _taken(events.select(values), _last_known(rows, _ranked(events, by), by, ttl))


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
    events = events.clear() if last is None else events.filter(pl.col("event_time") <= last)
    if first is not None:
        events = events.filter(pl.col("event_time") >= first)

    def found(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
        return point_in_time(rows, events, values, by=by, ttl=ttl)

    return _in_shares(rows, events, found, by, at_once or CELLS_AT_ONCE // (len(wanted) + len(values)))


def scan_windows(
    rows: pl.DataFrame,
    events: pl.LazyFrame,
    windows: Sequence[Window],
    *,
    allowed_lateness: timedelta,
    max_future: timedelta,
    at_once: int | None = None,
) -> pl.DataFrame:
    """V(entity, at, at) of each window feature (`tidemill.features.tiles`), over a table, a share at a time.

    Args:
        rows: columns `entity` and `at`. A row where one of them is null has no value.
        events: the lake's events, or some with their columns.
        windows: which.
        allowed_lateness: how late after its event time an event may arrive and count.
        max_future: how far before its event time one may have arrived.
        at_once: how many events are held at a time, as for `scan_point_in_time`.

    Returns:
        A column per feature, in the order of `rows`.
    """
    fields = dict.fromkeys(window.of for window in windows if window.of is not None)
    arrival = pl.col("available_at").fill_null(pl.col("event_time"))
    asked = rows.select("entity", "at").with_row_index("row")
    known = asked.drop_nulls()
    if known.is_empty():
        events = events.clear()
    else:
        first, last = span(known, max(length for window in windows for length in window.over))
        # The days come first: they are partitions, whose files are not opened.
        events = events.filter(
            pl.col("event_date").is_between(first.date(), (last + max_future).date())
            & (pl.col("event_time") >= first)
            & (arrival <= last)
        )
    events = events.select("source", "offset", "entity", "event_time", arrival, *fields)

    def found(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
        return window_values(events, rows.select("entity", "at"), windows, allowed_lateness)

    values = _in_shares(known, events, found, _ENTITY, at_once or CELLS_AT_ONCE // (5 + len(fields)))
    return asked.select("row").join(known.select("row").hstack(values), on="row", how="left").sort("row").drop("row")


def span(rows: pl.DataFrame, ttl: timedelta | None) -> tuple[Any, Any]:
    """The event times from and up to which events can count for any of the rows; None: no limit, no row at all."""
    last = rows["at"].max()
    first = rows.select(pl.col("at").min() - ttl).item() if ttl else None
    return first, last


def _taken(values: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """The rows with these numbers, all null where there is none.

    A scan gives columns in pieces, in which each look-up is a search: put together first, this takes a quarter of the
    time.
    """
    if values.is_empty():
        return values.clear(len(numbers))
    known = numbers.is_not_null()
    taken = values.rechunk()[numbers.fill_null(0)]
    return taken if known.all() else taken.select(pl.when(known).then(pl.all()))


def _in_shares(
    rows: pl.DataFrame,
    events: pl.LazyFrame,
    found: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame],
    by: Sequence[str],
    at_once: int,
) -> pl.DataFrame:
    """`found` of the rows and all events of their entities, so many events at a time, in the order of the rows."""
    count = _count(events)
    if count > at_once and by:
        events = events.join(rows.lazy().select(by).unique(), on=by, how="semi", maintain_order="left")
        count = _count(events)
    shares = -(-count // at_once) if by else 1
    if shares <= 1:
        return found(rows, events.collect(engine="streaming"))
    share = pl.struct(by).hash() % shares
    numbered = rows.with_row_index("_row").with_columns(_share=share)
    done = []
    for number in range(shares):
        mine = numbered.filter(pl.col("_share") == number)
        known = events.filter(share == number).collect(engine="streaming")
        done.append(mine.select("_row").hstack(found(mine, known)))
    return pl.concat(done).sort("_row").drop("_row")


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
