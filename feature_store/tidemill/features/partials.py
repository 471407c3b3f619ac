"""Partials: what a tile keeps of its events, how partials are merged, and the value that they give.

A partial is one or more numbers under (owner, tile, key). The owner is an entity, or a row that asks; the key is 0
but for sketches, which have one number for each of their keys. Merging does not depend on order or grouping, so that
neither do the windows; of floats, sums agree within rounding. Everything is columns: one call for any number of
owners.

    count     n                     distinct   register → longest run of zeros     (tidemill.features.sketches)
    sum       total                 quantile   bucket → n
    mean      n, total              last       order: a number that is larger for a greater (event time, source,
    std       n, mean, M2                      offset); the caller knows what it stands for
    min, max  the value
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.features import sketches
from tidemill.spec.model import Aggregation

__all__ = ["COLUMNS", "KEYED", "Entries", "Ints", "lift", "merged", "result", "starts_of"]

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]

COLUMNS: Mapping[Aggregation, tuple[str, ...]] = {
    "count": ("i8",),
    "sum": ("f8",),
    "mean": ("i8", "f8"),
    "std": ("i8", "f8", "f8"),
    "min": ("f8",),
    "max": ("f8",),
    "last": ("i8",),
    "distinct": ("i8",),
    "quantile": ("i8",),
}
"""The numbers of a partial, as NumPy types."""

KEYED: frozenset[Aggregation] = frozenset({"distinct", "quantile"})
"""Aggregations whose partials have keys."""

_SUMS: frozenset[Aggregation] = frozenset({"count", "sum", "mean"})
"""Aggregations whose partials are sums and have no keys."""

_REDUCE: Mapping[Aggregation, np.ufunc] = {
    "count": np.add,
    "sum": np.add,
    "mean": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "last": np.maximum,
    "distinct": np.maximum,
    "quantile": np.add,
}


@dataclass(frozen=True)
class Entries:
    """Partials of one window, as columns of one length."""

    owner: Ints
    tile: Ints
    key: Ints
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.owner)

    def take(self, which: npt.NDArray[Any]) -> "Entries":
        """Those at the positions, or where the mask is true."""
        return Entries(
            self.owner[which], self.tile[which], self.key[which], tuple(column[which] for column in self.columns)
        )

    def of(self, owner: Ints) -> "Entries":
        """The same partials with other owners."""
        return Entries(owner, self.tile, self.key, self.columns)

    def __add__(self, other: "Entries") -> "Entries":
        """Both, one after the other."""
        return Entries(
            np.concatenate([self.owner, other.owner]),
            np.concatenate([self.tile, other.tile]),
            np.concatenate([self.key, other.key]),
            tuple(np.concatenate(pair) for pair in zip(self.columns, other.columns, strict=True)),
        )


def lift(agg: Aggregation, owner: Ints, tile: Ints, values: pl.Series, order: Ints) -> Entries:
    """One partial for each event. `values` has no null; truth values count as 0 and 1."""
    key, ones = np.zeros(len(owner), np.int64), np.ones(len(owner), np.int64)
    if agg == "count":
        return Entries(owner, tile, key, (ones,))
    if agg == "last":
        return Entries(owner, tile, key, (order,))
    if agg == "distinct":
        register, run = sketches.registers(sketches.hashes(values))
        return Entries(owner, tile, register, (run,))
    numbers = values.cast(pl.Float64()).to_numpy()
    if agg == "quantile":
        return Entries(owner, tile, sketches.bucket_keys(numbers), (ones,))
    if agg == "mean":
        return Entries(owner, tile, key, (ones, numbers))
    if agg == "std":
        return Entries(owner, tile, key, (ones, numbers, np.zeros(len(owner))))
    return Entries(owner, tile, key, (numbers,))


def merged(agg: Aggregation, entries: Entries, *, tiles: bool = True) -> Entries:
    """One partial for each (owner, tile, key), in that order; `tiles=False` puts an owner's tiles together."""
    by = [entries.owner, *([entries.tile] if tiles else []), *([entries.key] if agg in KEYED else [])]
    if not _ascends(by):
        order = np.lexsort(by[::-1])
        entries, by = entries.take(order), [column[order] for column in by]
    starts = starts_of(*by)
    return Entries(entries.owner[starts], entries.tile[starts], entries.key[starts], _reduced(agg, entries, starts))


def result(agg: Aggregation, q: float | None, entries: Entries, owners: int) -> tuple[Column, npt.NDArray[np.bool_]]:
    """Each owner's value from all of its partials, and whether it has one; counts are 0 rather than absent.

    `std` is that of the population, so that one event has 0.
    """
    if agg in _SUMS:
        return _summed(agg, entries, owners)
    whole = merged(agg, entries, tiles=False)
    if agg == "distinct":
        return sketches.distinct_counts(whole.owner, whole.columns[0], owners), np.ones(owners, np.bool_)
    owner, found = whole.owner, whole.columns[0]
    if agg == "quantile":
        owner, found = _quantiles(whole, q or 0.0)
    elif agg == "std":
        found = np.sqrt(whole.columns[2] / found)
    values, present = np.zeros(owners, found.dtype), np.zeros(owners, np.bool_)
    values[owner], present[owner] = found, True
    return values, present


def _summed(agg: Aggregation, entries: Entries, owners: int) -> tuple[Column, npt.NDArray[np.bool_]]:
    """`result` of what is only added up: in any order, without sorting."""
    first, *more = (np.bincount(entries.owner, column, owners) for column in entries.columns)
    if agg == "count":
        return first.astype(np.int64), np.ones(owners, np.bool_)  # exact: fewer than 2^53 events
    present = np.bincount(entries.owner, minlength=owners) > 0
    return more[0] / np.where(present, first, 1) if more else first, present


def starts_of(*columns: Column) -> Ints:
    """Where a new group begins in columns whose equal rows stand together."""
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    changes = np.zeros(len(columns[0]), np.bool_)
    changes[0] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def _ascends(by: list[Ints]) -> bool:
    """Whether rows stand in order already, as those of a single owner or of packed rows do."""
    fine: npt.NDArray[np.bool_] | bool = True
    for column in reversed(by):
        fine = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & fine)
    return bool(np.all(fine))


def _reduced(agg: Aggregation, entries: Entries, starts: Ints) -> tuple[Column, ...]:
    if not len(starts):
        return entries.columns
    if agg == "std":
        return _spread(entries.columns, starts)
    return tuple(_REDUCE[agg].reduceat(column, starts) for column in entries.columns)


def _spread(columns: tuple[Column, ...], starts: Ints) -> tuple[Column, ...]:
    """Groups of (n, mean, M2) put together: Chan, Golub and LeVeque (1983), eq. 1.5, for any number of parts."""
    n, mean, m2 = columns
    total = np.add.reduceat(n, starts)
    centre = np.add.reduceat(n * mean, starts) / total
    away = mean - np.repeat(centre, np.diff(np.append(starts, len(n))))
    return total, centre, np.add.reduceat(m2 + n * away * away, starts)


def _quantiles(whole: Entries, q: float) -> tuple[Ints, Column]:
    """Of each owner the bucket that holds rank q (n - 1); keys ascend with the values."""
    if not len(whole):
        return whole.owner, np.zeros(0)
    starts = starts_of(whole.owner)
    lengths = np.diff(np.append(starts, len(whole)))
    counts = whole.columns[0]
    upto = np.cumsum(counts)
    below = upto - counts
    inside = upto - np.repeat(below[starts], lengths)
    rank = np.repeat(q * (np.add.reduceat(counts, starts) - 1), lengths)
    first = np.add.reduceat((inside <= rank).astype(np.int64), starts)
    return whole.owner[starts], sketches.bucket_values(whole.key[starts + first])
