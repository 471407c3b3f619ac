"""The votes of a window tick as arrays: how they are packed into their record, read from it, and named.

There are many: of a hundred entities and ten features a thousand in each window tick. So none is an object of its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tidemill.events.records import FeatureSketch, TickVotes

__all__ = ["EMPTY", "by_name", "chosen", "grid", "named", "packed"]

Floats = npt.NDArray[np.float64]
EMPTY = TickVotes(entities=[], features=[], cells=b"")
"""The votes of no rows."""
_NONE: dict[str, int] = {}


def grid(votes: TickVotes) -> Floats:
    """Rows with a value, their totals, and rows without one, by entity and feature (3, entities, features).

    Whole numbers below 2^53 are exact. What has no rows at all was not asked.
    """
    return np.frombuffer(votes.cells, dtype="<f8").reshape(3, len(votes.entities), len(votes.features))


def packed(
    entities: Sequence[str],
    features: Sequence[str],
    cells: Floats,
    values: Mapping[str, list[dict[str, int]]] | None = None,
    kept: float = 1.0,
) -> TickVotes:
    """The record of votes; names are in order, `cells` are as `grid` gives them."""
    return TickVotes(
        entities=list(entities),
        features=list(features),
        cells=np.ascontiguousarray(cells, dtype="<f8").tobytes(),
        values=dict(values or {}),
        kept=kept,
    )


def chosen(votes: TickVotes, keep: npt.NDArray[np.bool_], kept: float) -> TickVotes:
    """The votes of some entities (n,), and the bound that is told of them."""
    at = np.flatnonzero(keep)
    values = {name: [of[row] for row in at] for name, of in votes.values.items()}
    return packed([votes.entities[row] for row in at], votes.features, grid(votes)[:, at], values, kept)


def by_name(votes: TickVotes) -> dict[str, dict[str, FeatureSketch]]:
    """Each vote by entity and feature, for who looks at few of them."""
    found: dict[str, dict[str, FeatureSketch]] = {}
    counts, totals, missing = grid(votes)
    for row, entity in enumerate(votes.entities):
        found[entity] = {
            name: FeatureSketch(
                count=int(counts[row, column]),
                total=float(totals[row, column]),
                missing=int(missing[row, column]),
                values=votes.values[name][row] if name in votes.values else _NONE,
            )
            for column, name in enumerate(votes.features)
            if counts[row, column] or missing[row, column]
        }
    return found


def named(votes: Mapping[str, Mapping[str, FeatureSketch]], kept: float = 1.0) -> TickVotes:
    """The record of votes that are given by entity and feature."""
    entities, features = sorted(votes), sorted({name for of in votes.values() for name in of})
    cells, values = np.zeros((3, len(entities), len(features))), dict[str, list[dict[str, int]]]()
    for row, entity in enumerate(entities):
        for column, name in enumerate(features):
            of = votes[entity].get(name)
            if of is not None:
                cells[:, row, column] = of.count, of.total, of.missing
                if of.values:
                    values.setdefault(name, [{} for _ in entities])[row] = dict(of.values)
    return packed(entities, features, cells, values, kept)
