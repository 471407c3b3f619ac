"""Which older rows a run learns from again: a seeded sample of their numbers. Arrays in, an array out.

reservoir       every row with the same chance: what a reservoir holds once all rows have passed it (Vitter,
Random Sampling with a Reservoir, 1985), the memory of Rolnick et al., Experience Replay for
Continual Learning (2019). The lake keeps all rows, so no reservoir has to be carried along.
classBalanced   the same share for each class, as near as there are rows: the aim of the class-balancing reservoir
(Chrysakis & Moens, Online Continual Learning from Imbalanced Data, 2020, algorithm 1)
recent          weighted by age, without replacement: the rows with the smallest E/w, E exponential (Efraimidis &
Spirakis, Weighted Random Sampling with a Reservoir, 2006, algorithm A-ES, its keys' logarithm)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.spec.loop import Replay

__all__ = ["HALVINGS", "draw_replay", "replay_rows"]

HALVINGS = 10
"""Of `recent`: the weight of a row halves so many times from the newest row to the oldest."""

_Numbers = NDArray[np.int64]


def replay_rows(replay: Replay, *, new: int, least: int) -> int:
    """How many rows are wanted beside `new` ones: their share of the whole, and more where the whole is below `least`.

    `least` does not count for a `fraction` of 0, which asks for no replay.
    """
    if replay.fraction == 0:
        return 0
    return max(round(new * replay.fraction / (1 - replay.fraction)), least - new)


def draw_replay(
    replay: Replay, count: int, size: int, *, seed: int, classes: Sequence[str | None] | None = None
) -> _Numbers:
    """Numbers of the rows to replay, ascending: `size` of `count`, all where there are fewer.

    Args:
        replay: for the strategy.
        count: older rows there are; they are numbered from 0, oldest first.
        size: rows that are wanted.
        seed: the same one draws the same rows.
        classes: what each row's label states, for `classBalanced`; rows without one are a class of their own.
            Without classes, all rows are one class.
    """
    rng, size = np.random.default_rng(seed), max(0, min(size, count))
    if replay.strategy == "classBalanced" and classes is not None:
        drawn = _balanced(rng, classes, size)
    elif replay.strategy == "recent":
        drawn = _recent(rng, count, size)
    else:
        drawn = rng.choice(count, size=size, replace=False)
    return np.sort(drawn).astype(np.int64)


def _balanced(rng: np.random.Generator, classes: Sequence[str | None], size: int) -> _Numbers:
    names = np.array(["" if name is None else f"={name}" for name in classes], dtype=np.str_)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    quotas = _quotas(rng, [len(numbers) for numbers in rows], size)
    drawn = [rng.choice(numbers, size=quota, replace=False) for numbers, quota in zip(rows, quotas, strict=True)]
    return np.concatenate(drawn) if drawn else np.empty(0, np.int64)


def _quotas(rng: np.random.Generator, counts: Sequence[int], size: int) -> list[int]:
    """Equal shares of `size`; what a class lacks goes to the others, what cannot be divided to the larger ones."""
    quotas = [0] * len(counts)
    left, order = size, sorted(rng.permutation(len(counts)).tolist(), key=lambda number: counts[number])
    for place, number in enumerate(order):  # the smallest first: what they lack is known when the larger ones come
        quotas[number] = min(counts[number], left // (len(order) - place))
        left -= quotas[number]
    return quotas


def _recent(rng: np.random.Generator, count: int, size: int) -> _Numbers:
    age = np.arange(count)[::-1] / max(1, count - 1)
    keys = rng.standard_exponential(count) * 2.0 ** (HALVINGS * age)
    return np.argpartition(keys, size - 1)[:size] if size else np.empty(0, np.int64)
