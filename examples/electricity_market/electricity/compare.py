"""All contestants on the same rows: accuracy with an interval, runs, and seconds of training.

Answers half an hour apart are right and wrong together, so intervals come from a block bootstrap (Künsch, The
jackknife and the bootstrap for general stationary observations, 1989) with a week of rows as the block: weeks are
drawn with replacement, the same ones for both sides of a difference. Seeds are averaged: intervals are not of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import msgspec
import numpy as np
from numpy.typing import NDArray

from electricity.contest import Contestant, NoChange, Played, play
from electricity.forest import Forest
from electricity.loop import Loop
from electricity.retrained import Retrained
from electricity.rows import DELAY, Market

__all__ = ["Compared", "Interval", "Standing", "compare", "interval"]

WEEK = 7 * DELAY
RESAMPLES = 10_000
WITHIN, SHARE = 0.01, 1 / 3
"""The goal: so much below daily retraining at most, with so large a share of its runs at most."""
LOOP, DAILY = "Tidemill's loop", "daily retraining"


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one contestant stands; figures are means over its seeds."""

    name: str
    accuracy: Interval
    seeds: dict[int, float]
    """Accuracy by seed."""
    runs: float
    refused: float = 0.0
    """Runs whose version the gate refused."""
    seconds: float
    """Processor time of training."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The table, and what it says of the goal."""

    since: int
    rows: int
    standings: tuple[Standing, ...]
    differences: dict[str, Interval]
    """Accuracy of the loop less that of each other contestant."""
    goals: dict[str, bool]


@dataclass(frozen=True)
class _Maker:
    make: Callable[[Market, int], Contestant]
    seeds: int


def compare(market: Market, *, since: int, seeds: int, say: Callable[[str], None]) -> Compared:
    """Let all play the rows from `since` on.

    Args:
        market: the rows.
        since: the first scored row.
        seeds: how often those play that train a network; the others play once.
        say: told each standing as soon as it is known.
    """
    makers = {
        LOOP: _Maker(lambda market, seed: Loop(market, seed=seed), seeds),
        "never retraining": _Maker(lambda market, seed: Retrained(market, every=None, seed=seed), seeds),
        DAILY: _Maker(lambda market, seed: Retrained(market, every=DELAY, seed=seed), seeds),
        "no change": _Maker(lambda market, seed: NoChange(market), 1),
        "forest": _Maker(lambda market, seed: Forest(market, seed=seed, windows=False), 1),
        "forest, with the newest label": _Maker(lambda market, seed: Forest(market, seed=seed), 1),
    }
    right: dict[str, NDArray[np.float64]] = {}
    standings = {}
    for name, maker in makers.items():
        contestants = [maker.make(market, seed) for seed in range(maker.seeds)]
        played = [play(market, one, since=since) for one in contestants]
        right[name] = np.mean([one.right for one in played], axis=0)
        refused = mean(getattr(one, "refused", 0) for one in contestants)
        standings[name] = _standing(name, right[name], played, refused)
        say(in_words(standings[name]))
    differences = {name: interval(right[LOOP] - of) for name, of in right.items() if name != LOOP}
    return Compared(
        since=since,
        rows=len(market) - since,
        standings=tuple(standings.values()),
        differences=differences,
        goals=_goals(standings),
    )


def interval(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The mean of a value per row, in order, with its interval."""
    starts = np.arange(0, len(values), WEEK)
    sums, sizes = np.add.reduceat(values, starts), np.diff([*starts, len(values)])
    drawn = np.random.default_rng(seed).integers(len(starts), size=(RESAMPLES, len(starts)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
    return Interval(round(float(values.mean()), 4), round(float(low), 4), round(float(high), 4))


def in_words(standing: Standing) -> str:
    """One line of the table."""
    of = standing.accuracy
    return (
        f"{standing.name:30} {of.value:.4f} ({of.low:.4f} to {of.high:.4f})  {standing.runs:6.1f} runs, "
        f"{standing.refused:4.1f} refused  {standing.seconds:6.1f} s"
    )


def _standing(name: str, right: NDArray[np.float64], played: Sequence[Played], refused: float) -> Standing:
    return Standing(
        name=name,
        accuracy=interval(right),
        seeds={seed: round(one.accuracy, 4) for seed, one in enumerate(played)},
        runs=round(mean(one.runs for one in played), 1),
        refused=round(refused, 1),
        seconds=round(mean(one.seconds for one in played), 1),
    )


def _goals(standings: Mapping[str, Standing]) -> dict[str, bool]:
    loop, daily = standings[LOOP], standings[DAILY]
    forest = max(one.accuracy.value for name, one in standings.items() if name.startswith("forest"))
    return {
        f"within {WITHIN:g} of daily retraining": loop.accuracy.value >= daily.accuracy.value - WITHIN,
        "at most a third of its runs": loop.runs <= SHARE * daily.runs,
        "at or above the forest": loop.accuracy.value >= forest,
    }
