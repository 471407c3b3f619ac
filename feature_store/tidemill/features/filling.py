"""What online rows are filled with again, from the lake: of some entities at a time what their rows may still hold."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import polars as pl

from tidemill.features.layout import Layout

__all__ = ["TOGETHER", "shares"]

TOGETHER = 2_000_000
"""Events that are read at a time: the lake is read once for each so many."""

_PLACE = ("source", "offset")
_ORDER = ("event_time", *_PLACE)


def shares(
    events: pl.LazyFrame, layout: Layout, now: datetime, collect: Callable[[pl.LazyFrame], pl.DataFrame]
) -> Iterator[pl.DataFrame]:
    """Of some entities at a time, each one's last event and those that its windows may still ask for.

    Args:
        events: columns source, offset, entity, event_time, available_at, event_date, and what the layout needs.
        layout: of the rows.
        now: no window is asked for as of an earlier time than this, or the newest arrival where that is earlier.
        collect: reads a frame.
    """
    count, newest = collect(events.select(pl.len(), pl.col("available_at").max())).row(0)
    if not count:
        return
    in_windows = _in_windows(events, layout, min(newest, now))
    parts = -(-count // TOGETHER)
    for part in range(parts):
        mine = pl.col("entity").hash() % parts == part
        last = events.filter(mine).sort(_ORDER).unique("entity", keep="last")
        both = pl.concat([last, in_windows.filter(mine)]).unique(_PLACE)
        yield collect(both.drop("event_date"))


def _in_windows(events: pl.LazyFrame, layout: Layout, earliest: datetime) -> pl.LazyFrame:
    """The events that a window may still ask for: no time from `earliest` on reaches further back."""
    if not layout.windows:
        return events.clear()
    since = earliest - timedelta(microseconds=max(window.step * window.ring for window in layout.windows))
    # What counts is older than its arrival by the allowed lateness at most: files of earlier days are not read.
    day = (since - timedelta(microseconds=layout.windows[0].lateness)).date()
    return events.filter((pl.col("event_date") >= day) & (pl.col("available_at") >= since))
