"""Rows to votes: one per entity and window tick, of all its rows there.

So that an entity that sends the same thing many times within a tick does not count many times. A number's vote is the
mean of its rows, a category's the share of each value, a loss's the mean; each entity with any row also votes on how
much is missing.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.events.cells import grid, packed
from tidemill.events.records import TickVotes
from tidemill.events.tallies import LISTED, LONGEST, bounded, clipped, coded, listed, most_entities, shortened

__all__ = ["FeatureVotes", "Gaps", "Kind", "category_votes", "merged", "votes_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["number", "category", "loss"]


def merged(
    tick: int, one: TickVotes, other: TickVotes, labels: Mapping[str, Collection[str]] | None = None
) -> TickVotes:
    """The votes of disjoint sets of one tick's rows, put together: in any order, and however they were cut, the same.

    An entity is kept if its hash is below both bounds, whole; where there are too many, those with the smallest hashes
    are. Counts of values add up, so none is lost in merging; only totals, sums of floats, depend on the order in
    their last digits.

    With `labels`, the values of categories that are told apart, each entity keeps these and of others the commonest, 30
    in all: else a field of ids would make a tick as large as what was sent. What is bet on does not depend on it.
    """
    parts = [of for of in (one, other) if of.entities or of.features]
    both = _together(one, other, labels) if len(parts) == 2 else (parts or [one])[0]
    return bounded(both, tick, most_entities(len(both.features)), min(one.kept, other.kept))


def _together(one: TickVotes, other: TickVotes, labels: Mapping[str, Collection[str]] | None) -> TickVotes:
    entities, features = _all(one.entities, other.entities), _all(one.features, other.features)
    cells, values = _spread(one, entities, features) + _spread(other, entities, features), {}
    for name in {**one.values, **other.values}:
        told = None if labels is None else labels.get(name, ())
        mine, others = (dict(zip(of.entities, of.values.get(name, ()), strict=False)) for of in (one, other))
        values[name] = [_sum(mine.get(entity, {}), others.get(entity, {}), told) for entity in entities]
    return packed(entities, features, cells, values)


def _all(one: list[str], other: list[str]) -> list[str]:
    known = set(one)
    more = [name for name in other if name not in known]
    return sorted([*one, *more]) if more else one


def _spread(votes: TickVotes, entities: list[str], features: list[str]) -> Floats:
    """The votes with room for all those entities and features."""
    if entities == votes.entities and features == votes.features:
        return grid(votes)
    cells = np.zeros((3, len(entities), len(features)))
    rows = [[bisect_left(entities, name)] for name in votes.entities]
    columns = [bisect_left(features, name) for name in votes.features]
    if rows and columns:
        cells[:, rows, columns] = grid(votes)
    return cells


def _sum(one: Mapping[str, int], other: Mapping[str, int], labels: Collection[str] | None) -> dict[str, int]:
    values = dict(one)
    for value, rows in other.items():
        values[value] = values.get(value, 0) + rows
    if labels is not None and one and other and len(values) > LISTED + len(labels):
        others = sorted(values.keys() - set(labels), key=lambda value: (-values[value], value))[:LISTED]
        values = {value: values[value] for value in (*labels, *others) if value in values}
    return values


@dataclass(frozen=True)
class Gaps:
    """How much of a feature is missing: a vote of each entity and tick with rows, in the order of time."""

    ticks: Ints
    """(m,)"""
    shares: Floats
    """Share of the entity's rows without a value (m,)."""


@dataclass(frozen=True)
class FeatureVotes:
    """The votes of one feature, in the order of time. What features have in common they share."""

    name: str
    ticks: Ints
    """Number of the tick of each vote, event time // tick (n,)."""
    values: Floats
    """The votes (n,); of a category (n, R), the share of each of `labels` and then of all other values."""
    whose: Ints
    """Positions in `names` of the entities whose votes they are (n,)."""
    names: tuple[str, ...]
    """All entities."""
    rows: int
    """Rows behind the votes."""
    deviation: float
    """Standard deviation of the rows; of a category 0."""
    gaps: Gaps
    kind: Kind = "number"
    labels: tuple[str, ...] = ()
    """The values of a category that are told apart."""
    others: int = 0
    """How many more values there were."""
    cut: float = 0.0
    """How far listing only the commonest values of each vote moves the shares."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def entities(self) -> tuple[str, ...]:
        """Whose votes they are (n)."""
        return tuple(self.names[position] for position in self.whose)

    @property
    def table(self) -> Floats:
        """The votes by row (n, R); of a number the one row of its values."""
        return self.values if self.values.ndim == 2 else self.values[:, None]

    def where(self, chosen: Callable[[Ints], npt.NDArray[np.bool_]]) -> "FeatureVotes":
        """The votes of some ticks; `rows` in proportion."""
        return self._part(chosen(self.ticks), chosen(self.gaps.ticks))

    def between(self, first: int, last: int) -> "FeatureVotes":
        """The votes of ticks from `first` to `last`, without a copy of them; `rows` in proportion."""
        at, gaps = (slice(*np.searchsorted(ticks, [first, last + 1])) for ticks in (self.ticks, self.gaps.ticks))
        return self._part(at, gaps)

    def _part(self, keep: slice | npt.NDArray[np.bool_], keep_gaps: slice | npt.NDArray[np.bool_]) -> "FeatureVotes":
        values = self.values[keep]
        return replace(
            self,
            ticks=self.ticks[keep],
            values=values,
            whose=self.whose[keep],
            rows=round(self.rows * len(values) / max(len(self), 1)),
            gaps=Gaps(self.gaps.ticks[keep_gaps], self.gaps.shares[keep_gaps]),
        )

    def below(self, edges: Floats) -> tuple[Ints, Floats, Floats]:
        """By tick with votes: its number (T,), votes at or below each edge (T, E), votes (T,). Numbers only."""
        return _by_tick(self.ticks, self.values[:, None] <= edges)

    def hits(self, edges: Floats) -> tuple[Ints, Floats, Floats]:
        """By tick with votes: its number (T,), the sum of hits in each row (T, R), votes (T,)."""
        if self.kind == "number":
            return self.below(edges)
        return _by_tick(self.ticks, self.table)

    def missing(self) -> tuple[Ints, Floats, Floats]:
        """By tick with rows: its number (T,), the sum of the shares that are missing (T, 1), votes (T,)."""
        return _by_tick(self.gaps.ticks, self.gaps.shares[:, None])


def _by_tick(ticks: Ints, hits: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> tuple[Ints, Floats, Floats]:
    numbers, starts = np.unique(ticks, return_index=True)
    if not len(numbers):
        return numbers, np.zeros((0, hits.shape[1])), np.zeros(0)
    counts = np.diff(np.append(starts, len(ticks)))
    return numbers, np.add.reduceat(hits, starts, axis=0, dtype=np.float64), counts.astype(np.float64)


def votes_of(
    frame: pl.DataFrame, features: Sequence[str], tick_ms: int, *, kind: Kind = "number"
) -> list[FeatureVotes]:
    """The votes of each number (or loss) in a frame with columns `entity`, `event_time` (a Datetime) and the features.

    Nulls and what is not finite are missing. Raises `InvalidInput` where a column is missing or of another type.
    """
    cells = _cells(frame, features, tick_ms)
    for name in features:
        if not frame.schema[name].is_numeric():
            raise InvalidInput(f"{name} of a reference's rows is {frame.schema[name]}, not a number")
    return [_number_votes(frame[name], cells, kind) for name in features]


def category_votes(frame: pl.DataFrame, features: Sequence[str], tick_ms: int) -> list[FeatureVotes]:
    """The votes of each category in such a frame.

    Told apart are all values where there are at most 15, else the 15 commonest of the older half of the votes: what is
    then measured on the newer half was not chosen by it. Nulls are missing. Raises `InvalidInput` as `votes_of` does.
    """
    cells = _cells(frame, features, tick_ms)
    return [_category_votes(frame[name], cells) for name in features]


@dataclass(frozen=True)
class _Cells:
    """The entities and ticks with rows (m of them), in the order of time: the same for all features."""

    of_row: Ints
    """Each row's cell (rows,)."""
    ticks: Ints
    whose: Ints
    sizes: Ints
    """Rows of each cell (m,)."""
    full: Gaps
    """Of a feature of which nothing is missing."""
    names: tuple[str, ...]

    def votes(self, name: str, kind: Kind, counts: Ints, values: Floats) -> FeatureVotes:
        """A feature's votes: each cell has so many rows with a value (m,); `values` are of those that have any."""
        voted = counts > 0
        keep = slice(None) if voted.all() else voted
        gaps = self.full if (counts == self.sizes).all() else Gaps(self.ticks, 1 - counts / self.sizes)
        return FeatureVotes(
            name=name,
            ticks=self.ticks[keep],
            values=values,
            whose=self.whose[keep],
            names=self.names,
            rows=int(counts.sum()),
            deviation=0.0,
            gaps=gaps,
            kind=kind,
        )


def _cells(frame: pl.DataFrame, features: Sequence[str], tick_ms: int) -> _Cells:
    missing = [name for name in ("entity", "event_time", *features) if name not in frame.columns]
    if missing:
        raise InvalidInput(f"the rows of a reference lack {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if not isinstance(frame.schema["event_time"], pl.Datetime):
        raise InvalidInput(f"event_time of a reference's rows is {frame.schema['event_time']}, not a Datetime")
    ticks = frame["event_time"].dt.epoch("ms").to_numpy() // tick_ms
    names, whose = coded(frame["entity"].cast(pl.String))
    first = int(ticks.min()) if len(ticks) else 0
    keys, of_row, sizes = np.unique((ticks - first) * len(names) + whose, return_inverse=True, return_counts=True)
    ticks, whose = np.divmod(keys, max(len(names), 1))
    ticks = ticks + first
    return _Cells(of_row, ticks, whose, sizes, Gaps(ticks, np.zeros(len(ticks))), tuple(names))


def _number_votes(series: pl.Series, cells: _Cells, kind: Kind) -> FeatureVotes:
    values, of_row = clipped(series), cells.of_row
    absent = np.isnan(values)
    if absent.any():
        values, of_row = values[~absent], of_row[~absent]
    counts = np.bincount(of_row, minlength=len(cells.ticks))
    voted = counts > 0
    means = np.bincount(of_row, weights=values, minlength=len(cells.ticks))[voted] / counts[voted]
    votes = cells.votes(series.name, kind, counts, means)
    return replace(votes, deviation=float(np.std(values)) if len(values) else 0.0)


def _category_votes(series: pl.Series, cells: _Cells) -> FeatureVotes:
    texts = _short(series.cast(pl.String))
    there = texts.is_not_null().to_numpy()
    known, codes = coded(texts.drop_nulls())
    keys, rows = np.unique(cells.of_row[there] * len(known) + codes, return_counts=True)
    at, codes = np.divmod(keys, max(len(known), 1))
    counts = np.bincount(at, weights=rows, minlength=len(cells.ticks)).astype(np.int64)
    shares = rows / counts[at]
    votes = np.cumsum(counts > 0) - 1  # of a cell, its vote
    labels = _told_apart(cells.ticks[at], codes, shares, cells.ticks[counts > 0], len(known))

    def table(chosen: npt.NDArray[np.bool_]) -> Floats:
        """Share of each label and of all other values by vote (n, R), as if only these were known."""
        row = np.full(len(known), len(labels))
        row[labels] = np.arange(len(labels))
        chosen = chosen & (row[codes] < len(labels))
        found = np.zeros((int((counts > 0).sum()), len(labels) + 1))
        found[votes[at[chosen]], row[codes[chosen]]] = shares[chosen]
        rest = 1.0 - found.sum(axis=1)
        found[:, -1] = np.where(rest < _ROUNDING, 0.0, rest)
        return found

    exact, sketched = table(np.ones(len(at), dtype=np.bool_)), listed(at, rows)
    cut = 0.0 if sketched.all() else float(np.abs((exact - table(sketched)).mean(axis=0)).max())
    return replace(
        cells.votes(series.name, "category", counts, exact),
        labels=tuple(known[code] for code in labels),
        others=len(known) - len(labels),
        cut=cut,
    )


_ROUNDING = 1e-9


def _short(values: pl.Series) -> pl.Series:
    long = values.filter(values.str.len_chars() > LONGEST).unique()
    return values.replace(long, pl.Series([shortened(value) for value in long], dtype=pl.String()))


def _told_apart(ticks: Ints, codes: Ints, shares: Floats, of_votes: Ints, known: int) -> Ints:
    """The values that get a row of their own, the commonest first, of equally common ones the first by name."""
    if known > LISTED:
        older = ticks < of_votes[len(of_votes) // 2]
        if older.any():
            codes, shares = codes[older], shares[older]
    weight = np.bincount(codes, weights=shares, minlength=known).round(9)
    return np.lexsort((np.arange(known), -weight))[:LISTED]
