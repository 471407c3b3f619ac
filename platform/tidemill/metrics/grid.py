"""Scores on a fixed grid, so that ranks can be told from counts: AUC and average precision, and how exact they are.

The grid has 256 bins of 1/8 in log-odds, from -16 to 16 (scores of 1e-7 to 1 - 1e-7), because the scores of
networks crowd near 0 and 1. Scores of one bin count as equal. What that can change is bounded by the counts
themselves and told beside each figure.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "Binned", "auc", "average_precision", "bin_of"]

BINS = 256
_PER_LOG_ODD = 8
_HALF = BINS // 2

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Binned:
    """A figure from binned scores: the exact one lies in [value - error, value + error]."""

    value: float
    error: float


def bin_of(score: float) -> int:
    """The bin of a score in [0, 1]."""
    if score <= 0.0:
        return 0
    if score >= 1.0:
        return BINS - 1
    place = math.floor(_PER_LOG_ODD * math.log(score / (1.0 - score)))
    return min(max(place + _HALF, 0), BINS - 1)


def auc(positives: Counts, negatives: Counts) -> Binned | None:
    """Area under the ROC curve: P(a positive scores above a negative) + half P(equal); None without both.

    Pairs within one bin count half, so the exact figure is at most half their share away.

    Args:
        positives: outcomes of the class by bin (BINS,).
        negatives: the others.
    """
    pairs = float(positives.sum()) * float(negatives.sum())
    if not pairs:
        return None
    ups, downs = positives.astype(np.float64), negatives.astype(np.float64)
    below = np.cumsum(downs) - downs
    tied = float(ups @ downs)
    return Binned((float(ups @ below) + tied / 2) / pairs, tied / 2 / pairs)


def average_precision(hits: Counts, misses: Counts, truths: int) -> Binned | None:
    """Area under precision over recall, not interpolated; None where nothing was to be found.

    That is the sum over hits of the precision at their rank, over all that was to be found, found or not.

    Within a bin the hits may stand first or last: the exact figure lies between the two, and the value is in the
    middle.

    Args:
        hits: right detections by bin of their score (BINS,).
        misses: wrong ones.
        truths: how many there were to find.
    """
    if not truths:
        return None
    worst = best = 0.0
    right = wrong = 0
    for place in np.flatnonzero(hits + misses)[::-1]:
        ranks = right + np.arange(1, int(hits[place]) + 1)
        best += float((ranks / (ranks + wrong)).sum())
        right, wrong = right + int(hits[place]), wrong + int(misses[place])
        worst += float((ranks / (ranks + wrong)).sum())
    return Binned((best + worst) / 2 / truths, (best - worst) / 2 / truths)
