"""Guards: what the proxy and the server show at once, without waiting for a label.

A candidate that fails to answer leaves no prediction, hence no outcome: only the proxy sees it.
"""

from typing import Any, NamedTuple

import msgspec

from tidemill.rollout.driver import RevisionSeen, TrafficSeen
from tidemill.rollout.state import Counters, RolloutState

__all__ = ["Fault", "fault", "is_fast_enough"]

_LEAST_ERRORS = 5
"""Fewer failed requests may be those of one bad moment."""
_SLOW_MS = 10_000
"""A moment may be slow, as when the machine is busy; every look of so long is not one."""
_LOOK_MS = 5_000
"""A look vouches for this long before it: the proxy's interval."""
_UNREADY_MS = 10_000
"""A server that was ready may be restarted, or its machine be busy, for this long."""


class Fault(NamedTuple):
    """Why a rollout ends at once."""

    reason: str
    figures: dict[str, Any]


def fault(state: RolloutState, traffic: TrafficSeen, now: int) -> tuple[RolloutState, Fault | None]:
    """Whether the candidate's server fails; the state remembers since when it has not been ready."""
    plan = state.plan
    name = plan.candidate.name
    seen = traffic.revision(name)
    if seen is not None and seen.failed:
        return state, Fault(f"the server of {name} has failed: {seen.failed}", {})
    errors = _errors(state, traffic)
    if errors:
        return state, errors
    state, slow = _slow(state, seen, now)
    if slow:
        return state, slow
    if seen is not None and seen.ready:
        return msgspec.structs.replace(state, unready_since=None), None
    since = now if state.unready_since is None else state.unready_since
    champion = traffic.revision(plan.champion.name) if plan.champion else None
    if champion is None or not champion.ready:
        # Nothing is ready, as after a restart of the machine: that is not the candidate's fault.
        return msgspec.structs.replace(state, unready_since=None), None
    state = msgspec.structs.replace(state, unready_since=since)
    if now - since < _UNREADY_MS:
        return state, None
    return state, Fault(f"the server of {name} has not been ready for {(now - since) / 1000:.0f} s", {})


def is_fast_enough(state: RolloutState, now: int) -> bool:
    """Whether the guard of latencies, where there is one, lets a step end: it has looked for long, and sees no fault.

    Labels can be faster than that look: a candidate that is right, and too slow, must not be promoted meanwhile.
    """
    if state.plan.latency_guard_ms is None:
        return True
    since = state.spans[-1].since if state.spans else now
    return state.slow_at is None and state.slow_ms == 0 and now - since >= _SLOW_MS


def _slow(state: RolloutState, seen: RevisionSeen | None, now: int) -> tuple[RolloutState, Fault | None]:
    """Whether the candidate's answers have been too slow for long, in looks that showed some.

    A time without requests counts for nothing: it adds none, and what was seen before it is not forgotten.
    """
    limit = state.plan.latency_guard_ms
    found = seen.latency_p99_ms if seen is not None else None
    if limit is None or found is None:
        return msgspec.structs.replace(state, slow_at=None), None
    if found <= limit:
        return msgspec.structs.replace(state, slow_at=None, slow_ms=0), None
    took = 0 if state.slow_at is None else min(now - state.slow_at, _LOOK_MS)
    state = msgspec.structs.replace(state, slow_at=now, slow_ms=state.slow_ms + took)
    if state.slow_ms < _SLOW_MS:
        return state, None
    name = state.plan.candidate.name
    reason = f"99 % of the answers of {name} take up to {found:.0f} ms, for {state.slow_ms / 1000:.0f} s more than "
    reason += f"the {limit:g} ms of rollout.guards"
    return state, Fault(reason, {"latency_p99_ms": found, "latency_guard_ms": limit})


def _errors(state: RolloutState, traffic: TrafficSeen) -> Fault | None:
    plan = state.plan
    if state.candidate_before is None or state.champion_before is None or plan.champion is None:
        return None
    candidate = state.candidate_before.since(traffic.revision(plan.candidate.name))
    champion = state.champion_before.since(traffic.revision(plan.champion.name))
    if candidate.errors < _LEAST_ERRORS or candidate.error_share <= champion.error_share + plan.error_guard:
        return None
    return Fault(_words(plan.candidate.name, candidate, champion), _figures(candidate, champion))


def _words(name: str, candidate: Counters, champion: Counters) -> str:
    return (
        f"{candidate.errors} of {candidate.requests} requests to {name} failed ({candidate.error_share:.1%}), "
        f"of the champion's {champion.error_share:.1%}"
    )


def _figures(candidate: Counters, champion: Counters) -> dict[str, Any]:
    return {
        "requests": candidate.requests,
        "errors": candidate.errors,
        "error_share": candidate.error_share,
        "champion_error_share": champion.error_share,
    }
