"""Rows to votes: one per entity and window tick, the mean of its rows.

So that an entity that sends the same thing many times within a tick does not count many times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.errors import InvalidInput

__all__ = ["FeatureVotes", "votes_of"]


@dataclass(frozen=True)
class FeatureVotes:
    """The votes of one feature, in the order of time."""

    name: str
    ticks: npt.NDArray[np.int64]
    """Number of the tick of each vote, event time // tick (n,)."""
    values: npt.NDArray[np.float64]
    """The votes (n,)."""
    entities: tuple[str, ...]
    """Whose votes they are (n)."""
    rows: int
    """Rows behind them."""
    deviation: float
    """Standard deviation of the rows."""

    def __len__(self) -> int:
        return len(self.values)

    def part(self, keep: npt.NDArray[np.bool_]) -> "FeatureVotes":
        """The votes where `keep`; `rows` in proportion."""
        chosen = tuple(entity for entity, kept in zip(self.entities, keep, strict=True) if kept)
        rows = round(self.rows * len(chosen) / max(len(self), 1))
        return FeatureVotes(self.name, self.ticks[keep], self.values[keep], chosen, rows, self.deviation)

    def below(
        self, edges: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """By tick with votes: its number (T,), votes at or below each edge (T, E), votes (T,)."""
        numbers, starts = np.unique(self.ticks, return_index=True)
        if not len(numbers):
            return numbers, np.zeros((0, len(edges))), np.zeros(0)
        indicators = self.values[:, None] <= edges
        counts = np.diff(np.append(starts, len(self.ticks)))
        return numbers, np.add.reduceat(indicators, starts, axis=0, dtype=np.float64), counts.astype(np.float64)


def votes_of(frame: pl.DataFrame, features: Sequence[str], tick_ms: int) -> list[FeatureVotes]:
    """The votes of each feature in a frame with columns `entity`, `event_time` (a Datetime) and the features.

    Nulls and what is not finite do not vote. Raises `InvalidInput` where a column is missing or of another type.
    """
    missing = [name for name in ("entity", "event_time", *features) if name not in frame.columns]
    if missing:
        raise InvalidInput(f"the rows of a reference lack {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if not isinstance(frame.schema["event_time"], pl.Datetime):
        raise InvalidInput(f"event_time of a reference's rows is {frame.schema['event_time']}, not a Datetime")
    for name in features:
        if not frame.schema[name].is_numeric():
            raise InvalidInput(f"{name} of a reference's rows is {frame.schema[name]}, not a number")
    return [_feature_votes(frame, name, tick_ms) for name in features]


def _feature_votes(frame: pl.DataFrame, name: str, tick_ms: int) -> FeatureVotes:
    rows = frame.select(
        entity=pl.col("entity").cast(pl.String),
        tick=pl.col("event_time").dt.epoch("ms") // tick_ms,
        value=pl.col(name).cast(pl.Float64),
    ).filter(pl.col("value").is_finite())
    votes = rows.group_by("tick", "entity").agg(pl.col("value").mean()).sort("tick", "entity")
    return FeatureVotes(
        name=name,
        ticks=votes["tick"].to_numpy().astype(np.int64),
        values=votes["value"].to_numpy().astype(np.float64),
        entities=tuple(votes["entity"]),
        rows=rows.height,
        deviation=float(np.std(rows["value"].to_numpy())) if rows.height else 0.0,
    )
