"""The rollout as a state machine: pure functions from a state and what is seen to the next state and its moves.

    starting ──ready──► (awaiting-approval) ──► (shadowing) ──► canary: step 1 ─► 2 ─► … ──► promoting ──► done
        │                        │                   │             │  (go on)              │        (promoted)
        └──failed────────────────┴──harm, guard, abort─────────────┴───────────────────────┴──► rolling-back ──► done
                                                                                                    (rolled back)

It promotes once 100 % is seen on the candidate, and has rolled back once 0 % is.
Level-triggered: `advance` may be called as often as one likes, after a crash with the state of before. It never
believes a share, or copies, that it has not seen. A first version has no champion to be compared with: it goes straight
from ready to all traffic.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import msgspec

from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict
from tidemill.rollout.cells import Evidence
from tidemill.rollout.copies import MOST_COPIES, WAIT_MS
from tidemill.rollout.driver import RevisionSeen
from tidemill.rollout.guard import fault
from tidemill.rollout.history import HistorySeen
from tidemill.rollout.moves import (
    Advanced,
    begun,
    by_verdict,
    changed,
    closed,
    promote,
    roll_back,
    told,
    watch_span,
)
from tidemill.rollout.plan import RolloutPlan, Span, Version
from tidemill.rollout.power import Power, power_of
from tidemill.rollout.shadowing import after_copies, copied, shadowing
from tidemill.rollout.state import Move, Observation, Phase, RolloutState, wanted
from tidemill.rollout.verdict import Verdict, judge, judge_copies
from tidemill.spec.model import ContinualModel

__all__ = [
    "UNDECIDED",
    "Evidence",
    "HistorySeen",
    "Move",
    "Observation",
    "Power",
    "RolloutPlan",
    "RolloutState",
    "Version",
    "advance",
    "asked",
    "plan_for",
    "power_of",
    "progress",
    "start",
    "wanted",
]

READY_WITHIN_MS = 5 * 60_000
"""A server that has not become ready by then has failed; large models take minutes to load."""
_MILLISECOND = timedelta(milliseconds=1)
UNDECIDED: frozenset[Phase] = frozenset({"starting", "awaiting-approval", "shadowing", "canary"})
"""The phases in which the rollout may still go either way."""


def plan_for(
    resource: ContinualModel,
    *,
    candidate: Version,
    champion: Version | None,
    offsets: Mapping[int, int],
    now: datetime,
    history: HistorySeen | None = None,
    copies: Mapping[str, int] | None = None,
    reverts: str = "",
) -> RolloutPlan:
    """Fix everything that a verdict depends on.

    `offsets` are the next ones of `.outcomes`, by partition; `copies` those of `.copies`, by source. With `reverts`
    (why) the candidate is the version before, which gets all requests as soon as it is ready again.
    """
    history = history or HistorySeen()
    rollout, analysis = resource.spec.rollout, resource.spec.rollout.analysis
    timeout_ms = to_ms(analysis.timeout)
    weights = tuple(step.weight for step in rollout.steps) if champion and not reverts else (100,)
    window_ms = _window_ms(history.per_second, weights[0], timeout_ms)
    age_ms = to_ms(resource.spec.labels.maturity.after)
    return RolloutPlan(
        rollout=f"{candidate.name}-{to_ms(now)}",
        candidate=candidate,
        champion=champion,
        weights=weights,
        cohort=rollout.cohorts.key,
        metric=analysis.metric,
        margin=analysis.margin,
        risk=analysis.risk,
        min_outcomes=analysis.min_outcomes,
        window_ms=window_ms,
        slack_ms=max(200, window_ms // 4),
        age_ms=age_ms,
        visible=history.visible,
        control=resource.spec.labels.control,
        error_guard=rollout.guards.errors,
        latency_guard_ms=None if rollout.guards.latency_p99 is None else rollout.guards.latency_p99 / _MILLISECOND,
        shadow=rollout.shadow and champion is not None and not reverts,
        copies=dict(copies or {}),
        copies_share=min(1.0, MOST_COPIES / max(1.0, (history.per_second or 0.0) * max(age_ms, WAIT_MS) / 1000)),
        approval=rollout.approval == "required" and champion is not None and not reverts,
        reverts=reverts,
        started_at=to_ms(now),
        timeout_ms=timeout_ms,
        on_timeout=analysis.on_timeout,
        ready_within_ms=READY_WITHIN_MS,
        offsets=dict(offsets),
    )


def start(plan: RolloutPlan, power: Power | None = None) -> Advanced:
    """Begin: the candidate is started and gets nothing until it is ready. `power` is told with it."""
    state = RolloutState(plan=plan, phase="starting", phase_since=plan.started_at)
    name = plan.candidate.name
    if plan.champion is None:
        reason = f"{name} is the first version: it gets all traffic once it is ready"
    elif plan.reverts:
        reason = f"{name} is to replace {plan.champion.name} again: {plan.reverts}"
    else:
        steps = ("copies first, then " if plan.shadow else "") + " → ".join(str(weight) for weight in plan.weights)
        reason = f"{name} is to replace {plan.champion.name}: {steps} %, margin {plan.margin:g}, risk {plan.risk:g}"
        reason += f"; {power.words()}" if power else ""
    return told(state, "start-rollout", reason, msgspec.to_builtins(plan, str_keys=True))


def advance(state: RolloutState, observation: Observation, now: datetime) -> Advanced:
    """The next state and what was decided on the way; the same state and nothing where nothing has changed."""
    phases: dict[Phase, Callable[[RolloutState, Observation, int], Advanced]] = {
        "starting": _starting,
        "awaiting-approval": _awaiting,
        "shadowing": shadowing,
        "canary": _canary,
        "promoting": _promoting,
        "rolling-back": _rolling_back,
        "done": lambda state, *_: (state, ()),
    }
    return phases[state.phase](state, observation, to_ms(now))


def asked(
    state: RolloutState,
    kind: Literal["abort", "pause", "resume", "promote", "approve"],
    *,
    by: str,
    reason: str,
    now: datetime,
) -> Advanced:
    """What a person or a program asks of the rollout. Raises `Conflict` where it cannot be done in this phase."""
    because = f"{by}: {reason}" if reason else by
    if kind == "abort" and state.phase in {*UNDECIDED, "promoting"}:
        return roll_back(state, f"aborted by {because}", {}, to_ms(now))
    if kind == "promote" and state.phase == "shadowing":
        reason = f"its copies are enough for {because}; promoted again it gets all requests"
        return after_copies(state, reason, {"by": by}, to_ms(now))
    if kind == "promote" and state.phase == "canary":
        return promote(state, f"promoted by hand by {because}", {"by": by}, to_ms(now))
    if kind == "approve" and state.phase == "awaiting-approval":
        return _approved(state, because, to_ms(now))
    if kind == "pause" and state.phase in UNDECIDED and not state.paused:
        return told(changed(state, paused=True), "pause", f"paused at {state.weight} % by {because}", {})
    if kind == "resume" and state.paused:
        return told(changed(state, paused=False), "resume", f"resumed at {state.weight} % by {because}", {})
    stands = f"{state.phase}{', paused' if state.paused else ''}"
    first = {"starting": "it must be ready first", "awaiting-approval": "`tidemill rollout approve` comes first"}
    hint = (first.get(state.phase) if kind == "promote" else None) or "see `tidemill rollout status`"
    raise Conflict(f"the rollout of {state.plan.candidate.name} is {stands}: nothing to {kind}", hint=hint)


def progress(state: RolloutState, evidence: Evidence | None) -> dict[str, float | int | str | None]:
    """How it stands, for people: phase, share, the verdict so far with its reason and figures."""
    told: dict[str, float | int | str | None] = {"phase": state.phase, "weight": state.weight, "reason": state.reason}
    if state.phase in {"shadowing", "canary"} and evidence is not None:
        is_shadow = state.phase == "shadowing"
        verdict = judge_copies(state.plan, evidence) if is_shadow else judge(state.plan, evidence, state.step)
        told |= verdict.figures | {"verdict": verdict.kind, "reason": verdict.reason}
    return told


def _starting(state: RolloutState, observation: Observation, now: int) -> Advanced:
    plan = state.plan
    seen = observation.traffic.revision(plan.candidate.name)
    if seen is not None and seen.failed:
        return roll_back(state, f"the server of {plan.candidate.name} cannot start: {seen.failed}", {}, now)
    if seen is None or not seen.ready:
        return _wait_until_ready(state, now)
    if state.paused:
        return state, ()
    if plan.champion is None or (plan.weights[0] == 100 and not plan.approval and not plan.shadow):
        reason = "there is nothing to compare it with" if plan.champion is None else "the only step is 100 %"
        reason = plan.reverts or reason
        return promote(state, f"{plan.candidate.name} is ready and {reason}", {}, now)
    if plan.approval:
        reason = f"{plan.candidate.name} is ready and waits for a person: `tidemill rollout approve`, or abort"
        return told(changed(state, phase="awaiting-approval", phase_since=now), "await-approval", reason, {})
    if plan.shadow:
        return copied(state, "shadow", f"{plan.candidate.name} is ready", now)
    figures = {"weight": plan.weights[0], "ready_after_s": (now - plan.started_at) / 1000}
    return told(
        changed(state, phase="canary", phase_since=now, judged_since=now),
        "set-traffic",
        f"{plan.candidate.name} is ready: it is to get {plan.weights[0]} %",
        figures,
    )


def _awaiting(state: RolloutState, observation: Observation, now: int) -> Advanced:
    """Nothing moves until a person has decided; a candidate whose server fails meanwhile is over."""
    state, found = fault(state, observation.traffic, now)
    return roll_back(state, found.reason, found.figures, now) if found else (state, ())


def _approved(state: RolloutState, by: str, now: int) -> Advanced:
    waited = (now - state.phase_since) / 1000
    figures = {"weight": state.plan.weights[0], "waited_s": waited}
    if state.plan.shadow:
        return copied(state, "approve", f"approved by {by}", now)
    if state.plan.weights[0] == 100:
        return promote(state, f"approved by {by}, and the only step is 100 %", figures, now)
    state = changed(state, phase="canary", phase_since=now, judged_since=now)
    return told(state, "approve", f"approved by {by}: it is to get {state.plan.weights[0]} %", figures)


def _wait_until_ready(state: RolloutState, now: int) -> Advanced:
    plan = state.plan
    if now - state.phase_since < plan.ready_within_ms:
        return state, ()
    waited = f"{plan.candidate.name} was not ready within {plan.ready_within_ms / 1000:g} s"
    return roll_back(state, waited, {}, now)


def _canary(state: RolloutState, observation: Observation, now: int) -> Advanced:
    state, found = fault(state, observation.traffic, now)
    if found:
        return roll_back(state, found.reason, found.figures, now)
    state, moves = _watch_share(state, observation, now)
    verdict = judge(state.plan, observation.evidence, state.step) if observation.evidence else None
    decided, more = by_verdict(state, verdict, partial(_move_on, now=now), now)
    return decided, (*moves, *more)


def _watch_share(state: RolloutState, observation: Observation, now: int) -> Advanced:
    """Open a span when the step's share is seen, close it when it is no longer."""
    weight = state.plan.weights[state.step]
    seen = observation.traffic.revision(state.plan.candidate.name)
    holds = seen is not None and seen.ready and seen.share == weight
    return watch_span(state, holds, lambda: _begin_span(state, observation, now), now)


def _begin_span(state: RolloutState, observation: Observation, now: int) -> Advanced:
    weight = state.plan.weights[state.step]
    again = any(span.step == state.step for span in state.spans)
    state = begun(state, Span(step=state.step, weight=weight, since=now), observation)
    reason = f"{weight} % of the requests {'go again' if again else 'now go'} to {state.plan.candidate.name}"
    return told(state, "step-began", reason, {"step": state.step, "weight": weight, "since": now})


def _move_on(state: RolloutState, verdict: Verdict, now: int) -> Advanced:
    if verdict.kind == "promote":
        return promote(state, verdict.reason, verdict.figures, now)
    return _go_on(state, verdict.reason, verdict.figures, now)


def _go_on(state: RolloutState, reason: str, figures: dict[str, Any], now: int) -> Advanced:
    step = state.step + 1
    state = changed(closed(state, now), step=step)
    weight = state.plan.weights[step]
    return told(state, "go-on", f"on to {weight} %: {reason}", figures | {"weight": weight})


def _promoting(state: RolloutState, observation: Observation, now: int) -> Advanced:
    state, found = fault(state, observation.traffic, now)
    if found:
        return roll_back(state, found.reason, found.figures, now)
    candidate = state.plan.candidate
    seen = observation.traffic.revision(candidate.name)
    if seen is None or not seen.ready or seen.share != 100:
        return _wait_until_ready(state, now)
    state = changed(state, phase="done", phase_since=now, result="promoted")
    figures = state.figures | {
        "weight": 100,
        "artifact": candidate.artifact,
        "previous": state.plan.champion.name if state.plan.champion and not state.plan.reverts else None,
        "took_s": (now - state.plan.started_at) / 1000,
    }
    return told(state, "promote", f"all requests now go to {candidate.name}: {state.reason}", figures)


def _rolling_back(state: RolloutState, observation: Observation, now: int) -> Advanced:
    plan, traffic = state.plan, observation.traffic
    candidate = traffic.revision(plan.candidate.name)
    if candidate is not None and candidate.share > 0:
        return state, ()
    champion: RevisionSeen | None = traffic.revision(plan.champion.name) if plan.champion else None
    if plan.champion is not None and (champion is None or champion.share != 100):
        return state, ()
    took = (now - state.phase_since) / 1000
    kept = f"all requests go to {plan.champion.name} again" if plan.champion else "nothing is served"
    state = changed(state, phase="done", phase_since=now, result="rolled back")
    return told(state, "rolled-back", f"{kept} after {took:.1f} s: {state.reason}", state.figures | {"took_s": took})


def _window_ms(per_second: float | None, first_weight: int, timeout_ms: int) -> int:
    """Long enough for two requests of the smaller arm, short enough to compare like with like."""
    if per_second is None:
        return 10_000
    wait_s = 2 / (per_second * min(first_weight, 50) / 100)
    longest_s = max(1.0, min(3600.0, timeout_ms / 20_000))
    return round(min(max(1.0, wait_s), longest_s)) * 1000
