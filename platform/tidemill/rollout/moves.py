"""What the phases of a rollout have in common: how a move is told, how spans begin and end, where a verdict leads."""

from collections.abc import Callable
from typing import Any

import msgspec

from tidemill.rollout.guard import is_fast_enough
from tidemill.rollout.plan import Span
from tidemill.rollout.state import Counters, Move, Observation, RolloutState, wanted
from tidemill.rollout.verdict import Verdict

__all__ = [
    "SETTLE_MS",
    "Advanced",
    "begun",
    "by_verdict",
    "changed",
    "closed",
    "promote",
    "roll_back",
    "told",
    "watch_span",
]

SETTLE_MS = 10_000
"""What is left out before a share was seen to be lost, and after copies were first seen: nobody knows since when it
was, or whether all of the proxy's workers make them."""

Advanced = tuple[RolloutState, tuple[Move, ...]]


def watch_span(state: RolloutState, holds: bool, begin: Callable[[], Advanced], now: int) -> Advanced:
    """Open a span (`begin`) when what was asked for is seen to hold, close it when it does no longer."""
    is_open = bool(state.spans) and state.spans[-1].until is None
    if holds and not is_open:
        return begin()
    return (_interrupted(state, now) if not holds and is_open else state), ()


def by_verdict(
    state: RolloutState, verdict: Verdict | None, go: Callable[[RolloutState, Verdict], Advanced], now: int
) -> Advanced:
    """Where the verdict leads; `go` takes one that lets the rollout move on. None: no outcomes could be read."""
    plan = state.plan
    over = now - (state.judged_since or plan.started_at) >= plan.timeout_ms
    if verdict is None:
        return _timed_out(state, "no outcomes could be read", now) if over else (state, ())
    if verdict.kind == "roll back":
        return roll_back(state, verdict.reason, verdict.figures, now)
    if over:
        return _timed_out(state, verdict.reason, now)
    if verdict.kind == "hold":
        return _hold(state, verdict.about, verdict.reason, verdict.figures)
    state = changed(state, held=None)
    if state.paused or verdict.kind == "inconclusive" or not is_fast_enough(state, now):
        return state, ()
    return go(state, verdict)


def _timed_out(state: RolloutState, reason: str, now: int) -> Advanced:
    """The phase has taken as long as it may: what the plan says of that."""
    plan = state.plan
    text = f"no verdict within {plan.timeout_ms / 1000:g} s ({reason})"
    if plan.on_timeout == "rollBack":
        return roll_back(state, text, {}, now)
    return _hold(state, "timeout", text, {})


def _hold(state: RolloutState, about: str, reason: str, figures: dict[str, Any]) -> Advanced:
    """Stay where it is; told once for each thing it is about."""
    if state.held == about:
        return state, ()
    return told(changed(state, held=about), "hold", f"held at {state.weight} %: {reason}", figures)


def promote(state: RolloutState, reason: str, figures: dict[str, Any], now: int) -> Advanced:
    """Decide that all requests are to go to the candidate."""
    state = changed(closed(state, now), phase="promoting", phase_since=now, reason=reason, figures=figures)
    return told(state, "set-traffic", f"to 100 %: {reason}", figures | {"weight": 100})


def roll_back(state: RolloutState, reason: str, figures: dict[str, Any], now: int) -> Advanced:
    """Decide that the candidate is to get nothing more."""
    at = state.weight
    state = changed(closed(state, now), phase="rolling-back", phase_since=now, reason=reason, figures=figures)
    return told(state, "roll-back", f"from {at} % to 0: {reason}", figures | {"weight": at})


def closed(state: RolloutState, now: int) -> RolloutState:
    """The open span, if there is one, ends now."""
    if not state.spans or state.spans[-1].until is not None:
        return state
    last = state.spans[-1]
    return changed(state, spans=(*state.spans[:-1], msgspec.structs.replace(last, until=max(last.since, now))))


def _interrupted(state: RolloutState, now: int) -> RolloutState:
    """The open span ends before now: nobody knows when what was asked for was no longer so."""
    last = state.spans[-1]
    until = max(last.since, now - min(state.plan.age_ms, SETTLE_MS))
    return changed(state, spans=(*state.spans[:-1], msgspec.structs.replace(last, until=until)))


def begun(state: RolloutState, span: Span, observation: Observation) -> RolloutState:
    """A span begins; with the first of its phase, the count of errors."""
    state = changed(state, spans=(*state.spans, span))
    if state.candidate_before is not None or state.plan.champion is None:
        return state
    traffic = observation.traffic
    return changed(
        state,
        candidate_before=Counters.of(traffic.revision(state.plan.candidate.name)),
        champion_before=Counters.of(traffic.revision(state.plan.champion.name)),
    )


def told(state: RolloutState, kind: str, reason: str, figures: dict[str, Any]) -> Advanced:
    """The state, and one move that leads to it."""
    number = state.moves + 1
    state = changed(state, moves=number)
    return state, (Move(number=number, kind=kind, reason=reason, figures=figures, wanted=wanted(state)),)


def changed(state: RolloutState, **changes: Any) -> RolloutState:
    """The state with parts replaced."""
    return msgspec.structs.replace(state, **changes)
