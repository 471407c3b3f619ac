"""The error of a version's newest answers before their labels are there: an estimate, from the lake.

Windows are as long as you say, else a thirtieth of the version's history, or as long as it takes for nine of ten labels
to come, whichever is longer. The newest window ends with the newest prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import polars as pl

from tidemill.core.clock import from_ms, to_ms
from tidemill.events.lake import LakeTable, table_uri
from tidemill.metrics.estimate import LEAST_LABELS, REACH, Backtest, Scored, backtest, calibrated
from tidemill.outcomes.known import Cut, Kind
from tidemill.outcomes.matured import Matured, matured
from tidemill.spec.model import ContinualModel

__all__ = ["Estimated", "estimate_of"]

_MOST = 200_000
"""Newest outcomes that are looked at."""
_PARTS_OF_HISTORY = 30
_COME = 0.9
_SAID = 0.5
"""Share of answers that must have a confidence."""
_NEVER = np.iinfo(np.int64).max
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """The newest window of a version. An estimate: no gate, verdict or trigger takes it."""

    version: str
    kind: Kind
    since: datetime
    through: datetime
    answers: int
    """In the window."""
    error: float | None
    """None where it cannot be estimated."""
    reason: str | None
    """Why not."""
    within: float
    """The largest error of such an estimate on past windows."""
    typical: float
    """The mean one."""
    typical_unchanged: float
    """The mean error of saying "as so far" instead."""
    windows: int
    """Past windows that it was held against."""


def estimate_of(
    lake: str, resource: ContinualModel, *, version: str | None = None, window_ms: int | None = None
) -> Estimated | None:
    """The estimate of a version, or of the one that answered last.

    None where it has no outcome or no prediction, and for numbers, which come without a confidence.

    Raises `NotFound` before there are outcomes, `Unavailable`.
    """
    if resource.spec.prediction.type == "regression":
        return None
    found = matured(lake, resource, Cut(version=version), values="none", most=_MOST)
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    if found is None or not table.exists:
        return None
    predictions = table.scan().filter(pl.col("version") == found.version)
    last = table.collect(predictions.select(pl.col("predicted_at").max())).item()
    if last is None:
        return None
    past, through = _past(found), to_ms(last)
    delays = (past.known_at - past.times)[past.labelled]
    delay = int(np.quantile(delays, _COME)) if len(delays) else 0
    length = window_ms or max(1, delay, (through - int(past.times[0])) // _PARTS_OF_HISTORY)
    start = from_ms(through - length)
    young = predictions.filter(pl.col("event_date") >= start.date(), pl.col("predicted_at") > start)
    newest = table.collect(young.select("prediction_id", "output").unique("prediction_id"))
    answers = _scored(newest["output"].to_list())
    held = backtest(past, end=through - length, length=length, mature=through - delay)
    reason = _refusal(answers, held)
    calibration = calibrated(past, known_by=_NEVER, since=through - REACH * length)
    if calibration is None:
        reason = f"fewer than {LEAST_LABELS} of its newest answers have a label"
    error = None if reason or calibration is None else float(calibration.expected(answers).mean())
    return Estimated(
        version=found.version,
        kind=found.kind,
        since=start,
        through=from_ms(through),
        answers=len(answers.times),
        error=error,
        reason=reason,
        within=held.largest,
        typical=held.typical,
        typical_unchanged=held.typical_unchanged,
        windows=len(held.off),
    )


def _refusal(answers: Scored, held: Backtest) -> str | None:
    """Why nothing is estimated; None where it may be."""
    if np.isnan(answers.confidences).mean() > 1 - _SAID:
        return "answers have no confidence in the log"
    return held.refusal


def _past(found: Matured) -> Scored:
    answers = _scored(found.rows["output"].to_list())
    return replace(
        answers,
        times=found.rows["predicted_at"].dt.epoch("ms").to_numpy(),
        wrong=found.losses,
        weights=found.weights,
        known_at=found.rows["available_at"].dt.epoch("ms").fill_null(_NEVER).to_numpy(),
    )


def _scored(outputs: Sequence[str]) -> Scored:
    """Answers without times and labels."""
    answers = [_decode(text) for text in outputs]
    # A class is told by a hash, the same for all answers: what else there is of them does not matter.
    names = [crc32(str(answer.get("class")).encode()) for answer in answers]
    none = np.full(len(answers), np.nan)
    times = np.zeros(len(answers), np.int64)
    confidences = np.array([_confidence(answer) for answer in answers], np.float64)
    return Scored(times, np.array(names, np.int64), confidences, none, none, times)


def _confidence(answer: Mapping[str, Any]) -> float:
    """Of the class that was answered; NaN where it is none."""
    said, probabilities = answer.get("confidence"), answer.get("probabilities")
    if isinstance(probabilities, Mapping):
        said = probabilities.get(str(answer.get("class")), said)
    is_one = isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said <= 1
    return float(said) if is_one and said is not None else float("nan")
