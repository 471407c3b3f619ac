"""What to label next: each reason picks with its own probability, by coins that anyone can toss again.

A *thing* is an event with all its predictions, or a prediction without one: a label of an event is a label of each of
its predictions, so they are picked together. Reason r falls on a thing where a hash of (thing, r) is below p_r. Hence
coins of different reasons are independent, whoever asks gets the same picks, and a thing is picked with probability
1 - product of (1 - p_r) (STATISTICS.md 3). All p_r follow from predictions alone, never from a label.

What makes the recorded probability true:

- A pick is made of *all* predictions that arrived since the last pick, labelled or not, and each prediction is
  considered once. A second toss with other numbers would give it another probability than the one recorded.
- Each round picks at least one thing: its most useful one, with probability 1. So each round leaves a record, by which
  the next one knows where to begin.
- The budget scales what is not control share until the *expected* number of picks fits, before any coin is tossed.

A dispute between labellers is another matter: such things have labels, whose probability is settled. They are asked
for once more, and nothing is recorded of that.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "CONTROL", "DISPUTE", "FIRST", "RARE", "SLICE", "VERSIONS", "Picks", "coin", "pick"]

CONTROL, FIRST = "control", "most-useful"
CONFIDENCE, VERSIONS, SLICE, RARE = "low-confidence", "versions-differ", "drifted-slice", "rare-class"
DISPUTE = "labellers-differ"

_SLICE_P = _RARE_P = 0.5
_RARE_SHARE = 0.05
"""A class is rare that fewer of the answers have."""
_LEAST = 0.001
"""A probability below this is none: it would be a weight above 1,000 in an estimate."""

THINGS = ("item", "answer", "confidence", "entity", "versions_differ")


@dataclass(frozen=True)
class Picks:
    """What one round picked."""

    reasons: Mapping[str, Mapping[str, float]]
    """By thing, the most useful first after those of the control share: each reason that applies and its p_r."""
    considered: int
    expected: float
    """Expected number of picks, as the budget made it."""
    scale: float
    """What the probabilities of reasons other than `control` were multiplied with."""


def pick(things: pl.DataFrame, *, control: float, classes: int, budget: int | None, drifted: Collection[str]) -> Picks:
    """One round.

    Args:
        things: one row a thing, with columns `item`, `answer`, `confidence` (of its newest prediction; may be null),
            `entity`, and `versions_differ`: whether two versions answered differently.
        control: `spec.labels.control`.
        classes: how many classes there are.
        budget: about how many things to pick; None: the probabilities as they are.
        drifted: entities that recent drift signals name.
    """
    if things.is_empty():
        return Picks({}, 0, 0.0, 1.0)
    items, base = things["item"].to_list(), _base(things, classes, drifted)
    names = list(base)
    rows = np.stack([base[name] for name in names], axis=1)
    useful = 1 - np.prod(1 - rows, axis=1)
    scale = 1.0 if budget is None else _scale(rows, control, budget)
    shares = np.minimum(rows * scale, 1.0)
    shares[shares < _LEAST] = 0.0
    columns = [CONTROL, *names, FIRST]
    first = np.zeros(len(items))
    first[_most_useful(useful, items)] = 1.0
    shares = np.column_stack([np.full(len(items), control), shares, first])
    fell = np.column_stack([_fell(items, name, shares[:, place]) for place, name in enumerate(columns)])
    chosen = np.flatnonzero(fell.any(axis=1))
    rest = np.prod(1 - shares[:, 1:], axis=1)
    order = sorted(chosen, key=lambda row: (not fell[row, 0], rest[row], items[row]))
    reasons = {
        items[row]: {name: float(shares[row, place]) for place, name in enumerate(columns) if shares[row, place] > 0}
        for row in order
    }
    return Picks(reasons, len(items), float((1 - np.prod(1 - shares, axis=1)).sum()), scale)


def coin(item: str, reason: str) -> float:
    """A number in [0, 1), the same for the same thing and reason, and as good as random."""
    digest = hashlib.blake2b(f"{len(reason)}:{reason}{item}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _base(things: pl.DataFrame, classes: int, drifted: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """The probability of each reason, unscaled."""
    share = pl.len().over("answer") / pl.len()
    rare = pl.col("answer").is_not_null() & (share < _RARE_SHARE)
    unsure = ((1 - pl.col("confidence")) / (1 - 1 / max(classes, 2))).clip(0, 1).fill_nan(None).fill_null(0)
    found = things.select(
        unsure.cast(pl.Float64).alias(CONFIDENCE),
        pl.col("versions_differ").cast(pl.Float64).alias(VERSIONS),
        (pl.col("entity").is_in(list(drifted)) * _SLICE_P).cast(pl.Float64).fill_null(0).alias(SLICE),
        (rare * _RARE_P).cast(pl.Float64).alias(RARE),
    )
    return {name: found[name].to_numpy().astype(np.float64) for name in found.columns}


def _scale(rows: NDArray[np.float64], control: float, budget: int) -> float:
    """What makes the expected number of picks the budget, if anything does; at most so much that all are picked."""

    def expected(scale: float) -> float:
        return float((1 - (1 - control) * np.prod(1 - np.minimum(rows * scale, 1.0), axis=1)).sum())

    low, high = 0.0, 1.0 / max(float(rows[rows > 0].min()) if (rows > 0).any() else 1.0, _LEAST)
    if expected(high) <= budget:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < budget else (low, middle)
    return low


def _most_useful(useful: NDArray[np.float64], items: list[str]) -> int:
    return min(range(len(items)), key=lambda row: (-useful[row], items[row]))


def _fell(items: list[str], reason: str, shares: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.array([bool(p > 0 and coin(item, reason) < p) for item, p in zip(items, shares, strict=True)])
