"""A mean over everything, from labels of a part that was chosen with known probabilities (STATISTICS.md 3).

Labels are few, and those that are asked for first are the difficult ones: their mean is not the model's. With the
probability π_i that outcome i got its label, known before it came,

    z_i = m_i + (ξ_i / π_i)(y_i − m_i)

has the mean of y whatever m_i is, as long as m_i depends on the past alone: the augmented inverse-probability estimator
of Robins, Rotnitzky & Zhao 1994 (eq. 8, with a known propensity), as martingale differences. Here m_i is the
running mean of the labels seen, each weighted by 1/π (Hájek 1971). The confidence sequence is that of z
(`tidemill.stats.confidence`), which lies in [−k, k + 1], k = 1/π_min.

ξ_i is 0 for outcomes without label, also for answers that were never logged: of these is known only that they were
given, and so z_i = m_i. A pick whose label is still to come is neither: who asks must count it at its best and at its
worst. The promise is over the outcomes in their order, with the labels that there are; a look after more labels came is
a look at another sequence. What is lost is not known to be like the rest: L of N lost move both ends outwards by L/N.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidemill.stats.confidence import BoundedMean, Interval

__all__ = ["Estimate", "SampledMean"]

Floats = npt.NDArray[np.float64]

_PRIOR = 0.5
"""m before there is a label, with the weight of one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of losses in [0, 1], and what it rests on."""

    mean: float | None
    """Point estimate; None without a label of known probability."""
    interval: Interval
    """Holds the truth at every moment, with the risk that was asked for."""
    count: int
    """Answers that it is about, the lost ones not counted."""
    labelled: int
    """Labels of known probability."""
    volunteered: int
    """Labels of unknown probability, which the estimate does not use."""
    lost: int
    """Answers that may be missing, at most."""


class SampledMean:
    """The estimate over a stream of outcomes, one version's or one slice's, in the order of their predictions.

    Args:
        least: π_min, the smallest probability that a label's may have; the control share times the log's sample.
        risk: probability that the interval ever misses.

    Raises ValueError unless 0 < least <= 1.
    """

    def __init__(self, least: float, *, risk: float = 0.05) -> None:
        if not 0 < least <= 1:
            raise ValueError(f"the least probability of a label is above 0 and at most 1, not {least}")
        self._least = least
        k = 1 / least
        among = Interval(0.0, 1.0)
        # Where every outcome is labelled, z is y: the range of a loss is enough.
        self._sequence = (
            BoundedMean(0.0, 1.0, risk=risk) if least == 1 else BoundedMean(-k, k + 1, risk=risk, among=among)
        )
        self._weight, self._weighted = 1.0, _PRIOR
        self._sum, self._labelled, self._volunteered = 0.0, 0, 0

    def update(self, losses: Floats, probabilities: Floats) -> None:
        """Take in outcomes.

        Args:
            losses: in [0, 1]; NaN for those without label, and for answers that were not logged.
            probabilities: of getting a label, that of being logged included, known before the label; NaN for a label
                whose is not known. Of outcomes without label they are not looked at.

        Raises ValueError for a loss outside [0, 1], or a probability below `least` or above 1.
        """
        losses, probabilities = np.asarray(losses, np.float64), np.asarray(probabilities, np.float64)
        has_label, is_known = ~np.isnan(losses), ~np.isnan(probabilities)
        used = has_label & is_known
        if has_label.any() and not (losses[has_label].min() >= 0 and losses[has_label].max() <= 1):
            raise ValueError("a loss is outside [0, 1]")
        if used.any() and not (probabilities[used].min() >= self._least - 1e-12 and probabilities[used].max() <= 1):
            raise ValueError(f"a probability is below {self._least:g} or above 1")
        weight = np.where(used, 1 / np.where(used, np.maximum(probabilities, self._least), 1.0), 0.0)
        loss = np.where(has_label, losses, 0.0)
        # Volunteered labels help to guess, and no more: any guess from the past leaves z without bias.
        guessing = np.where(has_label & ~is_known, 1.0, weight)
        guesses = self._guesses(guessing, loss)
        z = guesses + weight * (loss - guesses)
        self._sequence.update(z)
        self._sum += float(z.sum())
        self._labelled += int(used.sum())
        self._volunteered += int((has_label & ~is_known).sum())

    def holds(self, mean: float) -> bool:
        """Whether the interval has this mean, nothing being lost."""
        return not self._labelled or self._sequence.holds(mean)

    def estimate(self, lost: int = 0) -> Estimate:
        """The estimate now; `lost` answers may be missing beside those taken in."""
        count = self._sequence.count
        # Without a label that was drawn, z is a guess, however often it is repeated.
        interval = self._sequence.interval() if self._labelled else Interval(0.0, 1.0)
        share = lost / (count + lost) if count + lost else 0.0
        return Estimate(
            mean=min(1.0, max(0.0, self._sum / count)) if self._labelled else None,
            interval=interval.widened(share),
            count=count,
            labelled=self._labelled,
            volunteered=self._volunteered,
            lost=lost,
        )

    def _guesses(self, weight: Floats, loss: Floats) -> Floats:
        """M of each outcome: from those before it."""
        weights, weighted = self._weight + np.cumsum(weight), self._weighted + np.cumsum(weight * loss)
        guesses: Floats = np.concatenate([[self._weighted / self._weight], (weighted / weights)[:-1]])[: len(loss)]
        if len(loss):
            self._weight, self._weighted = float(weights[-1]), float(weighted[-1])
        return guesses
