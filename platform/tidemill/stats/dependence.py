"""How dependent a reference's votes are: tau, by which the detectors' evidence is tempered.

For a bin edge with share F, tick t brings n_t votes of which h_t lie at or below it. The sum over a block of L ticks
of h_t - n_t F has variance L n F (1 - F) if votes are independent; how many times that it really has is the variance
inflation. tau is the largest over dyadic L and edges. It counts what is shared within a tick (copies: L = 1) and what
lasts from tick to tick.

Taken literally the largest of many noisy figures is far above 1 even on independent votes. So:

* blocks overlap (Meketon & Schmeiser 1984, "Overlapping batch means"): two thirds of the variance of the estimate;
* a length needs 16 blocks that do not overlap;
* whether there is dependence at all is asked of the inflation pooled over edges, which is less noisy. Its standard
  error under independence is sqrt(4/3 * L/T * r) for T ticks, where r = |C|^2 / tr(C)^2 (Frobenius) of the edges'
  covariance C says how few independent edges there are. Within 3 errors of 1 at every length tau is the largest
  pooled inflation less one error: what could hide there is below the factor 2 in g = 2 tau;
* where there is dependence, tau is the largest over edges and lengths as it stands, times the pooled growth over the
  last doubling: for correlations that can be summed the inflation at L is tau - const/L, so what is still missing at
  the longest block is what the last doubling brought. Rather too large than too small.

`grows`: that last doubling brought more than 40 %. A memory with no end in sight doubles the inflation; an AR(1)
brings less than that once a block holds about three of its correlation times.

A season is not memory: where hours differ of themselves each hour's excess is over its own share. That removes a part
of the rest too; for independent votes it is max(L, min(L G, cycle)) / T with G hours in a cycle (ticks), which the
estimate is divided by one minus of.

`make simulate ONLY=drift` shows what this gives on independent votes, AR(1) and copies.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TICKS_PER_TAU", "Dependence", "measure_dependence"]

TICKS_PER_TAU = 50
"""A reference must be at least this many tau long, in ticks."""
BLOCKS = 16
"""Blocks side by side that a length needs."""
ERRORS = 3.0
"""Standard errors above independence from which dependence is believed."""
GROWTH = 1.4
"""Growth over the last doubling from which no end is in sight."""


@dataclass(frozen=True)
class Dependence:
    """What was measured on one feature of a reference."""

    tau: float
    """Variance inflation of block means, at least 1."""
    ticks: int
    """Ticks with votes."""
    grows: bool
    """Whether it still grew at the longest block."""

    @property
    def long_enough(self) -> bool:
        """Whether the reference is at least 50 tau long."""
        return self.ticks >= TICKS_PER_TAU * self.tau


def measure_dependence(
    below: npt.NDArray[np.float64], votes: npt.NDArray[np.float64], hours: npt.NDArray[np.int64] | None = None
) -> Dependence:
    """Tau of one feature.

    Args:
        below: votes at or below each edge, by tick (T, E), in the order of time.
        votes: votes by tick (T,), each at least 1.
        hours: hour of the cycle of each tick (T,) where hours differ of themselves: the season is removed.
    """
    ticks = len(votes)
    hours = np.zeros(ticks, dtype=np.int64) if hours is None else hours
    share, groups, cycle = _usual(below, votes, hours)
    independent = (votes[:, None] * share * (1 - share)).mean(axis=0) if ticks else np.zeros(below.shape[1])
    inner = independent > 0
    if not inner.any() or ticks < 2 * BLOCKS:
        return Dependence(tau=1.0, ticks=ticks, grows=False)
    excess, independent = (below - votes[:, None] * share)[:, inner], independent[inner]
    lengths = [1 << power for power in range(ticks.bit_length()) if ticks >= BLOCKS << power]
    lost = [max(length, min(length * groups, cycle)) / ticks for length in lengths]
    inflation = np.array([_inflation(excess, independent, length) for length in lengths])
    inflation /= 1 - np.array(lost)[:, None]
    pooled = inflation @ independent / independent.sum()
    covariance = excess.T @ excess
    if not covariance.any():  # every tick has exactly its share: no votes could spread less
        return Dependence(tau=1.0, ticks=ticks, grows=False)
    few = float(np.square(covariance).sum() / np.trace(covariance) ** 2)
    noise = np.sqrt(4 / 3 * few * np.array(lengths) / ticks)
    if (pooled <= 1 + ERRORS * noise).all():
        return Dependence(tau=max(1.0, float((pooled - noise).max())), ticks=ticks, grows=False)
    growth = float(pooled[-1] / max(pooled[-2], 1.0))
    tau = float(inflation.max()) * min(max(growth, 1.0), GROWTH)
    return Dependence(tau=max(1.0, tau), ticks=ticks, grows=growth > GROWTH)


def _usual(
    below: npt.NDArray[np.float64], votes: npt.NDArray[np.float64], hours: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], int, float]:
    """Share at each tick's hour (T, E), how many hours there are, and ticks a cycle."""
    names, at = np.unique(hours, return_inverse=True)
    totals = np.stack([np.bincount(at, weights=column) for column in below.T], axis=-1)
    shares = totals / np.bincount(at, weights=votes)[:, None]
    visits = 1 + int(np.count_nonzero(np.diff(hours)))
    return shares[at], len(names), len(hours) * len(names) / visits


def _inflation(
    excess: npt.NDArray[np.float64], independent: npt.NDArray[np.float64], length: int
) -> npt.NDArray[np.float64]:
    """Variance of overlapping sums of `length` ticks over that of independent votes, by edge."""
    sums = np.vstack([np.zeros(excess.shape[1]), excess.cumsum(axis=0)])
    blocks = sums[length:] - sums[:-length]
    ratio: npt.NDArray[np.float64] = np.square(blocks).mean(axis=0) / (length * independent)
    return ratio
