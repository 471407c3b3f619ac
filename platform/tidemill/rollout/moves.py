"""What the phases of a rollout have in common: how a move is told, how spans end, and where a rollout may go."""

from typing import Any

import msgspec

from tidemill.rollout.plan import Span
from tidemill.rollout.state import Counters, Move, Observation, RolloutState, wanted

__all__ = [
    "SETTLE_MS",
    "Advanced",
    "begun",
    "changed",
    "closed",
    "hold",
    "interrupted",
    "promote",
    "roll_back",
    "timed_out",
    "told",
]

SETTLE_MS = 10_000
"""What is left out before a share was seen to be lost, and after copies were first seen: nobody knows since when it
was, or whether all of the proxy's workers make them."""

Advanced = tuple[RolloutState, tuple[Move, ...]]


def timed_out(state: RolloutState, reason: str, now: int) -> Advanced:
    """The phase has taken as long as it may: what the plan says of that."""
    plan = state.plan
    text = f"no verdict within {plan.timeout_ms / 1000:g} s ({reason})"
    if plan.on_timeout == "rollBack":
        return roll_back(state, text, {}, now)
    return hold(state, "timeout", text, {})


def hold(state: RolloutState, about: str, reason: str, figures: dict[str, Any]) -> Advanced:
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


def interrupted(state: RolloutState, now: int) -> RolloutState:
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
