"""How far a figure of a sample may be from that of all rows: a bootstrap that also counts what it did not see.

The bootstrap of Efron & Tibshirani (An Introduction to the Bootstrap, 1993, eq. 13.5; paired by resampling rows with
both answers, section 15.2) trusts the sample wholly. Where two versions disagree on a handful of rows that is too
much: of 60 rows without a loss it says that none can be lost, and a candidate that is exactly as much worse as is
allowed passes in 10 to 60 % of cases instead of 5 (`make simulate ONLY=gates`). So two things are changed, by
Learned-Miller & Thomas 2019, "A new confidence interval for the mean of a bounded random variable":

* rows get Dirichlet(1, ..., 1) weights (the Bayesian bootstrap, Rubin 1981), and
* one row more than was seen, as bad as a row can be, gets its weight, too, when the lower bound is taken, and one as
  good as can be for the upper bound. For metrics that average over classes it is one row of each class.

For a mean of bounded values that is theirs, and its coverage has held in every case that they and we tried, at any
number of rows. It says the rule of three: of n rows without a loss at most 3/n are lost. For macro averages it is
conservative. A class that the sample does not hold is not judged.

Rows of one entity may be right and wrong together. Where there are enough entities, they are what is weighted, and not
their rows (the cluster bootstrap; Cameron & Miller 2015, section VI.C), and what was not seen counts for as many rows
as one of them is worth (Kish's design effect of the losses: 1 where rows are independent). That is shown by simulation
alone. Of few entities nothing could be said, and rows are taken to be independent.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidemill.core.errors import InvalidInput
from tidemill.evaluation.metrics import Floats, Sample, figure_of
from tidemill.spec.gates import GateMetric

__all__ = ["CONFIDENCE", "LEAST_UNITS", "Bounds", "difference_bounds", "figure_bounds", "mean_bounds", "units_of"]

CONFIDENCE = 0.95
"""Of each bound by itself."""
LEAST_UNITS = 20.0
"""Entities of equal weight (Kish) from which they are weighted and not their rows."""
RESAMPLES = 10_000
_TAIL = 20
"""Resamples that lie beyond a bound, at least."""
_AT_ONCE = 2_000_000
"""Weights that are drawn at once: 16 MB."""

Codes = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure and its one-sided bounds: with probability `confidence` it is not below `lower`; so for `upper`."""

    value: float
    lower: float
    upper: float
    rows: int
    units: int
    """Entities that were weighted, or as many as there are rows."""
    confidence: float


def units_of(entities: Sequence[str]) -> Codes | None:
    """The entity of each row, 0, 1, ...; None where there are too few of them to be weighted instead of rows."""
    counts = Counter(entities)
    if not counts or len(entities) ** 2 / sum(count**2 for count in counts.values()) < LEAST_UNITS:
        return None
    places = {entity: place for place, entity in enumerate(counts)}
    return np.array([places[entity] for entity in entities], dtype=np.intp)


def difference_bounds(
    sample: Sample, metric: GateMetric, units: Codes | None = None, *, confidence: float = CONFIDENCE, seed: int = 0
) -> Bounds:
    """How much better the first version is than the second, on the same rows; raises `InvalidInput` for no rows.

    Args:
        sample: of two versions.
        metric: higher is better, but for `error`.
        units: from `units_of`.
        confidence: of each bound by itself.
        seed: of the weights.
    """
    sign = -1.0 if metric == "error" else 1.0

    def statistic(sums: Floats) -> Floats:
        first, second = (figure_of(metric, part) for part in np.split(sums, 2, axis=-1))
        return sign * (first - second)

    worst, best = (_extreme(sample, metric, wins) for wins in ((False, True), (True, False)))
    losses = sample.terms[0, :, 1] - sample.terms[1, :, 1]
    return _bounds(_flat(sample.terms), losses, statistic, (worst, best), units, confidence, seed)


def figure_bounds(
    sample: Sample, metric: GateMetric, units: Codes | None = None, *, confidence: float = CONFIDENCE, seed: int = 0
) -> Bounds:
    """A metric of the first version; arguments and errors as for `difference_bounds`.

    `lower` is what it is at the worst: of the error it is the least that it may be.
    """
    first = Sample(sample.names, sample.terms[:1])
    is_low_bad = metric != "error"
    low, high = (_extreme(first, metric, (wins,)) for wins in (not is_low_bad, is_low_bad))
    terms = _flat(first.terms)
    return _bounds(terms, terms[:, 1], lambda sums: figure_of(metric, sums), (low, high), units, confidence, seed)


def mean_bounds(
    values: npt.ArrayLike,
    among: tuple[float, float],
    units: Codes | None = None,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Bounds:
    """The mean of values (n,) that lie in `among`; errors as for `difference_bounds`."""
    terms = np.column_stack([np.ones(np.size(values)), np.asarray(values, dtype=np.float64)])
    worst, best = (np.array([[1.0, value]]) for value in among)
    return _bounds(terms, terms[:, 1], lambda sums: sums[..., 1] / sums[..., 0], (worst, best), units, confidence, seed)


def _bounds(
    terms: Floats,
    losses: Floats,
    statistic: Callable[[Floats], Floats],
    extremes: tuple[Floats, Floats],
    units: Codes | None,
    confidence: float,
    seed: int,
) -> Bounds:
    """Bounds of a function of weighted sums of terms (rows, K), with a row more for the lower and the upper one.

    `losses` (rows,) say how much rows of a unit are alike.
    """
    if not len(terms) or not np.isfinite(terms).all():
        raise InvalidInput("bounds need at least one row, and finite values")
    weighed = terms if units is None else _by_unit(terms, units)
    patterns, counts = np.unique(weighed, axis=0, return_counts=True)
    worth = 1.0 if units is None else _design_effect(losses, units)
    risk = 1 - confidence
    resamples = max(RESAMPLES, round(_TAIL / risk))
    found = []
    for extreme, tail in zip(extremes, (risk, confidence), strict=True):
        shapes = np.concatenate([counts, np.ones(len(extreme))])
        drawn = _weighted(np.concatenate([patterns, worth * extreme]), shapes, resamples, seed)
        found.append(float(np.quantile(statistic(drawn), tail)))
    return Bounds(
        value=float(statistic(terms.sum(axis=0))),
        lower=found[0],
        upper=found[1],
        rows=len(terms),
        units=len(weighed),
        confidence=confidence,
    )


def _weighted(patterns: Floats, shapes: Floats, resamples: int, seed: int) -> Floats:
    """Sums of the patterns, each weighted by as many exponentials as there are rows of it (resamples, K).

    A Dirichlet's weights are gammas over their sum, which no figure here depends on.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // len(shapes))
    parts = [
        rng.standard_gamma(shapes, size=(min(step, resamples - start), len(shapes))) @ patterns
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def _by_unit(terms: Floats, units: Codes) -> Floats:
    """Sums of each unit's rows (units, K)."""
    sums = np.zeros((units.max() + 1, terms.shape[1]))
    np.add.at(sums, units, terms)
    return sums


def _design_effect(losses: Floats, units: Codes) -> float:
    """Variance of the mean loss by units over that by rows, at least 1 and at most the mean size of a unit (Kish)."""
    centred = losses - losses.mean()
    by_row = float(centred @ centred)
    totals = np.bincount(units, centred)
    return min(max(1.0, float(totals @ totals) / by_row), len(losses) / len(totals)) if by_row > 0 else 1.0


def _flat(terms: Floats) -> Floats:
    """The terms of all versions side by side (rows, versions x K)."""
    return np.concatenate(list(terms), axis=-1)


def _extreme(sample: Sample, metric: GateMetric, wins: Sequence[bool]) -> Floats:
    """Rows that were not seen: answered right by the versions that win, and wrongly by the others.

    For `error` one row; for recall and F1 one of each class that was true; for precision one of each class that was
    answered or true, which those who do not win answer where it is not true.
    """
    classes = len(sample.names)
    if metric == "error":
        return np.concatenate([[[1.0, float(not win), *[0.0] * 3 * classes]] for win in wins], axis=-1)
    truths, answers, _ = np.split(sample.terms[..., 2:].sum(axis=1), 3, axis=-1)
    by_answer = metric == "precision"
    seen = (truths + answers).sum(axis=0) > 0 if by_answer else truths[0] > 0
    each = np.eye(classes)[seen]
    none, one = np.zeros_like(each), np.ones((len(each), 1))
    parts = []
    for win in wins:
        hits = each if win else none
        parts += [one, one * (not win), none if by_answer else each, each if by_answer else hits, hits]
    return np.concatenate(parts, axis=-1)
