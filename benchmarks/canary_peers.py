"""How others decide the same rollouts, each as it is usually set up; all see the same seconds of the same worlds.

- **z-test with peeking**: two proportions, one-sided at 5 % against the margin, looked at every second.
- **fixed size**: the same test once, at the number of outcomes planned for 80 % power of an equal candidate.
- **thresholds, as in Flagger**: each minute the candidate's error must be below a fixed limit; five failed checks roll
  back, ten passed ones promote (docs.flagger.app, `threshold`, `maxWeight / stepWeight`).
- **Mann-Whitney, as in Kayenta**: at the end, each version's error of each minute; the canary passes unless it is
  higher at 98 % confidence (spinnaker.io, "How canary judgment works").
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.canary_worlds import World
from scipy.stats import mannwhitneyu

__all__ = ["Counts", "counted", "fixed_size", "flagger", "kayenta", "peeking"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
MINUTE = 10
"""Seconds that stand for a minute of a real rollout: these worlds are busy."""


@dataclass(frozen=True)
class Counts:
    """Requests and errors of both versions in each second (R, T)."""

    candidate: Ints
    candidate_errors: Ints
    champion: Ints
    champion_errors: Ints

    def by_minute(self) -> "Counts":
        """Sums of each minute."""

        def summed(values: Ints) -> Ints:
            whole = values[:, : values.shape[1] // MINUTE * MINUTE]
            return np.asarray(whole.reshape(len(values), -1, MINUTE).sum(axis=2))

        return Counts(*(summed(getattr(self, name)) for name in Counts.__dataclass_fields__))


def counted(world: World, weights: list[int], runs: int, seed: int) -> Counts:
    """What many rollouts show whose share is `weights[second]`."""
    rng = np.random.default_rng((seed, 7))
    seconds = range(len(weights))
    candidate = rng.binomial(world.per_second, np.array(weights) / 100, (runs, len(weights)))
    champion = world.per_second - candidate
    errors = [np.array([error(second) for second in seconds]) for error in (world.candidate, world.champion)]
    return Counts(candidate, rng.binomial(candidate, errors[0]), champion, rng.binomial(champion, errors[1]))


def peeking(seen: Counts, margin: float) -> Bools:
    """Promoted by the z-test that looks every second (R,)."""
    return np.asarray((_z(seen, margin) < -1.645).any(axis=1))


def fixed_size(seen: Counts, margin: float, needed: int) -> Bools:
    """Promoted by the same test at the first second with so many outcomes of the candidate (R,)."""
    at = np.argmax(np.cumsum(seen.candidate, axis=1) >= needed, axis=1)
    return np.asarray(_z(seen, margin)[np.arange(len(at)), at] < -1.645)


def flagger(seen: Counts, limit: float) -> Bools:
    """Promoted by ten passed checks before five failed ones (R,)."""
    minutes = seen.by_minute()
    good = minutes.candidate_errors < limit * minutes.candidate
    passed, failed = np.cumsum(good, axis=1), np.cumsum(~good, axis=1)
    return np.asarray(((passed >= 10) & (failed < 5)).any(axis=1))


def kayenta(seen: Counts) -> Bools:
    """Promoted because its minutes are not higher at 98 % confidence (R,)."""
    minutes = seen.by_minute()
    candidate = minutes.candidate_errors / np.maximum(minutes.candidate, 1)
    champion = minutes.champion_errors / np.maximum(minutes.champion, 1)
    found = mannwhitneyu(candidate, champion, axis=1, alternative="greater", method="asymptotic")
    return np.asarray(found.pvalue > 0.01)


def _z(seen: Counts, margin: float) -> npt.NDArray[np.float64]:
    """Of the difference of two pooled means against the margin, after each second; +inf with fewer than 30 (R, T)."""
    counts = [np.cumsum(values, axis=1) for values in (seen.candidate, seen.champion)]
    errors = [np.cumsum(values, axis=1) for values in (seen.candidate_errors, seen.champion_errors)]
    means = [error / np.maximum(count, 1) for error, count in zip(errors, counts, strict=True)]
    variance = sum(mean * (1 - mean) / np.maximum(count, 1) for mean, count in zip(means, counts, strict=True))
    found = (means[0] - means[1] - margin) / np.sqrt(np.maximum(variance, 1e-12))
    return np.where(np.minimum(*counts) >= 30, found, np.inf)
