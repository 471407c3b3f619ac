"""Many rollouts at once: the fold and the verdict of `tidemill.rollout` over arrays, for outcomes that are independent.

A cell is one second. In each, the requests fall to the arms by chance, the smaller arm makes the blocks, and the
larger one is dealt out over them; processes, thresholds and the order of the verdict's questions are those of
`tidemill.rollout.verdict.judge`. A test holds the processes against `tidemill.stats.betting` gain by gain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidemill.rollout.plan import RolloutPlan
from tidemill.stats.betting import Mixture, against_harm, for_promotion

__all__ = ["Ended", "Processes", "World", "always", "simulate"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ErrorAt = Callable[[float], float]
"""Probability of an error, by seconds since the start."""

BATCH = 1000
"""Rollouts that are held at a time."""


def always(error: float) -> ErrorAt:
    """An error that does not change."""
    return lambda _: error


@dataclass(frozen=True)
class World:
    """What happens to a rollout: errors of both versions, and so many requests a second for so many seconds."""

    candidate: ErrorAt
    champion: ErrorAt
    per_second: int = 400
    seconds: int = 150


@dataclass(frozen=True)
class Ended:
    """How each of the rollouts ended (R,)."""

    promoted: npt.NDArray[np.bool_]
    rolled_back: npt.NDArray[np.bool_]
    candidate: Ints
    """Outcomes of the candidate until then."""
    requests: Ints
    """Of both versions."""


class Processes:
    """One betting process for each of R rollouts; `add` takes ragged runs of gains."""

    def __init__(self, kind: Mixture, count: int) -> None:
        self._bets = np.array(kind.bets)
        self._logs = np.zeros((count, len(kind.bets)))
        self.peak = np.zeros(count)
        """Largest log of each that was ever reached (R,)."""

    def add(self, rows: Ints, gains: Floats, known: npt.NDArray[np.bool_]) -> None:
        """Take the gains (r, B) of some rows, in order; those that are not `known` are none."""
        grown = np.log1p(gains[:, :, None] * self._bets) * known[:, :, None]
        path = self._logs[rows, None, :] + np.cumsum(grown, axis=1)
        top = path.max(axis=2)
        mean = top + np.log(np.exp(path - top[:, :, None]).mean(axis=2))
        self.peak[rows] = np.maximum(self.peak[rows], mean.max(axis=1, initial=0.0))
        if path.shape[1]:
            self._logs[rows] = path[:, -1]

    def renew(self, rows: npt.NDArray[np.bool_]) -> None:
        """Begin anew in these rows."""
        self._logs[rows], self.peak[rows] = 0.0, 0.0


def simulate(plan: RolloutPlan, world: World, runs: int, seed: int) -> Ended:
    """So many rollouts of the plan in that world, each judged every second until its verdict."""
    parts = [
        _batch(plan, world, min(BATCH, runs - begun), np.random.default_rng((seed, begun)))
        for begun in range(0, runs, BATCH)
    ]
    return Ended(*(np.concatenate([getattr(part, name) for part in parts]) for name in Ended.__dataclass_fields__))


def _batch(plan: RolloutPlan, world: World, runs: int, rng: np.random.Generator) -> Ended:
    needed, last = -math.log(plan.risk), len(plan.weights) - 2
    promotion = Processes(for_promotion(plan.promotion_margin), runs)
    harm = Processes(against_harm(plan.harm_margin), runs)
    steps = [Processes(for_promotion(plan.step_margin(step)), runs) for step in range(last + 1)]
    step, seen_in_step = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
    ended = Ended(np.zeros(runs, bool), np.zeros(runs, bool), np.zeros(runs, np.int64), np.zeros(runs, np.int64))
    for second in range(world.seconds):
        going = ~(ended.promoted | ended.rolled_back)
        for number in np.unique(step[going]):
            rows = np.flatnonzero(going & (step == number))
            count = rng.binomial(world.per_second, plan.weights[number] / 100, rows.size)
            found, known = _differences(rng, count, world, float(second))
            promotion.add(rows, plan.promotion_margin - found, known)
            harm.add(rows, found - plan.harm_margin, known)
            if number < last:
                steps[number].add(rows, plan.step_margin(number) - found, known)
            ended.candidate[rows] += count
            seen_in_step[rows] += count
        ended.requests[going] += world.per_second
        ended.rolled_back[:] |= going & (harm.peak >= needed)
        ended.promoted[:] |= going & ~ended.rolled_back & (promotion.peak >= needed)
        for number in range(last):
            on = (step == number) & (steps[number].peak >= needed) & (seen_in_step >= plan.min_outcomes)
            step[on], seen_in_step[on] = number + 1, 0
    return ended


def _differences(
    rng: np.random.Generator, count: Ints, world: World, second: float
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """D of each block of one cell (r, B), and which blocks there are; `count` are the candidate's requests (r,)."""
    others = world.per_second - count
    blocks = np.minimum(count, others)
    place = np.arange(blocks.max(initial=0))
    known = place < blocks[:, None]
    means = []
    for size, error in ((count, world.candidate(second)), (others, world.champion(second))):
        least = np.maximum(blocks, 1)[:, None]
        part = (place + 1) * size[:, None] // least - place * size[:, None] // least
        part = np.where(known, part, 1)
        means.append(rng.binomial(part, error) / part)
    return np.where(known, means[0] - means[1], 0.0), known
