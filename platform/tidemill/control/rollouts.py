"""A proposed version and its way to the traffic: starting the rollout, moving it, and what its end means.

How a rollout goes is `tidemill.rollout.machine`'s; here it meets the loop: who may propose, what people ask of
it, and which version is champion afterwards.
"""

from typing import Any, Literal, cast

import msgspec

from tidemill.control.grants import end_run, gate_verdicts, holds_grant, unanswered
from tidemill.control.state import Drift, Run, Version
from tidemill.control.turn import Turn
from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict
from tidemill.events.records import Request
from tidemill.events.sources import Source
from tidemill.rollout import machine
from tidemill.rollout.late import LateEvidence, RolloutWatch, watch_of
from tidemill.rollout.machine import Move, Observation, RolloutState
from tidemill.rollout.plan import REQUEST
from tidemill.rollout.power import too_few_keys
from tidemill.rollout.state import decided
from tidemill.spec.quantities import format_duration

__all__ = ["ask_rollout", "move_traffic", "propose", "revert", "watch_promotion"]


def propose(turn: Turn, request: Request) -> Turn:
    """A run proposes its version: with a good token, the rollout starts."""
    if refusal := holds_grant(turn, request):
        return turn.say("refuse", request.request_id, refusal, answers=request)
    artifact, run = str(request.arguments.get("artifact") or ""), turn.status.run
    if run is None or run.grant is None or not artifact:
        return turn.say("refuse", request.request_id, "the proposal names no artifact", answers=request)
    champion = turn.status.champion
    # Of copies the first version, too: its server would believe a header that nothing there takes off requests.
    if refusal := (_cannot_be_keyed(turn) if champion else None) or _cannot_be_copied(turn):
        return turn.say("refuse", request.request_id, refusal, answers=request)
    version = Version(
        version=str(request.arguments.get("version") or run.run),
        artifact=artifact,
        since=turn.now_ms,
        data_until=run.grant.granted_at,
    )
    plan = _plan(turn, version, champion)
    power = machine.power_of(turn.resource, turn.observed.history) if champion else None
    state, (first, *others) = machine.start(plan, power)
    first = _with_cause(first, run, gate_verdicts(request))
    turn = _end_watch(turn, f"{version.version} is the next candidate")
    turn = end_run(turn).change(candidate=version, outcomes=turn.observed.outcomes_read)
    return _moved(turn, state, (first, *others), answers=request)


def _cannot_be_keyed(turn: Turn) -> str | None:
    """Why keys cannot be assigned and counted as `rollout.cohorts` says; None where they can, or are not to be."""
    key = turn.resource.spec.rollout.cohorts.key
    if key == REQUEST or turn.observed.sticky:
        return too_few_keys(turn.resource, turn.observed.history)
    return f"rollout.cohorts.key is {key}, but the traffic driver keeps no key on its version: set it to {REQUEST}"


def _cannot_be_copied(turn: Turn) -> str | None:
    """Why the candidate cannot get copies as `rollout.shadow` says; None where it can, or is not to."""
    if not turn.resource.spec.rollout.shadow or turn.observed.mirrors:
        return None
    return (
        "rollout.shadow: the traffic driver here sends no copies of requests: leave it out, or let the gateway driver "
        "move the traffic (it needs Gateway API and the setting gateway)"
    )


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


def revert(turn: Turn, request: Request) -> Turn:
    """A person or a program wants the version before back."""
    reason = str(request.arguments.get("reason") or "")
    if turn.status.rollout is not None:
        busy = f"a rollout is under way: {turn.status.rollout.plan.candidate.name}"
        hint = "abort it: its champion stays"
        return turn.say("refuse", request.request_id, busy, {"hint": hint}, answers=request)
    if turn.status.previous is None:
        return turn.say("refuse", request.request_id, "there is no version before this one", answers=request)
    return _bring_back(turn, f"asked for by {request.by}" + (f": {reason}" if reason else ""), {}, answers=request)


def watch_promotion(turn: Turn) -> Turn:
    """Judge the last rollout once more, as labels come late; bring back the version before if it was better."""
    watching, late = turn.status.watching, turn.observed.late
    if watching is None or turn.status.rollout is not None or turn.resource.spec.paused:
        return turn
    if late is not None and late.harm.reached(watching.plan.risk):
        figures = {
            "e_roll_back": min(late.harm.peak, 1e300),
            "e_needed": 1 / watching.plan.risk,
            "margin": watching.plan.margin,
            "blocks": late.blocks,
            "changed": late.changed,
        }
        if turn.status.previous is None:
            return _end_watch(turn, f"{late.words()}; but the version before is gone")
        return _bring_back(turn, late.words(), figures)
    return _end_of_watch(turn, watching, late)


def _end_of_watch(turn: Turn, watching: RolloutWatch, late: LateEvidence | None) -> Turn:
    """It ends with its time, once all is judged.

    Its cells are told by later outcomes: while none come it waits as long again, as they may have been held up.
    """
    if turn.now_ms < watching.until:
        return turn
    if late is not None and late.complete:
        said = late.words() if late.blocks else "no outcomes of both versions to judge again"
        return _end_watch(turn, f"it is over, and the promotion stands: {said}")
    # Where little is asked, the last cells are closed by nothing but time.
    given_up = watching.until + max(watching.until - watching.since, 2 * watching.plan.window_ms)
    if turn.now_ms < given_up:
        return turn
    said = f"not all was judged again, as no outcomes came by which to tell their age{_so_far(late)}"
    return _end_watch(turn, f"it is over, and the promotion stands: {said}")


def _so_far(late: LateEvidence | None) -> str:
    return f"; {late.words()}" if late is not None and late.blocks else ""


def move_traffic(turn: Turn) -> Turn:
    """Let the rollout take its next steps, as far as what is seen allows."""
    rollout, traffic = turn.status.rollout, turn.observed.traffic
    if rollout is None or traffic is None:
        return turn
    undecided = rollout.phase in machine.UNDECIDED and not rollout.plan.reverts
    if turn.resource.spec.paused and undecided:
        return turn  # what was decided before, a revert too, is still brought to its end
    state, moves = machine.advance(rollout, Observation(traffic=traffic, evidence=turn.observed.evidence), turn.now)
    return _moved(turn, state, moves)


def _moved(turn: Turn, state: RolloutState, moves: tuple[Move, ...], *, answers: Request | None = None) -> Turn:
    """The turn after these moves: the first of them answers the request, if there is one."""
    candidate = state.plan.candidate.name
    for move in moves:
        name = (state.plan.rollout, move.number)
        turn = turn.say(move.kind, candidate, move.reason, move.figures, answers=answers, name=name)
        answers = None
    turn = turn.change(rollout=state, traffic=decided(state))
    return _ended(turn, state) if state.phase == "done" else turn


def _ended(turn: Turn, state: RolloutState) -> Turn:
    """The rollout is over: the candidate is champion now, or is not; the cooldown counts from here."""
    candidate, champion = turn.status.candidate, turn.status.champion
    turn = turn.change(rollout=None, candidate=None, quiet_from=turn.now_ms)
    if state.result != "promoted" or candidate is None:
        return unanswered(turn)
    # What was brought back has nothing before it: the version that it replaced was worse.
    has_previous = champion is not None and not state.plan.reverts
    previous = msgspec.structs.replace(champion, since=turn.now_ms) if champion and has_previous else None
    # The detectors start anew against the reference of the version that serves now.
    champion = msgspec.structs.replace(candidate, since=turn.now_ms)
    turn = turn.change(champion=champion, previous=previous, drift=Drift())
    return _begin_watch(turn, state) if has_previous else turn


def _begin_watch(turn: Turn, state: RolloutState) -> Turn:
    declared = turn.resource.spec.rollout.watch
    if declared is None or not state.shares:
        return turn
    length = min(declared.for_, turn.resource.spec.labels.maturity.horizon)
    found = turn.observed.evidence
    watching = watch_of(
        state.plan,
        state.shares,
        now=turn.now_ms,
        length_ms=to_ms(length),
        requests=found.candidate.requests + found.champion.requests if found else 0,
    )
    plan = state.plan
    reason = f"labels that come within {format_duration(length)} may still bring back "
    reason += plan.champion.name if plan.champion else "nothing"
    figures = {"since": watching.since, "until": watching.until, "share": watching.share}
    turn = turn.change(watching=watching)
    return turn.say("watch-began", plan.candidate.name, reason, figures, name=(plan.rollout, "watch-began"))


def _end_watch(turn: Turn, reason: str) -> Turn:
    watching = turn.status.watching
    if watching is None:
        return turn
    plan = watching.plan
    turn = turn.change(watching=None)
    return turn.say("watch-ended", plan.candidate.name, reason, name=(plan.rollout, "watch-ended"))


def _bring_back(turn: Turn, because: str, figures: dict[str, Any], *, answers: Request | None = None) -> Turn:
    """A rollout of the version before, straight to all requests. A run in flight is ended: it began from the other."""
    bad, previous, run = turn.status.champion, turn.status.previous, turn.status.run
    if bad is None or previous is None:
        raise AssertionError("there is nothing to bring back")
    turn = turn.say("revert", bad.version, f"{previous.version} is brought back: {because}", figures, answers=answers)
    turn = _end_watch(turn, f"{previous.version} is brought back")
    if run is not None:
        reason = f"ended, because {previous.version} is brought back"
        turn = end_run(turn).change(stopping=(*turn.status.stopping, run.run))
        turn = turn.say("run-failed", run.run, reason, {"step": run.step, "stopped": True})
    plan = _plan(turn, previous, bad, reverts=because)
    state, moves = machine.start(plan)
    return _moved(turn.change(candidate=previous, outcomes=turn.observed.outcomes_read), state, moves)


def _plan(turn: Turn, candidate: Version, champion: Version | None, *, reverts: str = "") -> machine.RolloutPlan:
    """The plan of a rollout that starts in this turn."""
    return machine.plan_for(
        turn.resource,
        candidate=machine.Version(candidate.version, candidate.artifact),
        champion=machine.Version(champion.version, champion.artifact) if champion else None,
        offsets={Source.parse(text).partition: at for text, at in turn.observed.outcomes_read.items()},
        now=turn.now,
        history=turn.observed.history,
        copies=turn.observed.copies_read,
        reverts=reverts,
    )


def _with_cause(move: Move, run: Run, gates: Any) -> Move:
    """The start of a rollout with the run that it comes from, and what its gates said."""
    skipped = f"; its gates were skipped, as {run.by} asked" if run.skip_gates else ""
    figures = move.figures | {"run": run.run, "cause": run.cause, "skip_gates": run.skip_gates, "gates": gates}
    return msgspec.structs.replace(move, reason=move.reason + skipped, figures=figures)
