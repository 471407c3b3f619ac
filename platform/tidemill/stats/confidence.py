"""A confidence sequence for a bounded mean: an interval that one may look at after every observation.

For x_t in [0, 1] and a candidate mean m, gamblers bet that the mean is larger or that it is smaller, each with a fixed
bet λ. Their average capital

    K_t(m) = mean over λ of 1/2 Π (1 + λ⁺ (x_i − m)) + 1/2 Π (1 − λ⁻ (x_i − m)),    λ⁺ <= 1/(2m),  λ⁻ <= 1/(2(1 − m))

is a test martingale if every x has the mean m given the past. By Ville's inequality the m with K_t(m) < 1/α hold the
truth at every t with probability 1 − α: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by
betting", theorem 3 (hedged capital), with the diversified bets of their section 4.2.

The bets are fixed, so the capital needs no order: with log(1 + x) >= x − x²/2 + x³/3 − 0.424 x⁴ for x >= −1/2 (the
series, its rest bounded at −1/2) a lower bound of it follows from n and four sums of powers. A smaller capital makes
the interval wider, never wrong. So cells merge, a million observations take milliseconds, and the interval always holds
the mean that was observed (by Jensen's inequality its capital is at most 1).

The promise is about a mean that stays the same. Where it moves, the interval is about the average so far, and nothing
is promised (`make simulate ONLY=label-sampling` has such a case): it is that of now, not its intersection over time.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BoundedMean", "Interval"]

Floats = npt.NDArray[np.float64]

BETS = 2.0 ** -np.arange(1, 15)
"""Bets as shares of what could ruin: from one half, for a handful of observations, to what suits 10⁸ of them."""
_CANDIDATES = 1000
"""Means that are tried at once, twice: over all, then between the last one that is in and its neighbour outside."""
_REST = 0.424
_NEARLY = 1e-9


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
        self._among = among or Interval(low, high)
        self._low, self._range, self._risk = low, high - low, risk
        self._powers = np.zeros(4)
        self.count = 0
        """Observations so far."""

    def update(self, values: Floats) -> None:
        """Take in observations. Raises ValueError for one outside the range."""
        scaled = (np.asarray(values, dtype=np.float64) - self._low) / self._range
        if scaled.size and not (scaled.min() >= -_NEARLY and scaled.max() <= 1 + _NEARLY):
            raise ValueError("an observation is outside the range that was declared, or no number")
        scaled = np.clip(scaled, 0.0, 1.0)
        self._powers += [float((scaled**power).sum()) for power in (1, 2, 3, 4)]
        self.count += len(scaled)

    def interval(self) -> Interval:
        """What holds the mean now; everything before the first observation."""
        low, high = self._among
        if not self.count:
            return Interval(low, high)
        tried = np.union1d(np.linspace(low, high, _CANDIDATES), np.clip([self._mean()], low, high))
        (kept,) = np.nonzero(self._is_in(tried))
        first, last = tried[kept[0]], tried[kept[-1]]
        before, after = tried[max(0, kept[0] - 1)], tried[min(len(tried) - 1, kept[-1] + 1)]
        return Interval(self._edge(first, before), self._edge(last, after))

    def holds(self, mean: float) -> bool:
        """Whether the interval has this mean: the same as looking at its ends, and cheaper."""
        return not self.count or bool(self._is_in(np.array([mean]))[0])

    def _edge(self, inside: float, outside: float) -> float:
        """The last one that is in on the way from `inside` to `outside`, and a step further: none is left out."""
        tried = np.linspace(inside, outside, _CANDIDATES)
        out = np.flatnonzero(~self._is_in(tried))
        return float(tried[out[0]] if len(out) else outside)

    def _mean(self) -> float:
        return float(self._low + self._range * self._powers[0] / self.count)

    def _is_in(self, candidates: Floats) -> npt.NDArray[np.bool_]:
        """Whether the capital of each candidate is below 1/α; what was observed is always in."""
        means = (np.asarray(candidates, np.float64) - self._low) / self._range
        first, second, third, fourth = self._powers
        n, m = self.count, means
        centred = (
            first - n * m,
            second - 2 * m * first + n * m**2,
            third - 3 * m * second + 3 * m**2 * first - n * m**3,
            fourth - 4 * m * third + 6 * m**2 * second - 4 * m**3 * first + n * m**4,
        )
        # No stake ruins, and none wins more than it is: beyond that the bound is loose.
        up, down = BETS[:, None] / np.maximum(m, 0.5), -BETS[:, None] / np.maximum(1 - m, 0.5)
        logs = np.concatenate([self._log_capital(bet, centred) for bet in (up, down)])
        top = logs.max(axis=0)
        capital = top + np.log(np.exp(logs - top).mean(axis=0))
        inside: npt.NDArray[np.bool_] = (capital < -np.log(self._risk)) | (np.abs(means - first / n) < _NEARLY)
        return inside

    @staticmethod
    def _log_capital(bet: Floats, centred: tuple[Floats, Floats, Floats, Floats]) -> Floats:
        """A lower bound of the log of one bet's capital (bets, candidates), from sums of powers of x − m."""
        one, two, three, four = centred
        # Multiplied out from the inside: NumPy's powers above the second take ten times as long.
        found: Floats = bet * (one - bet * (two / 2 - bet * (three / 3 - _REST * bet * four)))
        return found
