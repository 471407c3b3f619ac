"""A rollout: its steps, what was asked and is seen, and the evidence on its way to a verdict.

Whoever has the plan and the outcomes from its offsets on computes the same evidence again
(`tidemill.rollout.cells`): so the way of the e-processes is drawn from the lake, and nothing has to remember it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import polars as pl

from tidemill.control.state import LoopStatus
from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Decision, Outcome
from tidemill.events.sources import Source
from tidemill.rollout.cells import Evidence, Fold
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.rollout.power import power_of
from tidemill.spec.model import ContinualModel

__all__ = ["Arm", "RolloutView", "StepView", "TrailPoint", "rollout_view", "trail_of"]

MOST_OUTCOMES = 50_000
"""Outcomes of a rollout that its way is drawn of: of more, the first are, and the page says so."""
_POINTS = 160
_ENDS = frozenset({"promote", "rolled-back"})


@dataclass(frozen=True, slots=True)
class StepView:
    """One step of the plan."""

    weight: int
    state: Literal["done", "now", "ahead"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the two versions, as the proxy and the log show it."""

    version: str
    asked: int
    seen: int | None
    """Percent of the requests; None where it is not there."""
    state: str
    requests: int
    errors: int
    p99_ms: float | None
    judged: int | None
    error: float | None
    """Mean loss of the outcomes that count."""


@dataclass(frozen=True, slots=True)
class TrailPoint:
    """The evidence when the outcomes up to a time had come."""

    at: int
    promote: float
    roll_back: float
    """E-values, the largest so far: what is needed is one over the risk."""
    blocks: int


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The rollout under way, or the last one."""

    candidate: str | None
    champion: str | None
    phase: str
    paused: bool
    weight: int
    steps: tuple[StepView, ...]
    reason: str
    verdict: str
    arms: tuple[Arm, ...]
    needed: float
    margin: float
    e_promote: float
    e_roll_back: float
    e_step: float
    step_outcomes: int
    min_outcomes: int
    deadline: int | None
    """When its time is over, milliseconds since the epoch."""
    power: str
    """What a candidate as good as the champion needs."""
    last: Decision | None
    """How the last one ended, where none is under way."""

    @property
    def active(self) -> bool:
        """Whether one is under way."""
        return self.candidate is not None


def rollout_view(resource: ContinualModel, status: LoopStatus) -> RolloutView:
    """How the rollout stands, by the status alone."""
    spec, told, state = resource.spec.rollout, status.seen.rollout, status.rollout
    power = power_of(resource, status.seen.history) if status.champion else None
    last = next((one for one in reversed(status.decisions) if one.kind in _ENDS), None)
    weights = state.plan.weights if state else tuple(step.weight for step in spec.steps)
    return RolloutView(
        candidate=state.plan.candidate.name if state else None,
        champion=state.plan.champion.name if state and state.plan.champion else None,
        phase=state.phase if state else "none",
        paused=state.paused if state else False,
        weight=state.weight if state else 0,
        steps=_steps(weights, state.phase if state else "none", state.step if state else 0),
        reason=str(told.get("reason") or (state.held if state else "") or ""),
        verdict=str(told.get("verdict") or ""),
        arms=_arms(status),
        needed=1 / (state.plan.risk if state else spec.analysis.risk),
        margin=state.plan.promotion_margin if state else spec.analysis.margin,
        e_promote=_number(told.get("e_promote"), 1.0),
        e_roll_back=_number(told.get("e_roll_back"), 1.0),
        e_step=_number(told.get("e_step"), 1.0),
        step_outcomes=round(_number(told.get("step_outcomes"), 0)),
        min_outcomes=state.plan.min_outcomes if state else spec.analysis.min_outcomes,
        deadline=state.judged_since + state.plan.timeout_ms if state and state.judged_since else None,
        power=power.words() if power else "",
        last=None if state else last,
    )


def _steps(weights: Sequence[int], phase: str, at: int) -> tuple[StepView, ...]:
    now = {"canary": at, "promoting": len(weights) - 1}.get(phase, -1)
    done = "done" if phase == "done" else "ahead"
    return tuple(
        StepView(weight, "now" if place == now else "done" if place < now else done)  # type: ignore[arg-type]
        for place, weight in enumerate(weights)
    )


def _arms(status: LoopStatus) -> tuple[Arm, ...]:
    told = status.seen.rollout
    asked = {one.version: one.share for one in status.traffic.revisions}
    names = [("champion", status.champion), ("candidate", status.candidate)]
    found: list[Arm] = []
    for which, version in names:
        if version is None:
            continue
        seen = status.seen.traffic.revision(version.version)
        state = "not there" if seen is None else "ready" if seen.ready else seen.failed or "not ready"
        judged, error = told.get(f"{which}_outcomes"), told.get(f"{which}_error")
        found.append(
            Arm(
                version=version.version,
                asked=asked.get(version.version, 0),
                seen=seen.share if seen else None,
                state=state,
                requests=seen.requests if seen else 0,
                errors=seen.errors if seen else 0,
                p99_ms=seen.latency_p99_ms if seen else None,
                judged=None if judged is None else round(_number(judged, 0)),
                error=None if error is None else _number(error, 0.0),
            )
        )
    return tuple(found)


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def trail_of(
    lake: str, resource: ContinualModel, plan: RolloutPlan, spans: Sequence[Span]
) -> tuple[tuple[TrailPoint, ...], bool]:
    """The way of the evidence so far, and whether there were more outcomes than are drawn. Raises `Unavailable`."""
    versions = [one.name for one in (plan.champion, plan.candidate) if one is not None]
    # What came before the first share was seen counts nowhere, however long a person thought about it.
    first = min((one.since for one in spans), default=plan.started_at) - plan.window_ms
    begin = from_ms(max(plan.started_at, first))
    table = LakeTable(table_uri(lake, resource.id, "outcomes"))
    try:
        rows = table.scan().filter(
            pl.col("event_date") >= begin.date(),
            pl.col("predicted_at") >= begin,
            pl.col("revision") == 0,
            pl.col("version").is_in(versions),
        )
    except NotFound:
        return (), False
    columns = ["source", "offset", *_OUTCOME]
    found = table.collect(rows.select(columns).bottom_k(MOST_OUTCOMES + 1, by=["predicted_at", "source", "offset"]))
    is_cut = found.height > MOST_OUTCOMES
    return _folded(plan, spans, found.head(MOST_OUTCOMES).sort("source", "offset")), is_cut


_OUTCOME = (
    *("prediction_id", "version", "entity", "request_id", "predicted_at", "eligible_at", "loss", "label"),
    *("lost", "maybe_lost"),
)


def _folded(plan: RolloutPlan, spans: Sequence[Span], rows: pl.DataFrame) -> tuple[TrailPoint, ...]:
    """The evidence after each part of the outcomes, in the order in which control reads them."""
    fold, points = Fold(plan), list[TrailPoint]()
    every = max(1, rows.height // _POINTS)
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        partition = Source.parse(row["source"]).partition
        if row["offset"] < plan.offsets.get(partition, 0):
            continue
        fold.add(partition, _outcome(row))
        if number % every == 0 or number == rows.height:
            points.append(_point(to_ms(row["predicted_at"]), fold.evidence(spans)))
    return tuple(points)


def _point(at: int, evidence: Evidence) -> TrailPoint:
    return TrailPoint(at, min(evidence.promotion.peak, 1e12), min(evidence.harm.peak, 1e12), evidence.blocks)


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        prediction_id=row["prediction_id"],
        version=row["version"],
        entity=row["entity"],
        request_id=row["request_id"],
        predicted_at=to_ms(row["predicted_at"]),
        eligible_at=to_ms(row["eligible_at"]),
        output={},
        label=None if row["label"] is None else msgspec.json.decode(row["label"]),
        loss=row["loss"],
        lost=row["lost"] or 0,
        maybe_lost=row["maybe_lost"] or 0,
    )
