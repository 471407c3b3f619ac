"""The gate `calibration`: is a confidence of 0.8 right in 80 % of cases, beyond what chance explains?

The expected calibration error over bins of equal width (Guo et al. 2017, "On calibration of modern neural networks",
eq. 3) is never 0 of a finite sample, however well calibrated. By the triangle inequality it is at most the true error
of the bins plus N = sum over bins of n_b/n |accuracy_b - its expectation|. N is resampled, as consistency bars are
(Bröcker & Smith 2007, "Increasing the reliability of reliability diagrams"), from each bin's own accuracy, one hit and
one miss more than were seen. So the error less N's 95 % quantile is a lower bound that holds at any number of rows.
"""

import numpy as np

from tidemill.evaluation.scoring import Evaluation, Scores
from tidemill.metrics.classification import CALIBRATION_BINS
from tidemill.spec.gates import CalibrationGate
from tidemill.training.verdict import GateVerdict, Value, not_applicable

__all__ = ["calibration", "calibration_error"]

RESAMPLES = 10_000


def calibration(gate: CalibrationGate, evaluation: Evaluation) -> GateVerdict:
    """Refused when the candidate's calibration error is above the limit with 95 % confidence."""
    found = calibration_error(evaluation.candidate)
    if found is None:
        return not_applicable("calibration", "no answer has a confidence")
    error, least, rows = found
    passed = least <= gate.max_error
    champion = calibration_error(evaluation.champion) if evaluation.champion else None
    figures: dict[str, Value] = {
        "calibration_error": error,
        "champion_calibration_error": champion[0] if champion else None,
        "lower_95": least,
        "max_error": gate.max_error,
        "rows": rows,
    }
    reason = (
        f"confidences are off by {error:.3f} on {rows} rows, and beyond chance by at least {least:.3f} with 95 % "
        f"confidence: {'not surely' if passed else 'surely'} above the limit of {gate.max_error:g}"
    )
    return GateVerdict(gate="calibration", passed=passed, reason=reason, figures=figures)


def calibration_error(scores: Scores, *, seed: int = 0) -> tuple[float, float, int] | None:
    """The expected calibration error, its lower 95 % bound, and of how many rows; None without a confidence."""
    known = [
        (confidence, not loss)
        for confidence, loss in zip(scores.confidences, scores.losses, strict=True)
        if confidence is not None
    ]
    if not known:
        return None
    said, right = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    slots = np.clip((said * CALIBRATION_BINS).astype(np.intp), 0, CALIBRATION_BINS - 1)
    counts = np.bincount(slots, minlength=CALIBRATION_BINS)
    hits = np.bincount(slots, right, CALIBRATION_BINS)
    error = float(np.abs(np.bincount(slots, said, CALIBRATION_BINS) - hits).sum() / len(said))
    chances = (hits + 1) / (counts + 2)
    drawn = np.random.default_rng(seed).binomial(counts, chances, size=(RESAMPLES, CALIBRATION_BINS))
    noise = np.abs(drawn - counts * chances).sum(axis=1) / len(said)
    return error, max(0.0, error - float(np.quantile(noise, 0.95))), len(said)
