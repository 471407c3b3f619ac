"""Slices and the label-free estimate: what is found of what was planted, what is named for nothing, how far off one is.

*Slices.* The product's own search over six numbers, a region and a station. In worlds where nothing is planted every
find is false: independent outcomes; customers that each have an error of their own, with features that do not change
for a customer; errors that last over time, with a feature that does, too. Where a slice is planted (station=B and
f3 < -0.4: error 0.20 in place of 0.08), it is found if a slice of just these two conditions is shown; a find is false
if it is about neither. "Control" takes each outcome for a witness of its own, which is what searches commonly do.

*Estimate.* Windows of answers whose confidences say how often they are wrong. The newest window is estimated with the
labels of the others: as before; with inputs that are more difficult; after what is true of an input changed, some
windows ago and just now. The last is what no confidence can tell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from benchmarks.report import Figure, Report, environment

from tidemill.metrics.conditions import Feature, coded
from tidemill.metrics.estimate import REACH, WINDOWS, Scored, backtest, calibrated
from tidemill.metrics.slices import Losses, Search, find
from tidemill.outcomes.slices import BLOCKS

__all__ = ["SIZES", "Size", "run"]

SEED = 20_251_126
RISK = 0.05
ERROR, PLANTED = 0.08, 0.20
LENGTH = 1000
"""Of a window of the estimate, in its own milliseconds; labels come half a window later."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """How much is simulated: runs of each world, outcomes of each; runs of the estimate, answers in a window of it."""

    runs: int
    outcomes: int
    guesses: int
    answers: int


SIZES = {
    "small": Size(runs=25, outcomes=8000, guesses=25, answers=500),
    "full": Size(runs=200, outcomes=8000, guesses=100, answers=2000),
}
"""Full takes some seven minutes of one core: the searches three, the estimate four."""


@dataclass(frozen=True)
class World:
    """What makes outcomes alike: customers, each with an error of its own, or time."""

    name: str
    entities: int = 0
    lasting: float = 0.0
    """Correlation of neighbours in time."""
    spread: float = 0.0
    """Standard deviation of the log of the error, between customers or over time."""
    is_promised: bool = True
    ignores_clusters: bool = False


WORLDS = (
    World("independent outcomes"),
    World("100 customers, each its own error", entities=100, spread=0.7),
    World("400 customers, each its own error", entities=400, spread=1.0),
    World("control: the same, clusters ignored", entities=400, spread=1.0, is_promised=False, ignores_clusters=True),
    World("errors that last some 10 outcomes", lasting=0.9, spread=0.7),
    World("errors that last as long as half a cluster", lasting=0.99, spread=0.7, is_promised=False),
)


def run(size: str) -> Report:
    """Simulate each world."""
    chosen = SIZES[size]
    figures: list[Figure] = []
    for world in WORLDS:
        nothing = [_searched(world, chosen.outcomes, number, planted=False) for number in range(chosen.runs)]
        figures.append(_false(f"{world.name}: nothing planted, something shown", nothing, world))
        if not world.ignores_clusters:
            planted = [_searched(world, chosen.outcomes, number, planted=True) for number in range(chosen.runs)]
            figures += _planted(world, planted)
    figures += _estimates(chosen)
    ran = {"seed": SEED, "runs": chosen.runs, "outcomes": chosen.outcomes}
    ran |= {"runs of the estimate": chosen.guesses, "answers a window": chosen.answers}
    return Report("simulate", "slices", size, ran | {"risk": RISK}, figures, environment())


@dataclass(frozen=True)
class Seen:
    """What one run showed."""

    false: bool
    found: bool
    """The planted slice, by its two features."""
    held: bool | None
    """Whether the interval of the first slice has its true error; None without one."""


def bound(runs: int) -> float:
    """The risk and two standard errors of a share measured in so many runs."""
    return RISK + 2 * math.sqrt(RISK * (1 - RISK) / runs)


def _false(name: str, seen: Sequence[Seen], world: World) -> Figure:
    share, limit = sum(one.false for one in seen) / len(seen), bound(len(seen))
    goal = f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})" if world.is_promised else ""
    note = (
        ""
        if world.is_promised or world.ignores_clusters
        else "beyond the promise: neighbours are alike across clusters"
    )
    return Figure(name, share, "of runs", goal, share <= limit if world.is_promised else None, note)


def _planted(world: World, seen: Sequence[Seen]) -> list[Figure]:
    held = [one.held for one in seen if one.held is not None]
    return [
        _false(f"{world.name}: planted, something else shown", seen, world),
        Figure(f"{world.name}: planted and found", sum(one.found for one in seen) / len(seen), "of runs"),
        Figure(f"{world.name}: its interval has its error", sum(held) / max(1, len(held)), "of finds", note="95 %"),
    ]


def _searched(world: World, count: int, number: int, *, planted: bool) -> Seen:
    rng = np.random.default_rng((SEED, number, planted))
    owner = rng.choice(world.entities, count, p=rng.dirichlet(np.full(world.entities, 2.0))) if world.entities else None
    features = [Feature(f"f{place}", _values(world, rng, count, owner if place < 3 else None)) for place in range(6)]
    regions = rng.integers(0, 8, count) if owner is None else rng.integers(0, 8, world.entities)[owner]
    stations = rng.integers(0, 5, count)
    features += [Feature("region", regions, "abcdefgh"), Feature("station", stations, "ABCDE")]
    own = _values(world, rng, count, owner) if world.spread else np.zeros(count)
    is_planted = (stations == 1) & (features[3].values < -0.4) & planted
    risk = np.minimum(np.where(is_planted, PLANTED, ERROR) * np.exp(world.spread * own), 0.95)
    losses = _losses(world, rng, (rng.random(count) < risk).astype(np.float64), owner)
    with_codes = [one for feature in features if (one := coded(feature, losses.searched)) is not None]
    search = find(with_codes, losses)
    return _seen(search, features, risk, losses)


def _values(world: World, rng: np.random.Generator, count: int, owner: Ints | None) -> Floats:
    """A standard normal feature: of the owner, lasting over time, or of the outcome alone."""
    if owner is not None:
        return rng.normal(size=world.entities)[owner]
    noise = rng.normal(size=count)
    if world.lasting:
        fresh = math.sqrt(1 - world.lasting**2)
        for place in range(1, count):
            noise[place] = world.lasting * noise[place - 1] + fresh * noise[place]
    return noise


def _losses(world: World, rng: np.random.Generator, wrong: Floats, owner: Ints | None) -> Losses:
    count, weights = len(wrong), np.ones(len(wrong))
    if world.ignores_clusters:
        return Losses(wrong, weights, np.arange(count), count, rng.random(count) < 0.5)
    if owner is not None:
        return Losses(wrong, weights, owner, world.entities, (rng.random(world.entities) < 0.5)[owner])
    blocks = np.arange(count) * BLOCKS // count
    return Losses(wrong, weights, blocks, BLOCKS, blocks % 2 == 0)


def _seen(search: Search, features: Sequence[Feature], risk: Floats, losses: Losses) -> Seen:
    planted = {"f3", "station"}
    names = [{one.feature for one in finding.conditions} for finding in search.found]
    held = None
    if search.found:
        first = search.found[0]
        by_name = {feature.name: feature for feature in features}
        inside = ~losses.searched
        for condition in first.conditions:
            one = coded(by_name[condition.feature], losses.searched)
            inside = inside & one.holds(one.conditions.index(condition)) if one else inside
        low, high = first.interval
        held = bool(low <= risk[inside].mean() <= high)
    return Seen(any(not name & planted for name in names), planted in names, held)


@dataclass(frozen=True)
class Guess:
    """One run of the estimate: how far off it is, and its margin; None of the first where it was refused."""

    off: float | None
    off_unchanged: float
    within: float


def _estimates(size: Size) -> list[Figure]:
    figures = []
    for name, make, is_promised in (
        ("as before", lambda windows: (1.0, windows < 0), True),
        ("inputs more difficult in the newest window", lambda windows: (0.4, windows < 0), None),
        ("what is true changed 6 windows ago", lambda windows: (1.0, windows >= REACH + 10 - 6), False),
        ("what is true changed just now", lambda windows: (1.0, windows >= REACH + 10), None),
    ):
        guesses = [_guess(size.answers, number, make) for number in range(size.guesses)]
        figures += _of_guesses(f"estimate, {name}", guesses, is_promised)
    return figures


def _of_guesses(name: str, guesses: Sequence[Guess], is_promised: bool | None) -> list[Figure]:
    runs = len(guesses)
    made = [one for one in guesses if one.off is not None]
    refused = Figure(f"{name}: refused", 1 - len(made) / runs, "of runs")
    if is_promised is False:
        return [replace(refused, goal=">= 0.95", holds=1 - len(made) / runs >= 0.95)]
    within = sum(abs(one.off or 0.0) <= one.within for one in made) / max(1, len(made))
    expected = WINDOWS / (WINDOWS + 1)
    limit = expected - 2 * math.sqrt(expected * (1 - expected) / runs)
    goal = f">= {expected:g} (- 2 s.e. = {limit:.3f})" if is_promised else ""
    mean = float(np.mean([abs(one.off or 0.0) for one in made])) if made else None
    unchanged = float(np.mean([abs(one.off_unchanged) for one in made])) if made else None
    return [
        refused,
        Figure(f"{name}: truth within its margin", within, "of runs", goal, within >= limit if is_promised else None),
        Figure(f"{name}: off by", mean, "", note=f"mean; the margin is {np.mean([one.within for one in guesses]):.3f}"),
        Figure(f"{name}: 'as so far' is off by", unchanged, "", note="mean"),
    ]


def _guess(answers: int, number: int, of: Callable[[Ints], tuple[float, npt.NDArray[np.bool_]]]) -> Guess:
    """30 past windows and the newest, whose inputs are as `of` says: (share of confidence left, what has changed)."""
    rng = np.random.default_rng((SEED, number))
    windows = np.repeat(np.arange(REACH + 11), answers)
    left, changed = of(windows)
    is_new = windows == REACH + 10
    sure = rng.random(len(windows)) * np.where(is_new, left, 1.0)
    risk = np.where(changed, 0.5, 0.3) * (1 - sure) + np.where(changed, 0.15, 0.0)
    wrong = (rng.random(len(windows)) < risk).astype(np.float64)
    times = np.arange(len(windows)) * LENGTH // answers + 1
    past = Scored(
        times, rng.integers(0, 2, len(windows)), np.sqrt(sure), wrong, np.ones(len(windows)), times + LENGTH // 2
    )
    end = LENGTH * (REACH + 10)
    known, new = past.where(~is_new), past.where(is_new)
    held = backtest(known, end=end, length=LENGTH, mature=end)
    calibration = calibrated(known, known_by=end + LENGTH, since=end - REACH * LENGTH)
    truth = float(new.wrong.mean())
    if calibration is None:
        return Guess(None, 0.0, held.largest)
    off = None if held.refusal else float(calibration.expected(new).mean()) - truth
    return Guess(off, calibration.mean - truth, held.largest)
