"""A closed tick's votes of one feature: its hits in each row that is bet on, and what signals say of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt

from tidemill.events.cells import grid
from tidemill.events.records import TickVotes
from tidemill.stats.drift import MISSING, ROWS
from tidemill.watch.quantity import ENTITIES, FeatureReference

__all__ = ["EVERYONE", "Hits", "hits_of", "level", "moved_on", "new_values", "number_hits"]

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


def hits_of(feature: FeatureReference, votes: TickVotes, edges: Floats, only: str | None = None) -> Hits:
    """What votes say of a feature; `edges` (R,) are those of the detectors, `only` the one entity that is asked."""
    if feature.kind == "number":
        return number_hits([feature], votes, edges[None])[0]
    hits, counted, levels = np.zeros(ROWS), np.zeros(ROWS), dict[str, Mapping[str, float]]()
    counts, totals, missing = _columns(votes, [feature.name])[:, :, 0]
    entities, values = votes.entities, votes.values.get(feature.name, [{}] * len(counts))
    if only is not None:
        asked_for = np.array([entity == only for entity in entities], dtype=np.bool_)
        counts, missing = counts * asked_for, missing * asked_for
    # A field that was a number when the reference was made may be a category by now, or the other way round.
    told = feature.kind == "category"
    there = (counts > 0) & np.array([bool(of) == told for of in values], dtype=np.bool_)
    new: Mapping[str, float] = {}
    if told:
        shares, new = _shares(feature, list(compress(values, there)), counts[there])
    else:
        there &= np.isfinite(totals)
        shares = np.clip(totals[there] / counts[there], 0.0, 1.0)[:, None]
    if there.any():
        hits[: shares.shape[1]], counted[:MISSING] = shares.sum(axis=0), len(shares)
        for row, of in enumerate(shares.T):
            levels[level(feature, row)] = _level(feature, compress(entities, there), of, of.mean())
    asked = counts + missing > 0
    absent = missing[asked] / (counts + missing)[asked]
    hits[MISSING], counted[MISSING] = absent.sum(), len(absent)
    if len(absent):
        levels[level(feature, MISSING)] = _level(feature, compress(entities, asked), absent, absent.mean())
    return Hits(hits, counted, levels, new)


def number_hits(features: Sequence[FeatureReference], votes: TickVotes, edges: Floats) -> list[Hits]:
    """What votes say of numbers, all at once; `edges` (F, R) are those of the detectors."""
    counts, totals, missing = _columns(votes, [feature.name for feature in features])
    there = (counts > 0) & np.isfinite(totals)
    for column, feature in enumerate(features):
        if feature.name in votes.values:
            there[:, column] &= [not of for of in votes.values[feature.name]]
    means = np.where(there, totals, 0.0) / np.maximum(counts, 1.0)
    rows = counts + missing
    asked = rows > 0
    absent = missing / np.maximum(rows, 1.0)
    below = (means[..., None] <= edges[:, :MISSING]) & there[..., None]
    voters, askers = there.sum(axis=0), asked.sum(axis=0)
    hits = np.column_stack([below.sum(axis=0), absent.sum(axis=0)]).astype(np.float64)
    counted = np.column_stack([np.repeat(voters[:, None], MISSING, axis=1), askers]).astype(np.float64)
    usual, gone = (of.sum(axis=0) / np.maximum(n, 1) for of, n in ((means, voters), (absent, askers)))
    found = []
    for row, feature in enumerate(features):
        levels = dict[str, Mapping[str, float]]()
        for key, who, shown, mean in ((0, there, means, usual), (MISSING, asked, absent, gone)):
            if counted[row, key]:
                entities = compress(votes.entities, who[:, row])
                values = compress(shown[:, row], who[:, row])
                levels[level(feature, key)] = _level(feature, entities, values, mean[row])
        found.append(Hits(hits[row], counted[row], levels))
    return found


def _columns(votes: TickVotes, names: Sequence[str]) -> Floats:
    """Rows with a value, their totals, and rows without one (3, entities, names); 0 of what was not asked."""
    cells = np.zeros((3, len(votes.entities), len(names)))
    at = {name: column for column, name in enumerate(votes.features)}
    known = [column for column, name in enumerate(names) if name in at]
    cells[:, :, known] = grid(votes)[:, :, [at[names[column]] for column in known]]
    return cells


def _shares(
    feature: FeatureReference, votes: Sequence[Mapping[str, int]], counts: Floats
) -> tuple[Floats, dict[str, float]]:
    """The share of each label and of all others by entity (n, R), and of each value that is none of the labels."""
    rows = {value: row for row, value in enumerate(feature.labels)}
    shares, new = np.zeros((len(votes), len(rows) + 1)), dict[str, float]()
    for position, (values, count) in enumerate(zip(votes, counts.tolist(), strict=True)):
        for value, number in values.items():
            row = rows.get(value)
            if row is None:
                new[value] = new.get(value, 0.0) + number / count / len(votes)
            else:
                shares[position, row] = number / count
    shares[:, -1] = np.maximum(1.0 - shares[:, :-1].sum(axis=1), 0.0)
    shares[shares < _ROUNDING] = 0.0
    return shares, new


_ROUNDING = 1e-9


def _level(
    feature: FeatureReference, entities: Iterable[str], values: Iterable[float], mean: float
) -> Mapping[str, float]:
    everyone = {EVERYONE: float(mean)}
    if not (feature.entities or feature.entity_shares):
        return everyone
    return {**dict(zip(entities, map(float, values), strict=True)), **everyone}


def moved_on(
    recent: Mapping[str, Mapping[str, float]], ticks: Iterable[tuple[FeatureReference, Hits]]
) -> dict[str, Mapping[str, float]]:
    """The moving means after a tick of some features, of at most 64 entities each."""
    after = dict(recent)
    for feature, tick in ticks:
        for key, values in tick.levels.items():
            before = recent.get(key, {})
            if before or values[EVERYONE] or key != level(feature, MISSING):  # most features are never missing
                after[key] = _averaged(before, values)
        before = recent.get(new_values(feature), {})
        if tick.new or before:
            after[new_values(feature)] = _faded(before, tick.new)
    return after


def _faded(before: Mapping[str, float], new: Mapping[str, float]) -> Mapping[str, float]:
    faded = {value: (1 - RECENT) * share for value, share in before.items()}
    for value, share in new.items():
        faded[value] = faded.get(value, 0.0) + RECENT * share
    commonest = sorted(faded.items(), key=lambda item: (-item[1], item[0]))[:MOST_NEW]
    return {value: share for value, share in commonest if share >= _FORGOTTEN}


def _averaged(recent: Mapping[str, float], values: Mapping[str, float]) -> Mapping[str, float]:
    moved = dict(recent)
    for entity, vote in values.items():
        if entity in moved:
            moved[entity] += RECENT * (vote - moved[entity])
        elif len(moved) <= ENTITIES:
            moved[entity] = vote
    return moved
