"""What is known of each outcome's loss: the least and the largest that it may be, and the probability of its label.

This is where the rules of sampled labels (docs/quality.md) are applied, for every figure that speaks of more than the
labelled outcomes. `labels.control` 1: every answer is to be labelled, and one that is not yet may be anything. Between
0 and 1: answers that a round of picks has considered; a label counts with its probability, a pick without one may be
anything, a label that somebody volunteered is not used. 0: of the labelled alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.outcomes.tables import LABELS
from tidemill.spec.model import ContinualModel
from tidemill.stats.confidence import Interval
from tidemill.stats.sampling import Estimate, SampledMean

__all__ = ["Bracketed", "Cut", "Kind", "Known", "days", "missing", "newest"]

Kind = Literal["all labelled", "sampled", "labelled only"]
"""What the estimate is of: every answer is labelled; a control share is, so that it is of all; or of the labelled."""


@dataclass(frozen=True)
class Cut:
    """Which outcomes, and how they are told apart besides by version."""

    by: str | None = None
    """`entity`, or a feature."""
    cohorts: bool = False
    window_ms: int | None = None
    since: datetime | None = None
    version: str | None = None
    until: datetime | None = None
    """Only predictions before this time."""


@dataclass(frozen=True)
class Known:
    """The rules of one model, with what was picked of it."""

    kind: Kind
    picks: pl.Series
    """Ids of the predictions that were picked to be labelled."""
    through: datetime | None
    """Up to when predictions were considered in a round; None: never."""
    least: float
    """The smallest probability that a label can have: the control share, or what it was before it was raised."""

    @classmethod
    def of(cls, lake: str, resource: ContinualModel, outcomes: LakeTable, rows: pl.LazyFrame) -> "Known":
        """The rules now. `rows` are those of the table of outcomes."""
        control = resource.spec.labels.control
        nothing = pl.Series([], dtype=pl.String)
        if not 0 < control < 1:
            return cls("all labelled" if control else "labelled only", nothing, None, 1.0)
        known = outcomes.collect(rows.select(pl.col("probability").min())).item()
        made = cls("sampled", nothing, None, float(control if known is None else min(control, known)))
        table = LakeTable(table_uri(lake, resource.id, "labels"))
        if not table.exists:
            return made
        said = with_missing(table.scan(), LABELS).filter(pl.col("reasons").is_not_null())
        found = table.collect(said.select("prediction_id", "event_time"))
        through = found.select(pl.col("event_time").max()).item()
        return replace(made, picks=found["prediction_id"].drop_nulls().unique(), through=through)

    def bounds(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with `asked` (whether the estimate is about it), `low`, `high` and `chance`.

        `low` and `high` are the least and the largest loss, NaN where no label is asked for; `chance` is the
        probability of the label, NaN where it is not known.
        """
        loss, none = pl.col("loss"), pl.lit(float("nan"))
        if self.kind == "labelled only":
            return rows.with_columns(asked=loss.is_not_null(), low=loss, high=loss, chance=pl.lit(1.0))
        if self.kind == "all labelled":
            return rows.with_columns(
                asked=pl.lit(True), low=loss.fill_null(0.0), high=loss.fill_null(1.0), chance=pl.lit(1.0)
            )
        counts = loss.is_not_null() & ~pl.col("assumed").fill_null(False)
        is_pick = pl.col("prediction_id").is_in(self.picks.implode())  # its label is still to come, or disputed
        return rows.with_columns(
            asked=pl.lit(False) if self.through is None else pl.col("predicted_at") <= self.through,
            low=pl.when(counts).then(loss).when(is_pick).then(0.0).otherwise(none),
            high=pl.when(counts).then(loss).when(is_pick).then(1.0).otherwise(none),
            chance=pl.when(counts)
            .then(pl.col("probability").fill_null(float("nan")))
            .when(is_pick)
            .then(self.least)
            .otherwise(none),
        )


def days(outcomes: LakeTable, cut: Cut) -> list[date]:
    """The days that have outcomes, oldest first."""
    found = outcomes.scan().select(pl.col("event_date").unique())
    if cut.since is not None:
        found = found.filter(pl.col("event_date") >= cut.since.date())
    if cut.until is not None:
        found = found.filter(pl.col("event_date") <= cut.until.date())
    return sorted(outcomes.collect(found)["event_date"].to_list())


def missing(outcomes: LakeTable, rows: pl.LazyFrame) -> tuple[int, int]:
    """Predictions missing from the log, and how many more may be: as the outcome says that was written last."""
    last = outcomes.collect(rows.select("available_at", "lost", "maybe_lost").top_k(1, by="available_at"))
    return (last["lost"][0] or 0, last["maybe_lost"][0] or 0) if last.height else (0, 0)


def newest(rows: pl.LazyFrame, day: date, cut: Cut, columns: Sequence[str]) -> pl.LazyFrame:
    """The newest revision of each outcome of a day, oldest prediction first."""
    rows = rows.filter(pl.col("event_date") == day)
    if cut.version is not None:
        rows = rows.filter(pl.col("version") == cut.version)
    if cut.since is not None:
        rows = rows.filter(pl.col("predicted_at") >= cut.since)
    if cut.until is not None:
        rows = rows.filter(pl.col("predicted_at") < cut.until)
    last = rows.select(columns).sort("revision").unique("prediction_id", keep="last")
    return last.sort("predicted_at", "prediction_id")


class Bracketed:
    """The estimate of a group: with each label that is still to come as good as it can be, and as bad.

    Args:
        least: the smallest probability that a label can have.
        risk: probability that the interval ever misses; each side may with half of it.
    """

    def __init__(self, least: float, risk: float) -> None:
        self._good, self._bad = SampledMean(least, risk=risk / 2), SampledMean(least, risk=risk / 2)
        self.waiting = 0
        """Outcomes that are to be labelled and are not."""

    def update(self, seen: npt.NDArray[np.float64]) -> None:
        """Take in rows of (least loss, largest loss, probability)."""
        good, bad, probability = seen.T
        self._good.update(good, probability)
        self._bad.update(bad, probability)
        self.waiting += int((good < bad).sum())

    def estimate(self, lost: int) -> Estimate:
        """Both together; the mean is in the middle."""
        good = self._good.estimate(lost)
        bad = self._bad.estimate(lost) if self.waiting else good  # without such labels both saw the same
        mean = None if good.mean is None or bad.mean is None else (good.mean + bad.mean) / 2
        interval = Interval(good.interval.low, bad.interval.high)
        labelled = good.labelled - self.waiting
        return replace(good, mean=mean if labelled else None, interval=interval, labelled=labelled)
