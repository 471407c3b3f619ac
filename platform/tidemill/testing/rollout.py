"""Rollouts for tests: a plan with round figures, outcomes, and a world in which versions err at known rates."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidemill.events.records import Outcome
from tidemill.rollout.cells import Arm, Evidence, Fold, StepEvidence
from tidemill.rollout.copies import PairEvidence
from tidemill.rollout.plan import RolloutPlan, Span, Version
from tidemill.rollout.verdict import Verdict, judge
from tidemill.stats.betting import for_promotion

__all__ = ["EPOCH_MS", "evidence_for", "example_plan", "judged_outcome", "outcomes_of", "run_rollout"]

EPOCH_MS = round(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""When the example rollout starts."""

ErrorAt = Callable[[float], float]
"""Probability of an error, by seconds since the start."""


def example_plan(**changes: Any) -> RolloutPlan:
    """`v2` against `v1` at 5, 25, 50, 100 %, margin 0.02, risk 0.05, cells of 1 s, outcomes at the age of 4 s."""
    plan = RolloutPlan(
        rollout="v2-1",
        candidate=Version("v2", "/artifacts/v2"),
        champion=Version("v1", "/artifacts/v1"),
        weights=(5, 25, 50, 100),
        margin=0.02,
        risk=0.05,
        min_outcomes=50,
        window_ms=1000,
        slack_ms=250,
        age_ms=4000,
        visible={"ok": 1.0, "scratch": 1.0},
        started_at=EPOCH_MS,
        timeout_ms=3 * 24 * 3_600_000,
        ready_within_ms=60_000,
        offsets={0: 0},
    )
    return msgspec.structs.replace(plan, **changes)


def evidence_for(plan: RolloutPlan, verdict: str, step: int) -> Evidence:
    """Evidence that leads to `verdict` in `step`; for any other word, evidence that leads to none yet."""
    fresh, arm = Evidence.none(plan), Arm(requests=60, judged=60, labelled=60.0, loss=6.0)

    def gains(*kinds: str) -> list[float]:
        return [0.3] * (60 if verdict in kinds else 0)

    process = for_promotion(plan.step_margin(step)).update_all(gains("go on", "promote"))
    return msgspec.structs.replace(
        fresh,
        promotion=fresh.promotion.update_all(gains("promote")),
        harm=fresh.harm.update_all(gains("roll back")),
        log_ratio_peak=10.0 if verdict == "hold" else 0.0,
        steps=(StepEvidence(step=step, process=process, candidate=60),),
        candidate=arm,
        champion=arm,
        pairs=PairEvidence(requests=60, answered=60, judged=60, labelled=60.0, candidate=6.0, champion=6.0),
        blocks=60,
    )


def judged_outcome(version: str, at_ms: int, loss: float | None, *, name: str, request: str | None = None) -> Outcome:
    """One outcome of revision 0; `loss` None is unlabelled."""
    return Outcome(
        prediction_id=name,
        version=version,
        entity="A",
        request_id=request,
        predicted_at=at_ms,
        eligible_at=at_ms + 4000,
        output={"class": "ok"},
        label=None if loss is None else {"defect": "ok" if loss == 0 else "scratch"},
        loss=loss,
    )


def outcomes_of(
    rng: random.Random,
    *,
    weight: int,
    candidate: ErrorAt,
    champion: ErrorAt,
    since_ms: int,
    seconds: float,
    per_second: float = 40.0,
) -> Iterator[Outcome]:
    """What a world sends in which `weight` % of the requests go to v2 and each version errs at its own rate."""
    for number in range(int(seconds * per_second)):
        at = since_ms + round(number * 1000 / per_second)
        is_candidate = rng.random() * 100 < weight
        error = (candidate if is_candidate else champion)((at - EPOCH_MS) / 1000)
        loss = float(rng.random() < error)
        yield judged_outcome("v2" if is_candidate else "v1", at, loss, name=f"{at}-{number}-{rng.random()}")


def run_rollout(
    plan: RolloutPlan,
    rng: random.Random,
    *,
    candidate: ErrorAt,
    champion: ErrorAt,
    requests: int,
    per_second: float = 40.0,
) -> tuple[Verdict, int]:
    """One rollout in that world, judged after every cell: its last verdict, and the requests that it took."""
    fold, step, taken, at = Fold(plan), 0, 0, plan.started_at
    spans = [Span(step=0, weight=plan.weights[0], since=at)]
    verdict = Verdict("inconclusive", "no outcomes yet")
    while taken < requests:
        for outcome in outcomes_of(
            rng,
            weight=plan.weights[step],
            candidate=candidate,
            champion=champion,
            since_ms=at,
            seconds=1.0,
            per_second=per_second,
        ):
            fold.add(0, outcome)
            taken += 1
        at += 1000
        verdict = judge(plan, fold.evidence(spans), step)
        if verdict.kind in {"promote", "roll back"}:
            break
        if verdict.kind == "go on":
            step += 1
            spans[-1] = msgspec.structs.replace(spans[-1], until=at)
            spans.append(Span(step=step, weight=plan.weights[step], since=at))
    return verdict, taken
