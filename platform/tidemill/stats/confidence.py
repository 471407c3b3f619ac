"""A confidence sequence for a bounded mean: an interval that one may look at after every observation.

For x_t in [0, 1] and a candidate mean m, the hedged capital of two gamblers, one of whom bets that the mean is larger
and the other that it is smaller, is

    K_t(m) = 1/2 Π (1 + λ⁺_i (x_i − m)) + 1/2 Π (1 − λ⁻_i (x_i − m)),   λ⁺ = min(λ_i, c/m),  λ⁻ = min(λ_i, c/(1 − m))

and is a test martingale if the conditional mean of every x is m. By Ville's inequality the m with K_t(m) < 1/α for
all t so far hold the truth at every t with probability 1 − α. Waudby-Smith & Ramdas 2024, "Estimating means of bounded
random variables by betting", theorem 3, with the predictable plug-in bets of their eq. 26:

    λ_t = sqrt(2 log(2/α) / (σ²_{t−1} t log(1 + t)))

The average instead of their maximum is a martingale as well, and Ville's inequality needs no more.

The promise is about a mean that stays the same. Where it moves, the capital of a candidate says how well it fits the
average of the conditional means so far, and nothing is promised (`make simulate ONLY=label-sampling` has such a case):
so the interval shown is that of now, K_t(m) < 1/α, and not its intersection over time, which could only shrink.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["GRID", "BoundedMean", "Interval"]

Floats = npt.NDArray[np.float64]

GRID = 500
"""Candidates for the mean lie 1/500 of the range apart; the interval is widened to the next of them."""
_HEDGE = 0.5
"""c: the largest share that is staked, at the most unlikely outcome."""
_TOGETHER = 1024
"""Observations that are worked through together: with the grid, some megabytes."""


class Interval(NamedTuple):
    """From low to high, both included."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """High − low."""
        return self.high - self.low

    def widened(self, by: float) -> "Interval":
        """Both ends moved outwards, no further than 0 and 1."""
        return Interval(max(0.0, self.low - by), min(1.0, self.high + by))


class BoundedMean:
    """The confidence sequence of one stream. Grows by `update`; looking at it costs no risk.

    Args:
        low: least value that can be observed.
        high: largest.
        risk: probability of ever missing, α.
        among: the mean is known to lie within this.
    """

    def __init__(
        self, low: float = 0.0, high: float = 1.0, *, risk: float = 0.05, among: Interval | None = None
    ) -> None:
        if not low < high or not 0 < risk < 1:
            raise ValueError(f"need low < high and a risk between 0 and 1, not {low}, {high} and {risk}")
        among = among or Interval(low, high)
        self._low, self._range, self._risk = low, high - low, risk
        self._candidates = np.linspace(among.low, among.high, GRID + 1)
        self._means = (self._candidates - low) / self._range
        with np.errstate(divide="ignore"):
            self._most = np.stack([_HEDGE / self._means, _HEDGE / (1 - self._means)])
        self._log_capital = np.zeros((2, GRID + 1))
        self.count = 0
        """Observations so far."""
        self._sum, self._deviations = 0.5, 0.25  # one made-up observation in the middle: eq. 26 of the paper
        self._signs = np.array([1.0, -1.0])[:, None, None]

    def update(self, values: Floats) -> None:
        """Take in observations, in their order. Raises ValueError for one outside the range."""
        scaled = (np.asarray(values, dtype=np.float64) - self._low) / self._range
        if scaled.size and not (scaled.min() >= -1e-12 and scaled.max() <= 1 + 1e-12):
            raise ValueError("an observation is outside the range that was declared, or no number")
        for start in range(0, len(scaled), _TOGETHER):
            self._take(np.clip(scaled[start : start + _TOGETHER], 0.0, 1.0))

    def interval(self) -> Interval:
        """What holds the mean now; everything before the first observation."""
        capital = np.logaddexp(self._log_capital[0], self._log_capital[1]) - np.log(2)
        (kept,) = np.nonzero(capital < -np.log(self._risk))
        if not len(kept):  # conditional means that differ can drive all of them out: the best one, and its neighbours
            kept = np.array([int(capital.argmin())])
        first, last = max(0, kept[0] - 1), min(GRID, kept[-1] + 1)
        return Interval(float(self._candidates[first]), float(self._candidates[last]))

    def _take(self, values: Floats) -> None:
        bets = self._bets(values)[:, None]
        stakes = np.minimum(bets, self._most[:, None, :])
        self._log_capital += np.log1p(self._signs * stakes * (values[:, None] - self._means)).sum(axis=1)
        self.count += len(values)

    def _bets(self, values: Floats) -> Floats:
        """λ of each, from what came before it; moves the sums on."""
        number = self.count + np.arange(1, len(values) + 1)
        sums = self._sum + np.cumsum(values)
        means = sums / (number + 1)
        deviations = self._deviations + np.cumsum((values - means) ** 2)
        before = np.concatenate([[self._deviations], deviations[:-1]]) / number
        if len(values):
            self._sum, self._deviations = float(sums[-1]), float(deviations[-1])
        bets: Floats = np.sqrt(2 * np.log(2 / self._risk) / (before * number * np.log1p(number)))
        return bets
