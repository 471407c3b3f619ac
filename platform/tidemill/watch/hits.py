"""A closed tick's votes of one feature: its hits in each row that is bet on, and what signals say of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt

from tidemill.events.records import FeatureSketch
from tidemill.stats.drift import MISSING, ROWS
from tidemill.watch.quantity import ENTITIES, FeatureReference

__all__ = ["EVERYONE", "Hits", "hits_of", "level", "moved_on", "new_values"]

Floats = npt.NDArray[np.float64]

EVERYONE = ""
"""Key of the moving mean over all entities."""
RECENT = 0.25
"""Weight of a new vote in the moving mean that signals name: about the last seven votes count."""
MOST_NEW = 100
"""Values without a row of their own that are remembered, so that a signal can name one."""
_FORGOTTEN = 1e-3


@dataclass(frozen=True)
class Hits:
    """One feature in one tick."""

    hits: Floats
    """Their sum over the votes, in each row (R,)."""
    votes: Floats
    """Votes in each row (R,): of entities with a value, and of all in the row of the missing rate."""
    levels: Mapping[str, Mapping[str, float]]
    """What is shown of it, by `level` and entity, "" being their mean."""
    new: Mapping[str, float] = field(default_factory=dict)
    """Mean shares of a category's values that have no row of their own."""


def level(feature: FeatureReference, row: int) -> str:
    """The key of what is shown of a row: a number has one for all its edges. No two features have the same."""
    if row == MISSING:
        return f"{feature.key}?"
    return f"{feature.key}={row}" if feature.kind == "category" else feature.key


def new_values(feature: FeatureReference) -> str:
    """The key of the values that have no row of their own."""
    return f"{feature.key}+"


def hits_of(feature: FeatureReference, votes: Mapping[str, FeatureSketch], edges: Floats) -> Hits:
    """What votes by entity say of a feature; `edges` (R,) are those of the detectors."""
    hits, counted, levels = np.zeros(ROWS), np.zeros(ROWS), dict[str, Mapping[str, float]]()
    # A field that was a number when the reference was made may be a category by now, or the other way round.
    told = feature.kind == "category"
    entities, of = list(votes), list(votes.values())
    counts = np.array([vote.count for vote in of], dtype=np.float64)
    missing = np.array([vote.missing for vote in of], dtype=np.float64)
    there = (counts > 0) & np.array([bool(vote.values) == told for vote in of], dtype=np.bool_)
    new: Mapping[str, float] = {}
    if told:
        shares, new = _shares(feature, list(compress(of, there)))
    else:
        means = np.array([vote.total for vote in of], dtype=np.float64) / np.maximum(counts, 1.0)
        there &= np.isfinite(means)
        shares = means[there, None]
    if there.any():
        rows = shares <= edges[:MISSING] if feature.kind == "number" else np.clip(shares, 0.0, 1.0)
        hits[: rows.shape[1]], counted[:MISSING] = rows.sum(axis=0), len(rows)
        named = list(compress(entities, there))
        levels = {level(feature, row): _level(feature, named, values) for row, values in enumerate(shares.T)}
    asked = counts + missing > 0
    absent = missing[asked] / (counts + missing)[asked]
    hits[MISSING], counted[MISSING] = absent.sum(), len(absent)
    if len(absent):
        levels[level(feature, MISSING)] = _level(feature, list(compress(entities, asked)), absent)
    return Hits(hits, counted, levels, new)


def _shares(feature: FeatureReference, votes: Sequence[FeatureSketch]) -> tuple[Floats, dict[str, float]]:
    """The share of each label and of all others by entity (n, R), and of each value that is none of the labels."""
    rows = {value: row for row, value in enumerate(feature.labels)}
    shares, new = np.zeros((len(votes), len(rows) + 1)), dict[str, float]()
    for position, vote in enumerate(votes):
        for value, number in vote.values.items():
            row = rows.get(value)
            if row is None:
                new[value] = new.get(value, 0.0) + number / vote.count / len(votes)
            else:
                shares[position, row] = number / vote.count
    shares[:, -1] = np.maximum(1.0 - shares[:, :-1].sum(axis=1), 0.0)
    shares[shares < _ROUNDING] = 0.0
    return shares, new


_ROUNDING = 1e-9


def _level(feature: FeatureReference, entities: Sequence[str], values: Floats) -> Mapping[str, float]:
    everyone = {EVERYONE: float(values.mean())}
    if not (feature.entities or feature.entity_shares):
        return everyone
    return {**dict(zip(entities, values.tolist(), strict=True)), **everyone}


def moved_on(
    recent: Mapping[str, Mapping[str, float]], feature: FeatureReference, tick: Hits
) -> dict[str, Mapping[str, float]]:
    """The moving means after a tick, of at most 64 entities each."""
    after = dict(recent)
    for key, values in tick.levels.items():
        before = recent.get(key, {})
        if before or values[EVERYONE] or key != level(feature, MISSING):  # most features are never missing
            after[key] = _averaged(before, values)
    before = recent.get(new_values(feature), {})
    if tick.new or before:
        faded = {value: (1 - RECENT) * share for value, share in before.items()}
        for value, share in tick.new.items():
            faded[value] = faded.get(value, 0.0) + RECENT * share
        commonest = sorted(faded.items(), key=lambda item: (-item[1], item[0]))[:MOST_NEW]
        after[new_values(feature)] = {value: share for value, share in commonest if share >= _FORGOTTEN}
    return after


def _averaged(recent: Mapping[str, float], values: Mapping[str, float]) -> Mapping[str, float]:
    moved = dict(recent)
    for entity, vote in values.items():
        if entity in moved:
            moved[entity] += RECENT * (vote - moved[entity])
        elif len(moved) <= ENTITIES:
            moved[entity] = vote
    return moved
