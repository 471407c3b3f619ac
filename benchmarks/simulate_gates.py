"""Gates at their limit: how often a candidate passes that is exactly as much worse as the margin allows.

*Bounds.* Worlds of classes in which candidate and champion are right with known probabilities, and agree more or less;
the margin is set to the true difference of the metric, so that every pass is a false one: at most 5 % are promised,
beside what the common percentile bootstrap passes. The true difference is that of 400,000 rows. A world with rare
classes has them in nearly every sample: a class that is not in the sample cannot be judged.

*Entities.* Rows of one entity that are right and wrong together, with entities weighted and with rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.report import Figure, Report, environment

from tidemill.evaluation.bootstrap import difference_bounds, units_of
from tidemill.evaluation.metrics import METRICS, Sample, figure_of
from tidemill.evaluation.scoring import Evaluation, Rows, Scores
from tidemill.spec.gates import GateMetric

__all__ = ["SIZES", "WORLDS", "World", "at_the_margin", "run"]

SEED = 20_261_126
RISK = 0.05
TRUE_ROWS = 400_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """Samples of each world and number of rows."""

    runs: int
    rows: tuple[int, ...]


SIZES = {"small": Size(60, (200,)), "full": Size(1000, (60, 200, 500, 2000))}


@dataclass(frozen=True)
class World:
    """Classes with their shares, and how often each version is right of each."""

    name: str
    shares: tuple[float, ...]
    candidate: tuple[float, ...]
    champion: tuple[float, ...]
    together: float
    """Probability that both versions meet the same luck on a row; 1: the worse one is wrong wherever the other is."""

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Truth, the candidate's answer and the champion's, as places of classes."""
        classes = len(self.shares)
        truth = rng.choice(classes, size=rows, p=self.shares)
        wrong = (truth + rng.integers(1, classes, rows)) % classes
        luck = rng.random(rows)
        own = np.where(rng.random(rows) < self.together, luck, rng.random(rows))
        answers = [
            np.where(chance < np.array(right)[truth], truth, wrong)
            for chance, right in ((luck, self.candidate), (own, self.champion))
        ]
        return truth, answers[0], answers[1]


WORLDS = (
    World("two classes, close", (0.5, 0.5), (0.89, 0.89), (0.9, 0.9), 1.0),
    World("two classes, apart", (0.5, 0.5), (0.88, 0.88), (0.9, 0.9), 0.5),
    World("a perfect champion", (0.5, 0.5), (0.98, 1.0), (1.0, 1.0), 1.0),
    World("one class of 5 %", (0.95, 0.05), (0.99, 0.7), (0.99, 0.8), 0.8),
    World("five classes", (0.5, 0.3, 0.1, 0.05, 0.05), (0.95, 0.9, 0.85, 0.7, 0.7), (0.95, 0.9, 0.9, 0.8, 0.75), 0.9),
    World("a class forgotten", (0.5, 0.3, 0.1, 0.1), (0.95, 0.9, 0.9, 0.0), (0.95, 0.9, 0.9, 0.8), 1.0),
    World("ten classes", (0.1,) * 10, (0.8,) * 10, (0.82,) * 10, 0.9),
)


def run(size: str) -> Report:
    """Simulate all of it."""
    sizes = SIZES[size]
    figures: list[Figure] = []
    for world in WORLDS:
        for metric in METRICS:
            figures += _bounds(world, metric, sizes)
    figures += _entities(sizes)
    ran = {"runs": sizes.runs, "rows": sizes.rows, "risk": RISK, "seed": SEED}
    return Report("simulate", "gates", size, ran, figures, environment())


def at_the_margin(world: World, metric: GateMetric, rows: int, runs: int) -> tuple[float, float]:
    """Shares of samples in which a candidate at the margin passes: by the gate's bound, and by the percentile one."""
    rng = np.random.default_rng(SEED)
    difference = _difference(_sample(world, *world.draw(TRUE_ROWS, rng)), metric)
    passed = common = 0
    for number in range(runs):
        sample = _sample(world, *world.draw(rows, rng))
        passed += difference_bounds(sample, metric, seed=number).lower >= difference
        common += _percentile(sample, metric, number) >= difference
    return passed / runs, common / runs


def _bounds(world: World, metric: GateMetric, sizes: Size) -> Iterator[Figure]:
    for rows in sizes.rows:
        passed, common = at_the_margin(world, metric, rows, sizes.runs)
        yield _figure(f"{world.name}, {metric}, {rows} rows", passed, sizes.runs, common)


def _figure(name: str, passed: float, runs: int, common: float) -> Figure:
    note = f"percentile bootstrap {100 * common:.1f} %"
    return Figure(f"{name}: passes at the margin", 100 * passed, "%", "≤ 5", passed <= _allowed(runs), note)


def _allowed(runs: int) -> float:
    """What 5 % come to in so many runs, with three standard errors of chance."""
    return RISK + 3 * float(np.sqrt(RISK * (1 - RISK) / runs))


def _entities(sizes: Size) -> Iterator[Figure]:
    """Forty entities of 25 rows: the candidate is worse for some of them, on most of their rows."""
    rng = np.random.default_rng(SEED)
    entities = [f"e{place}" for place in range(40) for _ in range(25)]
    units, chance, hit = units_of(entities), 0.15, 0.4
    by_entity = by_row = 0
    for number in range(sizes.runs):
        bad = np.repeat(rng.random(40) < chance, 25)
        lost = bad & (rng.random(len(bad)) < hit)
        zeros = np.zeros(len(bad), dtype=np.int64)
        sample = _sample(WORLDS[0], zeros, lost.astype(np.int64), zeros)
        by_entity += difference_bounds(sample, "error", units, seed=number).lower >= -chance * hit
        by_row += difference_bounds(sample, "error", seed=number).lower >= -chance * hit
    note = f"with rows for entities {100 * by_row / sizes.runs:.1f} %"
    passed = by_entity / sizes.runs
    yield Figure("40 entities: passes at the margin", 100 * passed, "%", "≤ 5", passed <= _allowed(sizes.runs), note)


def _sample(world: World, truth: Ints, candidate: Ints, champion: Ints) -> Sample:
    names = tuple(f"c{place}" for place in range(len(world.shares)))
    words = np.array(names)

    def scores(answers: Ints) -> Scores:
        losses = tuple((answers != truth).astype(float).tolist())
        return Scores(version="", losses=losses, classes=tuple(words[answers].tolist()))

    evaluation = Evaluation(candidate=scores(candidate), snapshot="", classes=names)
    rows = Rows(truths=tuple(words[truth].tolist()))
    return Sample.of(evaluation, rows, [evaluation.candidate, scores(champion)])


def _difference(sample: Sample, metric: GateMetric) -> float:
    candidate, champion = sample.figure(metric)
    return float(champion - candidate if metric == "error" else candidate - champion)


def _percentile(sample: Sample, metric: GateMetric, seed: int) -> float:
    """The lower bound of the percentile bootstrap, as it is commonly taken."""
    terms = np.concatenate(list(sample.terms), axis=-1)
    patterns, counts = np.unique(terms, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=2000)
    first, second = (figure_of(metric, part) for part in np.split(drawn @ patterns, 2, axis=-1))
    return float(np.quantile(second - first if metric == "error" else first - second, RISK))
