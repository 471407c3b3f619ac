"""The gate `data.agreement`: labellers of a snapshot's events agree as far as `labels.minAgreement` asks.

A handful of events with two labellers says little, so that the refusal needs more than a low figure: Krippendorff's
alpha must be below the limit with 95 % confidence. Its standard error is that of the jackknife that leaves out one of
20 groups of events at a time (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 11.5, eq. 11.5, with
groups), which makes no assumption on how labellers err. Disputed events count, though nothing is learnt from them: a
rule that leaves them out would else hide them.
"""

import math

import polars as pl

from tidemill.labels.alpha import Alpha, interval_alpha, nominal_alpha
from tidemill.labels.words import judged_field
from tidemill.spec.model import ContinualModel
from tidemill.stats.student import student_quantile
from tidemill.training.data_verdict import passed, refused, warned
from tidemill.training.verdict import GateVerdict, Value

__all__ = ["FEWEST_EVENTS", "agreement"]

FEWEST_EVENTS = 40
"""Events with several labellers that are needed to refuse: two in each group."""
_GROUPS = 20
_RISK = 0.05


def agreement(words: pl.DataFrame, resource: ContinualModel) -> GateVerdict:
    """Judge what several labellers said of one event (`tidemill.training.resolved.WORDS`)."""
    field, least = judged_field(resource), resource.spec.labels.min_agreement
    said = words.select(
        item=pl.struct("entity", "event_id").rank("dense"),
        text=pl.col("label").str.json_path_match(f"$.{field.name}"),
        disputed="disputed",
    ).with_columns(number=pl.col("text").cast(pl.Float64, strict=False))
    is_number = field.type in {"int", "float"}
    alpha = _alpha(said, is_number)
    figures: dict[str, Value] = {"events": alpha.compared, "alpha": alpha.value, "least": least}
    if alpha.value is None:
        return GateVerdict(gate="data.agreement", passed=None, reason=f"not applicable: {alpha.why}", figures=figures)
    upper = alpha.value + _error(said, is_number) * student_quantile(_RISK, _GROUPS - 1)
    reason = (
        f"labellers of {alpha.compared:,} events agree on {field.name} by alpha {alpha.value:.2f}, "
        f"at most {min(upper, 1.0):.2f} with 95 % confidence; labels.minAgreement is {least:g}"
    )
    if alpha.value >= least:
        return passed("agreement", reason, **figures)
    if alpha.compared < FEWEST_EVENTS or upper >= least:
        return warned("agreement", [f"{reason}: too few events to refuse by"], upper_95=min(upper, 1.0), **figures)
    todo = "`tidemill labels agreement` says who differs on what; agree, label again, then retrain"
    return refused("agreement", [reason, todo], upper_95=upper, **figures)


def _alpha(said: pl.DataFrame, is_number: bool) -> Alpha:
    return interval_alpha(said) if is_number else nominal_alpha(said)[0]


def _error(said: pl.DataFrame, is_number: bool) -> float:
    """The standard error of alpha; infinite where too little is left without a group."""
    group = pl.col("item") % _GROUPS
    values = [_alpha(said.filter(group != left_out), is_number).value for left_out in range(_GROUPS)]
    known = [value for value in values if value is not None]
    if len(known) < _GROUPS:
        return math.inf
    mean = sum(known) / _GROUPS
    return math.sqrt((_GROUPS - 1) / _GROUPS * sum((value - mean) ** 2 for value in known))
