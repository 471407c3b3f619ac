"""Betting on a bounded mean: a mixture e-process over fixed bets, and the evidence it has gathered.

A gambler starts with wealth 1 and at each step stakes a fixed share of it on "the gain will be positive". If
the mean gain, given the past, is never above zero (the null), wealth is a supermartingale, so the chance that it
*ever* reaches 1/α is at most α (Ville's inequality): one may look after every outcome and stop at will. Several
bets are kept side by side and averaged, because the best one depends on an effect that nobody knows.

Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting": the capital process
K_t = Π(1 + λ(x_i − m)) (eq. 21 with constant λ), and the mixture of processes as their average (section 4.2,
"diversified" bets; a convex combination of test supermartingales is one). Ville's inequality: their eq. 4.
"""

import math
from collections.abc import Iterable

import msgspec

__all__ = ["BETS", "Mixture", "against_harm", "for_promotion", "for_sign"]

BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45)
"""The shares staked, before the scale of the gain is taken out. Below 1/2, so that one bad outcome cannot ruin."""


class Mixture(msgspec.Struct, frozen=True):
    """The average of Π(1 + λ·gain) over fixed λ. Immutable: `update` returns the next state.

    `bets` are the λ in use; every gain must satisfy 1 + λ·gain > 0 for each. `log_peak` is the largest log of
    the average that was ever reached, so that a threshold once crossed stays crossed however rarely one looks.
    """

    bets: tuple[float, ...]
    log_wealths: tuple[float, ...]
    count: int = 0
    log_peak: float = 0.0

    @classmethod
    def fresh(cls, scale: float) -> "Mixture":
        """Wealth 1 on each of `BETS`·scale."""
        return cls(tuple(bet * scale for bet in BETS), (0.0,) * len(BETS))

    def update(self, gain: float) -> "Mixture":
        """The state after one more gain. Raises ValueError where a bet could be ruined, which its bounds exclude."""
        return self.update_all((gain,))

    def update_all(self, gains: Iterable[float]) -> "Mixture":
        """The state after the gains, in their order; the same as updating one by one."""
        wealths, count, peak = list(self.log_wealths), self.count, self.log_peak
        for gain in gains:
            wealths = [wealth + math.log1p(bet * gain) for wealth, bet in zip(wealths, self.bets, strict=True)]
            peak = max(peak, _log_mean(wealths))
            count += 1
        return Mixture(self.bets, tuple(wealths), count, peak)

    @property
    def log_value(self) -> float:
        """Log of the e-value now."""
        return _log_mean(self.log_wealths)

    @property
    def value(self) -> float:
        """The e-value now: 1 at the start; infinite where a float cannot hold it."""
        return _exp(self.log_value)

    @property
    def peak(self) -> float:
        """The largest e-value ever reached."""
        return _exp(self.log_peak)

    def reached(self, risk: float) -> bool:
        """Whether the evidence has ever stood at 1/risk or more."""
        return self.log_peak >= -math.log(risk)


def for_promotion(margin: float) -> Mixture:
    """Tests "the candidate is worse by `margin` or more"; fed margin − D with D in [−1, 1] (STATISTICS 2).

    The gain is at least margin − 1, hence the scale 1/(1 − margin). Raises ValueError unless 0 <= margin < 1.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"a margin is at least 0 and below 1, not {margin}")
    return Mixture.fresh(1 / (1 - margin))


def against_harm(margin: float) -> Mixture:
    """Tests "the candidate is worse by no more than `margin`"; fed D − margin with D in [−1, 1].

    The gain is at least −1 − margin, hence the scale 1/(1 + margin): with 1/(1 − margin) a factor could be
    negative. Raises ValueError for a negative margin.
    """
    if margin < 0:
        raise ValueError(f"a margin is at least 0, not {margin}")
    return Mixture.fresh(1 / (1 + margin))


def for_sign() -> Mixture:
    """Tests "the mean difference is at most 0" of differences in [−1, 1]; one such process per direction."""
    return Mixture.fresh(1.0)


def _log_mean(logs: Iterable[float]) -> float:
    values = tuple(logs)
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
