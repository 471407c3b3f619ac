"""The A/B report of a rollout: how much the two versions differ, by slice, with its interval.

It is read from the lake's outcomes of the rollout's spans, each with its newest label. An outcome counts by the share
that the other version had when it was predicted ("overlap weights": Li, Morgan & Zaslavsky 2018, "Balancing covariates
via propensity score weighting"): so both versions are compared over the same mixture of moments, although the shares
rose and the world moved meanwhile. What is independent is the request, or the key (`rollout.cohorts`); the error of the
difference is that of its sums (`tidemill.stats.clustered`).

The interval holds for one look, and decides nothing: verdicts have their own evidence, which may be looked at always.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.clock import from_ms
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.outcomes.known import Cut, days, newest
from tidemill.outcomes.quality import Slices
from tidemill.outcomes.tables import OUTCOMES
from tidemill.rollout.plan import SHADOW, RolloutPlan, Span
from tidemill.spec.model import ContinualModel
from tidemill.stats.clustered import Clustered, clustered_mean, contrast
from tidemill.stats.confidence import Interval
from tidemill.stats.student import student_quantile

__all__ = ["ArmReport", "Lift", "lifts", "rollout_report"]

RISK = 0.05
"""That an interval misses."""
_COLUMNS = ["prediction_id", "revision", "version", "entity", "cohort", "request_id", "predicted_at", "loss"]


class ArmReport(msgspec.Struct, frozen=True, kw_only=True):
    """One version in one slice."""

    version: str
    outcomes: int
    labelled: int
    error: float | None
    """Weighted mean loss of the labelled; None without any."""
    interval: Interval | None = None


class Lift(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    slice: str
    """Empty: all of them."""
    candidate: ArmReport
    champion: ArmReport
    units: int
    """Requests or keys that were labelled."""
    lift: float | None = None
    """Error of the candidate less that of the champion: below 0 the candidate is better."""
    interval: Interval | None = None
    """Of the lift; None where a side has fewer than two units."""


def rollout_report(
    lake: str, resource: ContinualModel, plan: RolloutPlan, spans: Sequence[Span], *, by: str | None = None
) -> list[Lift]:
    """The lift over all outcomes, and in each slice of `by` (`entity`, or a feature).

    Raises `NotFound` before there are outcomes, `InvalidInput` for a feature that no prediction has, `Unavailable`.
    """
    spans = [span for span in spans if span.step != SHADOW]  # copies reached no user
    if plan.champion is None or not spans:
        return []
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = with_missing(outcomes.scan(), OUTCOMES)
    until = max((span.until or 0 for span in spans), default=0) if all(span.until for span in spans) else None
    cut = Cut(
        by=by,
        since=from_ms(min(span.since for span in spans)),
        until=None if until is None else from_ms(until) + timedelta(milliseconds=1),
    )
    slices, found = Slices(lake, resource, by), []
    for day in days(outcomes, cut):
        seen = outcomes.collect(newest(rows, day, cut, _COLUMNS))
        found.append(seen.with_columns(slice=pl.Series(slices.of(seen, day), dtype=pl.String)))
    return lifts(pl.concat(found), plan, spans) if found else []


def lifts(rows: pl.DataFrame, plan: RolloutPlan, spans: Iterable[Span]) -> list[Lift]:
    """The lifts of these outcomes: of all, then by slice where there is more than one.

    Columns: version, cohort, request_id, prediction_id, predicted_at (UTC), loss (null: unlabelled), slice.
    """
    if plan.champion is None:
        return []
    rows = _weighted(rows, plan, spans)
    names = sorted(rows["slice"].unique().to_list())
    cut = [(name, rows.filter(pl.col("slice") == name)) for name in names] if len(names) > 1 else []
    return [_lift(name, part, plan) for name, part in [("", rows), *cut] if part.height]


def _weighted(rows: pl.DataFrame, plan: RolloutPlan, spans: Iterable[Span]) -> pl.DataFrame:
    """The outcomes of the spans with `is_candidate`, `weight` and `unit`."""
    at, share = pl.col("predicted_at").dt.epoch("ms"), pl.lit(None, dtype=pl.Float64)
    for span in spans:
        within = (at >= span.since) & ((at < span.until) if span.until is not None else pl.lit(True))
        share = pl.when(within).then(span.weight / 100).otherwise(share)
    key = pl.col("cohort") if plan.keyed else pl.lit(None, dtype=pl.String)
    champion = plan.champion.name if plan.champion else ""
    return (
        rows.filter(pl.col("version").is_in([plan.candidate.name, champion]))
        .with_columns(is_candidate=pl.col("version") == plan.candidate.name, share=share)
        .with_columns(
            weight=pl.when("is_candidate").then(1 - pl.col("share")).otherwise(pl.col("share")),
            unit=pl.coalesce(key, "request_id", "prediction_id"),
        )
        .filter(pl.col("share").is_not_null())
    )


def _lift(name: str, rows: pl.DataFrame, plan: RolloutPlan) -> Lift:
    labelled = rows.filter(pl.col("loss").is_not_null())
    units, places = np.unique(labelled["unit"].to_numpy(), return_inverse=True)
    arms = [_mean(labelled, is_candidate, places, len(units)) for is_candidate in (True, False)]
    names = [plan.candidate.name, plan.champion.name if plan.champion else ""]
    told = [
        ArmReport(
            version=version,
            outcomes=rows.filter(pl.col("is_candidate") == is_candidate).height,
            labelled=arm.count if arm else 0,
            error=arm.mean if arm else None,
            interval=arm.interval(RISK) if arm else None,
        )
        for version, arm, is_candidate in zip(names, arms, (True, False), strict=True)
    ]
    line = Lift(slice=name, candidate=told[0], champion=told[1], units=len(units))
    candidate, champion = arms
    if candidate is None or champion is None:
        return line
    found, degrees = contrast(candidate, champion), min(candidate.units, champion.units) - 1
    line = msgspec.structs.replace(line, lift=found.difference)
    if degrees <= 0:
        return line
    reach = student_quantile(RISK / 2, degrees) * found.error
    interval = Interval(max(-1.0, found.difference - reach), min(1.0, found.difference + reach))
    return msgspec.structs.replace(line, interval=interval)


def _mean(rows: pl.DataFrame, is_candidate: bool, places: npt.NDArray[np.int64], count: int) -> Clustered | None:
    weights = np.where(rows["is_candidate"].to_numpy() == is_candidate, rows["weight"].to_numpy(), 0.0)
    if not weights.any():
        return None
    return clustered_mean(rows["loss"].to_numpy().astype(np.float64), weights, places, count)
