"""A proposed version and its way to the traffic: starting the rollout, moving it, and what its end means.

How a rollout goes is `tidemill.rollout.machine`'s; here it meets the loop: who may propose, what people ask of
it, and which version is champion afterwards.
"""

from typing import Any, Literal, cast

import msgspec

from tidemill.control.grants import end_run, gate_verdicts, holds_grant
from tidemill.control.state import Drift, Run, Version
from tidemill.control.turn import Turn
from tidemill.core.errors import Conflict
from tidemill.events.records import Request
from tidemill.events.sources import Source
from tidemill.rollout import machine
from tidemill.rollout.machine import Move, Observation, RolloutState

__all__ = ["ask_rollout", "move_traffic", "propose"]


def propose(turn: Turn, request: Request) -> Turn:
    """A run proposes its version: with a good token, the rollout starts."""
    if refusal := holds_grant(turn, request):
        return turn.say("refuse", request.request_id, refusal, answers=request)
    artifact, run = str(request.arguments.get("artifact") or ""), turn.status.run
    if run is None or run.grant is None or not artifact:
        return turn.say("refuse", request.request_id, "the proposal names no artifact", answers=request)
    champion = turn.status.champion
    version = Version(
        version=str(request.arguments.get("version") or run.run),
        artifact=artifact,
        since=turn.now_ms,
        data_until=run.grant.granted_at,
    )
    plan = machine.plan_for(
        turn.resource,
        candidate=machine.Version(version.version, version.artifact),
        champion=machine.Version(champion.version, champion.artifact) if champion else None,
        offsets={Source.parse(text).partition: at for text, at in turn.observed.outcomes_read.items()},
        now=turn.now,
        history=turn.observed.history,
    )
    state, (first, *others) = machine.start(plan)
    first = _with_cause(first, run, gate_verdicts(request))
    turn = end_run(turn).change(candidate=version, outcomes=turn.observed.outcomes_read)
    return _moved(turn, state, (first, *others), answers=request)


def ask_rollout(turn: Turn, request: Request) -> Turn:
    """A person or a program asks to approve, abort, pause, resume or promote the rollout under way."""
    rollout = turn.status.rollout
    if rollout is None:
        return turn.say("refuse", request.request_id, "no rollout is under way", answers=request)
    kind = cast('Literal["abort", "pause", "resume", "approve", "promote"]', request.kind)
    reason = str(request.arguments.get("reason") or "")
    try:
        state, moves = machine.asked(rollout, kind, by=request.by, reason=reason, now=turn.now)
    except Conflict as error:
        return turn.say("refuse", request.request_id, error.message, {"hint": error.hint}, answers=request)
    return _moved(turn, state, moves, answers=request)


def move_traffic(turn: Turn) -> Turn:
    """Let the rollout take its next steps, as far as what is seen allows."""
    rollout, traffic = turn.status.rollout, turn.observed.traffic
    if rollout is None or traffic is None:
        return turn
    if turn.resource.spec.paused and rollout.phase in {"starting", "awaiting-approval", "canary"}:
        return turn  # what was decided before is still brought to its end
    state, moves = machine.advance(rollout, Observation(traffic=traffic, evidence=turn.observed.evidence), turn.now)
    return _moved(turn, state, moves)


def _moved(turn: Turn, state: RolloutState, moves: tuple[Move, ...], *, answers: Request | None = None) -> Turn:
    """The turn after these moves: the first of them answers the request, if there is one."""
    candidate = state.plan.candidate.name
    for move in moves:
        name = (state.plan.rollout, move.number)
        turn = turn.say(move.kind, candidate, move.reason, move.figures, answers=answers, name=name)
        answers = None
    turn = turn.change(rollout=state, traffic=machine.wanted(state))
    return _ended(turn, state) if state.phase == "done" else turn


def _ended(turn: Turn, state: RolloutState) -> Turn:
    """The rollout is over: the candidate is champion now, or is not; the cooldown counts from here."""
    candidate, champion = turn.status.candidate, turn.status.champion
    turn = turn.change(rollout=None, candidate=None, quiet_from=turn.now_ms)
    if state.result != "promoted" or candidate is None:
        return turn
    previous = msgspec.structs.replace(champion, since=turn.now_ms) if champion else None
    # The detectors start anew against the reference of the version that serves now.
    return turn.change(champion=msgspec.structs.replace(candidate, since=turn.now_ms), previous=previous, drift=Drift())


def _with_cause(move: Move, run: Run, gates: Any) -> Move:
    """The start of a rollout with the run that it comes from, and what its gates said."""
    skipped = f"; its gates were skipped, as {run.by} asked" if run.skip_gates else ""
    figures = move.figures | {"run": run.run, "cause": run.cause, "skip_gates": run.skip_gates, "gates": gates}
    return msgspec.structs.replace(move, reason=move.reason + skipped, figures=figures)
