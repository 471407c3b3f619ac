"""Windows are tiles: the value of a window at a time, by one rule for serving and for training.

    V(entity, t, as_of) = merge of tiles c - W/s + 1 … c,    c = ⌊t/s⌋,  s = W/60 (sketches: W/12)

so a window of length W is never older than W and spans between W - s and W. An event's tile is
⌊min(event time, arrival)/s⌋: nothing of a tile is from after it. It counts if it arrived by `as_of`, no later than
the allowed lateness after its event time. Online, where V(entity, now, now) is wanted, what was applied has arrived
(`tidemill.features.rows`); in training `window_values` gives V(entity, t, t).

Times are whole microseconds since the epoch. A tile at or below newest - K, K = W/s + ⌈lateness/s⌉ + 2, is dropped
online: no time from its entity's newest event on can ask for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.features.partials import Entries, Ints, lift, merged, result, starts_of
from tidemill.spec.model import Aggregation, Window

__all__ = ["Tiled", "Times", "entries_of", "tiled", "window_values"]

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_PAIRS = 1 << 21
"""Partials that are looked at together: about 100 MB at most. A single row or tile that needs more takes it."""

_US = timedelta(microseconds=1)
_SKETCH_TILES, _TILES = 12, 60


@dataclass(frozen=True)
class Tiled:
    """One window feature: an aggregation over one length."""

    name: str
    agg: Aggregation
    of: str | None
    """Column of the events; None for `count` of events."""
    q: float | None
    length: int
    """W in microseconds."""
    tiles: int
    """W/s."""
    lateness: int
    """Allowed lateness in microseconds."""

    @property
    def step(self) -> int:
        """Length of a tile, s, in microseconds."""
        return self.length // self.tiles

    @property
    def ring(self) -> int:
        """How many tiles are kept online, K."""
        return self.tiles + -(-self.lateness // self.step) + 2


class Times(NamedTuple):
    """When events were and when they arrived, in microseconds."""

    event: Ints
    arrival: Ints

    @classmethod
    def of(cls, events: pl.DataFrame) -> "Times":
        """Those of rows with `event_time` and `available_at`."""
        return cls(_micros(events["event_time"]), _micros(events["available_at"]))


@dataclass(frozen=True)
class _Stream:
    """Events that count in one window, as partials, sorted by owner and arrival."""

    entries: Entries
    arrived: Ints
    """Tile of the arrival."""
    available: Ints
    """Arrival in microseconds."""


@dataclass(frozen=True)
class _Ranges:
    """For each asker a range of entries that stand together."""

    entries: Entries
    low: Ints
    high: Ints

    @property
    def counts(self) -> Ints:
        """Entries of each."""
        return self.high - self.low

    def expanded(self, first: int, last: int) -> Entries:
        """The entries of askers `first` to `last` - 1, owned by their numbers from 0 on."""
        counts = self.counts[first:last]
        begin = np.cumsum(counts) - counts
        positions = np.arange(counts.sum()) + np.repeat(self.low[first:last] - begin, counts)
        return self.entries.take(positions).of(np.repeat(np.arange(last - first), counts))


def tiled(windows: Sequence[Window], allowed_lateness: timedelta) -> tuple[Tiled, ...]:
    """The features of `windows`, in the order of their names in `window.features`."""
    return tuple(
        Tiled(
            name,
            window.agg,
            window.of,
            window.q,
            length // _US,
            _SKETCH_TILES if window.agg in {"distinct", "quantile"} else _TILES,
            allowed_lateness // _US,
        )
        for window in windows
        for name, length in zip(window.features, window.over, strict=True)
    )


def _micros(times: pl.Series) -> Ints:
    """Times as whole microseconds since the epoch."""
    return times.cast(pl.Datetime("us", "UTC")).cast(pl.Int64()).to_numpy().astype(np.int64, copy=False)


def entries_of(window: Tiled, events: pl.DataFrame, times: Times, owner: Ints, order: Ints) -> tuple[Entries, Ints]:
    """A partial for each event that counts in the window, and the positions of these events.

    Args:
        window: the window.
        events: rows with `event_time` and the column that the window is of.
        times: of the events.
        owner: of each event.
        order: of each event: larger for a greater (event time, source, offset).
    """
    counts = times.arrival - times.event <= window.lateness
    values = events["event_time"] if window.of is None else events[window.of]
    if values.null_count():
        counts &= values.is_not_null().to_numpy()
    at = np.flatnonzero(counts)
    if len(at) < len(counts):
        values = values.gather(at)
    tile = np.minimum(times.event, times.arrival)[at] // window.step
    return lift(window.agg, owner[at], tile, values, order[at]), at


def window_values(
    events: pl.DataFrame,
    rows: pl.DataFrame,
    windows: Sequence[Window],
    allowed_lateness: timedelta,
    *,
    as_of_fence: bool = False,
) -> pl.DataFrame:
    """V(entity, at, at) of each window feature for each of `rows`: what was served at that time.

    Args:
        events: columns source, offset, entity, event_time and available_at (Datetime us UTC), and every column that
            the windows are `of`; in any order, and a repeated (source, offset) counts once.
        rows: columns entity (String) and at (Datetime us UTC).
        windows: which.
        allowed_lateness: how late after its event time an event may arrive and count.
        as_of_fence: take every event as arrived. Given the events up to a prediction's fence this is what the
            online row held at `at`, whatever the clocks of broker and server said.

    Returns:
        In the order of `rows`, a column per feature: Int64 for `count` and `distinct` (0 where there is nothing), the
        column's own type for `last`, else Float64 (null where there is nothing).
    """
    entities = rows.select(pl.col("entity").unique(maintain_order=True)).with_row_index("owner")
    owner = rows.join(entities, on="entity", how="left", maintain_order="left")["owner"].to_numpy().astype(np.int64)
    at = _micros(rows["at"])
    events = (
        events.join(entities, on="entity", how="inner")
        .unique(["source", "offset"])
        .sort("event_time", "source", "offset")
    )
    columns = []
    for window in tiled(windows, allowed_lateness):
        stream = _stream(window, events, as_of_fence=as_of_fence)
        values, present = _asked(window, stream, owner, at)
        columns.append(_series(window, events, values, present))
    return pl.DataFrame(columns)


def _series(window: Tiled, events: pl.DataFrame, values: Column, present: Mask) -> pl.Series:
    found = pl.Series(window.name, values)
    if window.agg == "last" and window.of is not None:
        found = events[window.of].gather(found.set(pl.Series(~present), None)).alias(window.name)
    return found.set(pl.Series(~present), None)


def _stream(window: Tiled, events: pl.DataFrame, *, as_of_fence: bool) -> _Stream:
    """Events stand in their order, so that the position is the order."""
    owner = events["owner"].to_numpy().astype(np.int64)
    times = Times.of(events)
    entries, at = entries_of(window, events, times, owner, np.arange(events.height))
    available = entries.tile * window.step if as_of_fence else times.arrival[at]
    order = np.lexsort((available, entries.owner))
    return _Stream(entries.take(order), available[order] // window.step, available[order])


def _asked(window: Tiled, stream: _Stream, owner: Ints, at: Ints) -> tuple[Column, Mask]:
    """The window's value for each (owner, at), and whether there is one.

    Rows of one owner whose times lie in one tile c share all that arrived before c: that is merged once. What
    arrived in c itself is looked at for each row: it counts if it arrived by `at`.
    """
    end = at // window.step
    order = np.lexsort((end, owner))
    owner, end, at = owner[order], end[order], at[order]
    groups = starts_of(owner, end)
    before = _before(window, stream, owner[groups], end[groups])
    now = _between(stream, owner, end * window.step, at)
    oldest = end - window.tiles + 1
    bounds = np.append(groups, len(owner))
    parts: list[tuple[Column, Mask]] = []
    for first, last in _chunks(before.counts):
        found = before.expanded(first, last)
        found = found.take(found.tile >= oldest[groups[first:last]][found.owner])
        shared = merged(window.agg, found, tiles=False)
        rows = slice(bounds[first], bounds[last])
        group = np.repeat(np.arange(last - first), np.diff(bounds[first : last + 1]))
        mine = _Ranges(shared, np.searchsorted(shared.owner, group), np.searchsorted(shared.owner, group, "right"))
        recent = _Ranges(now.entries, now.low[rows], now.high[rows])
        parts += _finished(window, mine, recent, oldest[rows])
    values, present = (np.concatenate(column) for column in zip(*parts, strict=True))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return values[back], present[back]


def _finished(window: Tiled, shared: _Ranges, recent: _Ranges, oldest: Ints) -> Iterator[tuple[Column, Mask]]:
    """Values of rows from what arrived before their tile and what arrived in it."""
    for first, last in _chunks(shared.counts + recent.counts):
        late = recent.expanded(first, last)
        late = late.take(late.tile >= oldest[first:last][late.owner])
        yield result(window.agg, window.q, shared.expanded(first, last) + late, last - first)


def _before(window: Tiled, stream: _Stream, owner: Ints, end: Ints) -> _Ranges:
    """For each (owner, c): what arrived in tiles c - W/s + 1 … c - 1. No event of these tiles arrived earlier."""
    first = stream.arrived.min(initial=0)
    span = stream.arrived.max(initial=0) - first + 2
    cells = merged(window.agg, stream.entries.of(stream.entries.owner * span + stream.arrived - first))
    since, until = (
        np.searchsorted(cells.owner, owner * span + np.clip(tile - first, 0, span - 1))
        for tile in (end - window.tiles + 1, end)
    )
    return _Ranges(cells, since, until)


def _between(stream: _Stream, owner: Ints, since: Ints, until: Ints) -> _Ranges:
    """For each row: what its owner's arrivals in [since, until] were."""
    times = np.unique(stream.available)  # ranks, as owners and microseconds together need more than 63 bits
    key = stream.entries.owner * (len(times) + 1) + np.searchsorted(times, stream.available)
    low = np.searchsorted(key, owner * (len(times) + 1) + np.searchsorted(times, since))
    high = np.searchsorted(key, owner * (len(times) + 1) + np.searchsorted(times, until, "right"))
    return _Ranges(stream.entries, low, high)


def _chunks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Bounds of runs that have at most `_PAIRS` in all, or are one; at least one run, be it empty."""
    upto = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = upto[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(upto, before + _PAIRS, "right")))
        yield first, last
        first = last
    if not len(counts):
        yield 0, 0
