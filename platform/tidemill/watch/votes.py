"""Rows to votes: one per entity and window tick, of all its rows there.

So that an entity that sends the same thing many times within a tick does not count many times. A number's vote is the
mean of its rows, a category's the share of each value, a loss's the mean; each entity with any row also votes on how
much is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.events.records import FeatureSketch
from tidemill.events.tallies import LISTED, LONGEST, MOST_ENTITIES, bound_of, clipped, commonest, place, shortened

__all__ = ["FeatureVotes", "Gaps", "Kind", "TickVotes", "category_votes", "merged", "votes_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["number", "category", "loss"]


class TickVotes(msgspec.Struct, frozen=True):
    """The votes of one tick, as merged so far."""

    votes: Mapping[str, Mapping[str, FeatureSketch]] = {}
    """By entity and feature."""
    kept: float = 1.0
    """Entities with a hash below this are here, and none else (see `Sketch.kept`)."""


def merged(tick: int, one: TickVotes, other: TickVotes) -> TickVotes:
    """The votes of disjoint sets of one tick's rows, put together: in any order, and however they were cut, the same.

    An entity is kept if its hash is below both bounds, whole; where there are too many, those with the smallest hashes
    are. Counts of values add up, so none is lost in merging; only totals, sums of floats, depend on the order in
    their last digits.
    """
    kept = min(one.kept, other.kept)
    votes = dict(one.votes)
    for entity, features in other.votes.items():
        votes[entity] = _together(votes[entity], features) if entity in votes else features
    if kept < 1.0 or len(votes) > MOST_ENTITIES:
        places = {entity: place(entity, tick) for entity in votes}
        places = {entity: at for entity, at in places.items() if at < kept}
        kept = min(kept, bound_of(places.values()))
        votes = {entity: votes[entity] for entity, at in places.items() if at < kept}
    return TickVotes(votes, kept)


def _together(one: Mapping[str, FeatureSketch], other: Mapping[str, FeatureSketch]) -> Mapping[str, FeatureSketch]:
    both = dict(one)
    for name, added in other.items():
        both[name] = _sum(both[name], added) if name in both else added
    return both


def _sum(one: FeatureSketch, other: FeatureSketch) -> FeatureSketch:
    values = dict(one.values)
    for value, rows in other.values.items():
        values[value] = values.get(value, 0) + rows
    return FeatureSketch(
        count=one.count + other.count,
        total=one.total + other.total,
        missing=one.missing + other.missing,
        values=values,
    )


@dataclass(frozen=True)
class Gaps:
    """How much of a feature is missing: a vote of each entity and tick with rows, in the order of time."""

    ticks: Ints
    """(m,)"""
    shares: Floats
    """Share of the entity's rows without a value (m,)."""


@dataclass(frozen=True)
class FeatureVotes:
    """The votes of one feature, in the order of time."""

    name: str
    ticks: Ints
    """Number of the tick of each vote, event time // tick (n,)."""
    values: Floats
    """The votes (n,); of a category (n, R), the share of each of `labels` and then of all other values."""
    entities: tuple[str, ...]
    """Whose votes they are (n)."""
    rows: int
    """Rows behind them."""
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

    def where(self, chosen: Callable[[Ints], npt.NDArray[np.bool_]]) -> "FeatureVotes":
        """The votes of some ticks; `rows` in proportion."""
        keep, keep_gaps = chosen(self.ticks), chosen(self.gaps.ticks)
        return replace(
            self,
            ticks=self.ticks[keep],
            values=self.values[keep],
            entities=tuple(np.asarray(self.entities, dtype=object)[keep]),
            rows=round(self.rows * int(keep.sum()) / max(len(self), 1)),
            gaps=Gaps(self.gaps.ticks[keep_gaps], self.gaps.shares[keep_gaps]),
        )

    def between(self, first: int, last: int) -> "FeatureVotes":
        """The votes of ticks from `first` to `last`; `rows` and `deviation` stay those of the whole."""
        at = slice(*np.searchsorted(self.ticks, [first, last + 1]))
        gaps = slice(*np.searchsorted(self.gaps.ticks, [first, last + 1]))
        return replace(
            self,
            ticks=self.ticks[at],
            values=self.values[at],
            entities=self.entities[at],
            gaps=Gaps(self.gaps.ticks[gaps], self.gaps.shares[gaps]),
        )

    def below(self, edges: Floats) -> tuple[Ints, Floats, Floats]:
        """By tick with votes: its number (T,), votes at or below each edge (T, E), votes (T,). Numbers only."""
        return _by_tick(self.ticks, self.values[:, None] <= edges)

    def hits(self, edges: Floats) -> tuple[Ints, Floats, Floats]:
        """By tick with votes: its number (T,), the sum of hits in each row (T, R), votes (T,)."""
        if self.kind == "number":
            return self.below(edges)
        return _by_tick(self.ticks, self.values.reshape(len(self), -1))

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
    _check(frame, features)
    for name in features:
        if not frame.schema[name].is_numeric():
            raise InvalidInput(f"{name} of a reference's rows is {frame.schema[name]}, not a number")
    return [_number_votes(frame, name, tick_ms, kind) for name in features]


def category_votes(frame: pl.DataFrame, features: Sequence[str], tick_ms: int) -> list[FeatureVotes]:
    """The votes of each category in such a frame.

    Told apart are all values where there are at most 15, else the 15 commonest of the older half of the votes: what is
    then measured on the newer half was not chosen by it. Nulls are missing. Raises `InvalidInput` as `votes_of` does.
    """
    _check(frame, features)
    return [_category_votes(frame, name, tick_ms) for name in features]


def _check(frame: pl.DataFrame, features: Sequence[str]) -> None:
    missing = [name for name in ("entity", "event_time", *features) if name not in frame.columns]
    if missing:
        raise InvalidInput(f"the rows of a reference lack {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if not isinstance(frame.schema["event_time"], pl.Datetime):
        raise InvalidInput(f"event_time of a reference's rows is {frame.schema['event_time']}, not a Datetime")


def _cells(frame: pl.DataFrame, tick_ms: int, value: pl.Series) -> pl.DataFrame:
    return frame.select(
        entity=pl.col("entity").cast(pl.String), tick=pl.col("event_time").dt.epoch("ms") // tick_ms, value=value
    )


def _gaps(rows: pl.DataFrame) -> Gaps:
    gaps = rows.group_by("tick", "entity").agg(pl.col("value").is_null().mean().alias("missing")).sort("tick", "entity")
    return Gaps(gaps["tick"].to_numpy().astype(np.int64), gaps["missing"].to_numpy().astype(np.float64))


def _number_votes(frame: pl.DataFrame, name: str, tick_ms: int, kind: Kind) -> FeatureVotes:
    rows = _cells(frame, tick_ms, pl.Series(clipped(frame[name]), nan_to_null=True))
    there = rows.drop_nulls("value")
    votes = there.group_by("tick", "entity").agg(pl.col("value").mean()).sort("tick", "entity")
    return FeatureVotes(
        name=name,
        ticks=votes["tick"].to_numpy().astype(np.int64),
        values=votes["value"].to_numpy().astype(np.float64),
        entities=tuple(votes["entity"]),
        rows=there.height,
        deviation=float(np.std(there["value"].to_numpy())) if there.height else 0.0,
        gaps=_gaps(rows),
        kind=kind,
    )


def _category_votes(frame: pl.DataFrame, name: str, tick_ms: int) -> FeatureVotes:
    rows = _cells(frame, tick_ms, frame[name].cast(pl.String))
    there = rows.drop_nulls("value")
    counted = there.group_by("tick", "entity", "value").len("rows")
    cells = counted.group_by("tick", "entity").agg(pl.col("rows").sum().alias("all")).sort("tick", "entity")
    cells = cells.with_row_index("vote")
    counted = counted.join(cells, on=["tick", "entity"]).with_columns(_short(counted["value"]))
    labels, others = _told_apart(counted, cells)
    shares = _shares(counted, labels, cells.height)
    listed = commonest(counted, "vote")
    cut = 0.0
    if listed.height < counted.height:
        cut = float(np.abs(shares.mean(axis=0) - _shares(listed, labels, cells.height).mean(axis=0)).max())
    return FeatureVotes(
        name=name,
        ticks=cells["tick"].to_numpy().astype(np.int64),
        values=shares,
        entities=tuple(cells["entity"]),
        rows=there.height,
        deviation=0.0,
        gaps=_gaps(rows),
        kind="category",
        labels=labels,
        others=others,
        cut=cut,
    )


def _short(values: pl.Series) -> pl.Series:
    long = values.filter(values.str.len_chars() > LONGEST).unique()
    return (
        values.replace(long, pl.Series([shortened(value) for value in long], dtype=pl.String()))
        if len(long)
        else values
    )


def _told_apart(counted: pl.DataFrame, cells: pl.DataFrame) -> tuple[tuple[str, ...], int]:
    """The values that get a row of their own, the commonest first; and how many there are besides."""
    values = counted["value"].n_unique()
    if values > LISTED:
        middle = cells["tick"][cells.height // 2]
        older = counted.filter(pl.col("tick") < middle)
        counted = counted if older.is_empty() else older
    weight = (pl.col("rows") / pl.col("all")).sum().round(9)
    ranked = counted.group_by("value").agg(weight.alias("weight")).sort("weight", "value", descending=[True, False])
    labels = tuple(ranked["value"].head(LISTED))
    return labels, values - len(labels)


def _shares(counted: pl.DataFrame, labels: Sequence[str], votes: int) -> Floats:
    """Share of each value's rows in each vote, and of all other values (n, R)."""
    shares = np.zeros((votes, len(labels) + 1))
    told = counted.join(
        pl.DataFrame({"value": labels}, schema={"value": pl.String()}).with_row_index("row"), on="value"
    )
    shares[told["vote"].to_numpy(), told["row"].to_numpy()] = (told["rows"] / told["all"]).to_numpy()
    shares[:, -1] = np.maximum(1.0 - shares[:, :-1].sum(axis=1), 0.0)
    shares[:, -1][shares[:, -1] < _ROUNDING] = 0.0
    return shares


_ROUNDING = 1e-9
