"""The phase before the first share, in which the candidate answers copies of the requests. Pure.

Users are answered by the champion alone. Harm, a guard or a person ends the rollout here; what shows that the candidate
is not worse lets it have its first share. It is never promoted from here, but where the only step is all requests.
"""

from functools import partial
from typing import Any

from tidemill.rollout.guard import fault
from tidemill.rollout.moves import (
    SETTLE_MS,
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
from tidemill.rollout.plan import SHADOW, Span
from tidemill.rollout.state import Observation, RolloutState
from tidemill.rollout.verdict import Verdict, judge_copies

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
    verdict = judge_copies(state.plan, observation.evidence) if observation.evidence else None
    decided, more = by_verdict(state, verdict, partial(_first_share, now=now), now)
    return decided, (*moves, *more)


def _watch_copies(state: RolloutState, observation: Observation, now: int) -> Advanced:
    """Open a span when copies are seen to be made and the candidate answers nobody else, close it when not."""
    name = state.plan.candidate.name
    seen = observation.traffic.revision(name)
    holds = seen is not None and seen.ready and seen.share == 0 and observation.traffic.mirror == name

    def begin() -> Advanced:
        since = now + min(state.plan.age_ms, SETTLE_MS)
        began = begun(state, Span(step=SHADOW, weight=0, since=since), observation)
        reason = f"copies of the requests {'go again' if state.spans else 'now go'} to {name}"
        return told(began, "shadow-began", reason, {"step": SHADOW, "weight": 0, "since": since})

    return watch_span(state, holds, begin, now)


def _first_share(state: RolloutState, verdict: Verdict, now: int) -> Advanced:
    return after_copies(state, verdict.reason, verdict.figures, now)


def after_copies(state: RolloutState, reason: str, figures: dict[str, Any], now: int) -> Advanced:
    """On to the first share; where the only one is all requests, that is the promotion."""
    weight = state.plan.weights[0]
    state = changed(state, candidate_before=None, champion_before=None, slow_at=None, slow_ms=0, held=None)
    if weight == 100:
        return promote(state, f"the only step is 100 %: {reason}", figures, now)
    state = changed(closed(state, now), phase="canary", phase_since=now, judged_since=now)
    return told(state, "set-traffic", f"from copies to {weight} %: {reason}", figures | {"weight": weight})
