"""The phase before the first share, in which the candidate answers copies of the requests. Pure.

Users are answered by the champion alone. Harm, a guard or a person ends the rollout here; what shows that the candidate
is not worse lets it have its first share. It is never promoted from here, but where the only step is all requests.
"""

from typing import Any

from tidemill.rollout.cells import Evidence
from tidemill.rollout.guard import fault, is_fast_enough
from tidemill.rollout.moves import (
    SETTLE_MS,
    Advanced,
    begun,
    changed,
    closed,
    hold,
    interrupted,
    promote,
    roll_back,
    timed_out,
    told,
)
from tidemill.rollout.plan import SHADOW, Span
from tidemill.rollout.state import Observation, RolloutState
from tidemill.rollout.verdict import judge_copies

__all__ = ["after_copies", "copied", "shadowing"]


def copied(state: RolloutState, kind: str, because: str, now: int) -> Advanced:
    """Ask for copies."""
    state = changed(state, phase="shadowing", phase_since=now, judged_since=now)
    return told(state, kind, f"{because}: it is to answer copies of the requests, which no user sees", {"weight": 0})


def shadowing(state: RolloutState, observation: Observation, now: int) -> Advanced:
    """One look at the phase."""
    state, found = fault(state, observation.traffic, now)
    if found:
        return roll_back(state, found.reason, found.figures, now)
    state, moves = _watch_copies(state, observation, now)
    decided, more = _by_copies(state, observation.evidence, now)
    return decided, (*moves, *more)


def _watch_copies(state: RolloutState, observation: Observation, now: int) -> Advanced:
    """Open a span when copies are seen to be made and the candidate answers nobody else, close it when not."""
    name = state.plan.candidate.name
    seen = observation.traffic.revision(name)
    holds = seen is not None and seen.ready and seen.share == 0 and observation.traffic.mirror == name
    last = state.spans[-1] if state.spans else None
    is_open = last is not None and last.until is None
    if not holds:
        return (interrupted(state, now) if is_open else state), ()
    if is_open:
        return state, ()
    again = last is not None
    since = now + min(state.plan.age_ms, SETTLE_MS)
    state = begun(state, Span(step=SHADOW, weight=0, since=since), observation)
    reason = f"copies of the requests {'go again' if again else 'now go'} to {name}"
    return told(state, "shadow-began", reason, {"step": SHADOW, "weight": 0, "since": since})


def _by_copies(state: RolloutState, evidence: Evidence | None, now: int) -> Advanced:
    plan = state.plan
    over = now - (state.judged_since or plan.started_at) >= plan.timeout_ms
    if evidence is None:
        return timed_out(state, "no outcomes could be read", now) if over else (state, ())
    verdict = judge_copies(plan, evidence)
    if verdict.kind == "roll back":
        return roll_back(state, verdict.reason, verdict.figures, now)
    if over:
        return timed_out(state, verdict.reason, now)
    if verdict.kind == "hold":
        return hold(state, verdict.about, verdict.reason, verdict.figures)
    state = changed(state, held=None)
    if state.paused or verdict.kind == "inconclusive" or not is_fast_enough(state, now):
        return state, ()
    return after_copies(state, verdict.reason, verdict.figures, now)


def after_copies(state: RolloutState, reason: str, figures: dict[str, Any], now: int) -> Advanced:
    """On to the first share; where the only one is all requests, that is the promotion."""
    weight = state.plan.weights[0]
    state = changed(state, candidate_before=None, champion_before=None, slow_at=None, slow_ms=0, held=None)
    if weight == 100:
        return promote(state, f"the only step is 100 %: {reason}", figures, now)
    state = changed(closed(state, now), phase="canary", phase_since=now, judged_since=now)
    return told(state, "set-traffic", f"from copies to {weight} %: {reason}", figures | {"weight": weight})
