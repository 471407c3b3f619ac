"""Label sampling: whether the interval of an error holds the truth when labels are few and chosen by confidence.

The estimator is the product's own. Answers are logged with probability 0.3; of these a control share is labelled
whatever they are, and many more where the model was not sure, which is where it errs. Each run looks at the interval
after every hundred answers, and misses if it ever leaves the truth out. The naive figures beside it take the labelled
answers as if they were all: their mean, and the usual interval around it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from benchmarks.report import Figure, Report, environment

from tidemill.stats.sampling import SampledMean

__all__ = ["run"]

SEED = 20_251_126
RISK = 0.05
SAMPLE, CONTROL, UNSURE = 0.3, 0.1, 0.6
"""Probabilities: of being logged; of being picked by the control share; of being picked for a low confidence."""
LOOK = 100

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Size:
    """How much is simulated: runs of each world, and the answers of each run."""

    runs: int
    answers: int


SIZES = {"small": Size(runs=40, answers=30_000), "full": Size(runs=200, answers=60_000)}


@dataclass(frozen=True)
class Seen:
    """What one run saw."""

    missed: bool
    naive_missed: bool
    width: float
    error: float
    naive_error: float


def run(size: str) -> Report:
    """Simulate each world."""
    chosen = SIZES[size]
    figures = []
    for name, error_at, is_promised in (
        ("error 0.10", lambda part: np.full_like(part, 0.10), True),
        ("error 0.02", lambda part: np.full_like(part, 0.02), True),
        ("error rising from 0.05 to 0.15", lambda part: 0.05 + 0.1 * part, False),
    ):
        figures += _figures(
            name, [_simulated(number, chosen.answers, error_at) for number in range(chosen.runs)], is_promised
        )
    ran = {"seed": SEED, "runs": chosen.runs, "answers": chosen.answers, "look every": LOOK, "risk": RISK}
    chances = {"logged": SAMPLE, "control": CONTROL, "low confidence": UNSURE}
    return Report("simulate", "label-sampling", size, ran | chances, figures, environment(("numpy",)))


def _figures(name: str, seen: list[Seen], is_promised: bool) -> list[Figure]:
    runs = len(seen)
    limit = RISK + 2 * math.sqrt(RISK * (1 - RISK) / runs)
    misses = sum(one.missed for one in seen) / runs
    naive = sum(one.naive_missed for one in seen) / runs
    goal = f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})" if is_promised else ""
    return [
        Figure(
            f"{name}: the interval ever missed",
            misses,
            "of runs",
            goal,
            misses <= limit if is_promised else None,
            "" if is_promised else "beyond the promise: the truth moves, and its average so far is asked for",
        ),
        Figure(f"{name}: the naive interval ever missed", naive, "of runs", note="labelled answers, 95 % at each look"),
        Figure(f"{name}: width at the end", float(np.median([one.width for one in seen])), "", note="median"),
        Figure(f"{name}: bias of the estimate", float(np.mean([one.error for one in seen])), ""),
        Figure(f"{name}: bias of the naive mean", float(np.mean([one.naive_error for one in seen])), ""),
    ]


def _simulated(number: int, answers: int, error_at: Callable[[Floats], Floats]) -> Seen:
    rng = np.random.default_rng((SEED, number))
    mean_error = error_at(np.arange(answers) / answers)
    sure = rng.random(answers)
    # Twice the mean error falls to none as confidence rises.
    errs = (rng.random(answers) < 2 * mean_error * (1 - sure)).astype(np.float64)
    picked = 1 - (1 - CONTROL) * (1 - np.where(sure < 0.3, UNSURE, 0.0))
    probability = SAMPLE * picked
    labelled = rng.random(answers) < probability
    losses = np.where(labelled, errs, np.nan)
    estimate = SampledMean(SAMPLE * CONTROL, risk=RISK)
    missed, naive_missed = False, False
    truth = np.cumsum(mean_error) / np.arange(1, answers + 1)
    seen, bad = np.cumsum(labelled), np.cumsum(np.where(labelled, errs, 0.0))
    for start in range(0, answers, LOOK):
        estimate.update(losses[start : start + LOOK], probability[start : start + LOOK])
        at = min(start + LOOK, answers) - 1
        missed |= not estimate.holds(truth[at])
        if seen[at] >= 30:
            naive = bad[at] / seen[at]
            naive_missed |= abs(naive - truth[at]) > 1.96 * math.sqrt(max(naive * (1 - naive), 1e-9) / seen[at])
    last = estimate.estimate()
    bias, naive_bias = (last.mean or 0.0) - truth[-1], bad[-1] / seen[-1] - truth[-1]
    return Seen(bool(missed), bool(naive_missed), last.interval.width, float(bias), float(naive_bias))
