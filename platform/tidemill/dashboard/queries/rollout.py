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

__all__ = ["Arm", "RolloutView", "StepView", "Trail", "TrailPoint", "rollout_view"]

MOST_OUTCOMES = 20_000
"""Outcomes that are read at once: the next ones when somebody looks again."""
_POINTS = 160
"""Points of a way: of more every other one is left out."""
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


class Trail:
    """The way of one rollout's evidence, which follows the lake: what was read is not read again. One thread at a time.

    Args:
        plan: the rollout.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan = plan
        self._fold = Fold(plan)
        self._read: dict[str, int] = {}
        """The last offset taken, by source."""
        self._points: list[TrailPoint] = []
        self._every, self._since = max(1, MOST_OUTCOMES // _POINTS), 0

    def follow(self, lake: str, model: str, spans: Sequence[Span]) -> tuple[tuple[TrailPoint, ...], bool]:
        """The way so far, and whether there are more outcomes than it is drawn of. Raises `Unavailable`."""
        table = LakeTable(table_uri(lake, model, "outcomes"))
        try:
            rows = table.scan().filter(self._wanted(spans))
        except NotFound:
            return (), False
        places = _arrived(table.collect(rows.select("source", "offset", "available_at")))
        taken = places.head(MOST_OUTCOMES)
        if taken.height:
            self._take(table.collect(rows.filter(_within(taken)).select(*_COLUMNS)), spans)
        return tuple(self._points), places.height > taken.height

    def _wanted(self, spans: Sequence[Span]) -> pl.Expr:
        plan = self.plan
        # What came before the first share was seen counts nowhere, however long a person thought about it.
        first = min((one.since for one in spans), default=plan.started_at) - plan.window_ms
        begin = from_ms(max(plan.started_at, first))
        versions = [one.name for one in (plan.champion, plan.candidate) if one is not None]
        wanted = (pl.col("event_date") >= begin.date()) & (pl.col("predicted_at") >= begin)
        wanted &= (pl.col("revision") == 0) & pl.col("version").is_in(versions)
        for source, offset in self._read.items():
            wanted &= (pl.col("source") != source) | (pl.col("offset") > offset)
        return wanted

    def _take(self, rows: pl.DataFrame, spans: Sequence[Span]) -> None:
        """The evidence after each part of the outcomes, in the order in which they arrived."""
        partitions = {source: Source.parse(source).partition for source in rows["source"].unique()}
        for row in _arrived(rows).iter_rows(named=True):
            self._read[row["source"]] = row["offset"]
            partition = partitions[row["source"]]
            if row["offset"] >= self.plan.offsets.get(partition, 0):
                self._fold.add(partition, _outcome(row))
                self._since += 1
                if self._since >= self._every:
                    self._mark(row, spans)
        if self._since and rows.height < MOST_OUTCOMES:
            self._mark(row, spans)

    def _mark(self, row: dict[str, Any], spans: Sequence[Span]) -> None:
        self._points.append(_point(to_ms(row["predicted_at"]), self._fold.evidence(spans)))
        self._since = 0
        if len(self._points) > 2 * _POINTS:
            self._points = [*self._points[:-1:2], self._points[-1]]
            self._every *= 2


_OUTCOME = (
    *("prediction_id", "version", "entity", "request_id", "predicted_at", "eligible_at", "loss", "label"),
    *("lost", "maybe_lost", "cohort"),
)
_COLUMNS = ("source", "offset", "available_at", *_OUTCOME)


def _arrived(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order in which control reads them: by arrival, each source in the order of its offsets."""
    ordered = rows.sort("source", "offset").with_columns(at=pl.col("available_at").cum_max().over("source"))
    return ordered.sort("at", "source", "offset").drop("at")


def _within(places: pl.DataFrame) -> pl.Expr:
    """Rows up to the last place of each source; none of a source that has none."""
    last = places.group_by("source").agg(pl.col("offset").max()).iter_rows()
    return pl.any_horizontal((pl.col("source") == source) & (pl.col("offset") <= offset) for source, offset in last)


def _point(at: int, evidence: Evidence) -> TrailPoint:
    return TrailPoint(at, min(evidence.promotion.peak, 1e12), min(evidence.harm.peak, 1e12), evidence.blocks)


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        prediction_id=row["prediction_id"],
        version=row["version"],
        entity=row["entity"],
        request_id=row["request_id"],
        cohort=row["cohort"],
        predicted_at=to_ms(row["predicted_at"]),
        eligible_at=to_ms(row["eligible_at"]),
        output={},
        label=None if row["label"] is None else msgspec.json.decode(row["label"]),
        loss=row["loss"],
        lost=row["lost"] or 0,
        maybe_lost=row["maybe_lost"] or 0,
    )
