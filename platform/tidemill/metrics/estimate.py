"""How right answers probably are whose labels are still to come: from their confidences, as an estimate.

A confidence says how often such answers were right before: the mean of the calibrated ones is the expected accuracy
(Białek et al. 2024, "Estimating model performance under covariate shift without labels", the confidence-based estimate
of their section 3; Guillory et al. 2021, "Predicting with confidence on unseen distributions", section 3).
Calibrated means: by the labels that were known when the estimate was made, in bins of confidence with equally many
outcomes for each class answered (Zadrozny & Elkan 2001, "Obtaining calibrated probability estimates", histogram
binning), so that confidences that mean nothing do no harm.

*What it assumes*: an answer of the same class and confidence is right as often as before, whatever the inputs. Inputs
may become other ones (more difficult pictures, answered with less confidence); what is true of them may not (concept
drift). No confidence can tell whether that holds. So each estimate is held against the past: for each past window the
estimate is made with the labels known at its end, and compared with the labels that came. The largest difference in m
windows is not exceeded by the next one in m of m + 1 cases, if windows are exchangeable (Vovk, Gammerman & Shafer 2005,
section 2.2; the truth of a window is itself a sample, so this is rather too wide). Where that is large, nothing is
estimated. It is for people: no gate, verdict or trigger takes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "FEWEST_WINDOWS",
    "LARGEST_ERROR",
    "LEAST_LABELS",
    "REACH",
    "WINDOWS",
    "Backtest",
    "Calibration",
    "Scored",
    "backtest",
    "calibrated",
]

WINDOWS = 19
"""Past windows that an estimate is held against, at most: then the largest error is one of 19 in 20."""
FEWEST_WINDOWS = 9
REACH = 20
"""Windows back from where labels are taken."""
LEAST_LABELS = 200
"""Labels that a calibration needs."""
LEAST_IN_WINDOW = 30
"""Labels without which a past window says nothing."""
LARGEST_ERROR = 0.1
"""An estimate that was further off in the past is not made."""
_BINS = 15
_LEAST_IN_BIN = 30
_CHANCE = 3.5
"""Standard deviations within which all of 19 windows stay in 99 of 100 cases."""
_WEIGHT_OF_CLASS = 1.0
"""Outcomes for which the class's own rate counts in each of its bins."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """N answers, oldest first."""

    times: Ints
    """When they were made, milliseconds."""
    classes: Ints
    """The class answered, as any number."""
    confidences: Floats
    """In [0, 1]; NaN where the answer does not say it."""
    wrong: Floats
    """Their loss, in [0, 1]; NaN without a label that counts."""
    weights: Floats
    """One over the probability of the label."""
    known_at: Ints
    """When their label was known, milliseconds."""

    def where(self, rows: Mask) -> "Scored":
        """Some of them."""
        return Scored(
            self.times[rows],
            self.classes[rows],
            self.confidences[rows],
            self.wrong[rows],
            self.weights[rows],
            self.known_at[rows],
        )

    @property
    def labelled(self) -> Mask:
        """Which have a label that counts."""
        return ~np.isnan(self.wrong) & (self.weights > 0)


class Calibration:
    """How often answers of a class and a confidence were wrong.

    Args:
        known: labelled answers, at least one.
    """

    def __init__(self, known: Scored) -> None:
        self.labels = len(known.wrong)
        self._all = _Bins(known)
        self._classes = {
            int(name): _Bins(known.where(known.classes == name))
            for name in np.unique(known.classes)
            if (known.classes == name).sum() >= _LEAST_IN_BIN
        }

    @property
    def mean(self) -> float:
        """The error of all that it is made of: what an estimate would be that looks at nothing."""
        return self._all.mean

    def expected(self, answers: Scored) -> Floats:
        """The probability that each answer is wrong (N,); of a class with few labels, that of all."""
        found = self._all.expected(answers.confidences)
        for name, bins in self._classes.items():
            rows = answers.classes == name
            found[rows] = bins.expected(answers.confidences[rows])
        return found


class _Bins:
    """One class: the error in each bin of confidence, and of what has none."""

    def __init__(self, known: Scored) -> None:
        weights, wrong = known.weights, known.wrong
        self.mean = float(weights @ wrong / weights.sum())
        said = known.confidences[~np.isnan(known.confidences)]
        bins = max(1, min(_BINS, len(said) // _LEAST_IN_BIN))
        quantiles = np.arange(1, bins) / bins
        self._edges: Floats = np.unique(np.quantile(said, quantiles)) if len(said) else np.zeros(0)
        places = self._places(known.confidences)
        size = len(self._edges) + 2
        lost = np.bincount(places, weights * wrong, minlength=size) + _WEIGHT_OF_CLASS * self.mean
        self._errors: Floats = lost / (np.bincount(places, weights, minlength=size) + _WEIGHT_OF_CLASS)

    def expected(self, confidences: Floats) -> Floats:
        """The error of the bin of each (N,)."""
        found: Floats = self._errors[self._places(confidences)]
        return found

    def _places(self, confidences: Floats) -> npt.NDArray[np.intp]:
        none = np.isnan(confidences)
        return np.where(none, len(self._edges) + 1, np.searchsorted(self._edges, confidences, side="right"))


@dataclass(frozen=True)
class Backtest:
    """How estimates did on past windows."""

    off: Sequence[float]
    """Estimate less truth, by window, the newest first."""
    off_unchanged: Sequence[float]
    """The same of an estimate that says "as so far" and looks at no confidence."""
    by_chance: Sequence[float]
    """Standard deviation of the truth of each window, were the estimate right and answers independent."""

    @property
    def largest(self) -> float:
        """The largest error; 0 without windows."""
        return max((abs(one) for one in self.off), default=0.0)

    @property
    def typical(self) -> float:
        """The mean error."""
        return sum(abs(one) for one in self.off) / max(1, len(self.off))

    @property
    def typical_unchanged(self) -> float:
        """That of "as so far"."""
        return sum(abs(one) for one in self.off_unchanged) / max(1, len(self.off_unchanged))

    @property
    def refusal(self) -> str | None:
        """Why nothing is to be estimated; None where it may be."""
        if len(self.off) < FEWEST_WINDOWS:
            return f"{len(self.off)} past windows have labels enough to hold it against, of {FEWEST_WINDOWS} at least"
        if self.largest <= LARGEST_ERROR:
            return None
        said = f"on past windows it was off by up to {self.largest:.2f}"
        if all(abs(one) <= _CHANCE * error for one, error in zip(self.off, self.by_chance, strict=True)):
            return f"{said}, which may be chance: they hold too few labels, take longer ones"
        return f"{said}: what confidences mean has changed"


def backtest(answers: Scored, *, end: int, length: int, mature: int) -> Backtest:
    """Estimates for past windows, made with the labels known at their end, against the labels that came.

    Args:
        answers: all of one version that may be labelled.
        end: where the newest past window may end at most; earlier ones end a length before each other.
        length: of a window, milliseconds.
        mature: windows that end later than this have labels to come, and are not looked at.
    """
    found: list[tuple[float, float, float]] = []
    while len(found) < WINDOWS and end > answers.times[0]:
        in_window = (answers.times > end - length) & (answers.times <= end) & answers.labelled
        calibration = calibrated(answers, known_by=end, since=end - REACH * length)
        if end <= mature and calibration is not None and in_window.sum() >= LEAST_IN_WINDOW:
            found.append(_held(calibration, answers.where(in_window)))
        end -= length
    off, unchanged, by_chance = zip(*found, strict=True) if found else ((), (), ())
    return Backtest(off, unchanged, by_chance)


def _held(calibration: Calibration, window: Scored) -> tuple[float, float, float]:
    """The errors of both estimates on a window, and what chance may do to its truth."""
    weights = window.weights / window.weights.sum()
    expected = calibration.expected(window)
    truth = float(weights @ window.wrong)
    by_chance = float((weights**2 @ (expected * (1 - expected))) ** 0.5)
    return float(weights @ expected) - truth, calibration.mean - truth, by_chance


def calibrated(answers: Scored, *, known_by: int, since: int) -> Calibration | None:
    """The calibration by the labels known at a time, of answers made after `since`; None of fewer than 200."""
    rows = answers.labelled & (answers.known_at <= known_by) & (answers.times > since)
    return Calibration(answers.where(rows)) if rows.sum() >= LEAST_LABELS else None
