"""The bootstrap of a mean: how far it could be off, from the sample alone.

Percentile intervals of Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, eq. (13.5).
Paired by taking differences row by row first (ibid., section 15.2): what the rows share cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tidemill.core.errors import InvalidInput

__all__ = ["Bounds", "mean_bounds", "paired_difference"]

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """A mean and its one-sided bounds: with probability `confidence` the mean is not below `lower`; so for `upper`."""

    mean: float
    lower: float
    upper: float
    rows: int
    confidence: float


def mean_bounds(values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Bounds:
    """The mean of `values` (shape (n,)) and its one-sided percentile bounds.

    Resampling n rows of n is drawing how often each distinct value comes up, so the cost grows with the number of
    distinct values (three for differences of errors) and not with the rows. Raises `InvalidInput` for no values or
    values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise InvalidInput("a bootstrap needs at least one finite value")
    distinct, counts = np.unique(sample, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(sample.size, counts / sample.size, size=resamples)
    means = drawn @ distinct / sample.size
    lower, upper = np.quantile(means, [1 - confidence, confidence])
    return Bounds(
        mean=float(sample.mean()), lower=float(lower), upper=float(upper), rows=sample.size, confidence=confidence
    )


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Bounds:
    """Mean of first - second over the same rows in the same order, with its bounds. Raises `InvalidInput`."""
    if len(first) != len(second):
        raise InvalidInput(f"pairs need equally many rows on both sides, not {len(first)} and {len(second)}")
    return mean_bounds(np.asarray(first) - np.asarray(second), confidence=confidence, seed=seed)
