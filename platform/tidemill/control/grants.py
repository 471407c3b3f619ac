"""One run at a time: claims and grants, and what becomes of a run that has one.

A run may propose a version only with the token of a grant that is still good. The grant ends when the run says
that it is over, when its runner shows it ended or no longer shows it, or when it expires.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tidemill.control.hindrances import against_request, forced, kept_starts
from tidemill.control.protocols import RunSeen
from tidemill.control.schedule import answered
from tidemill.control.signals import newest, said_once
from tidemill.control.state import Cause, Grant, Run
from tidemill.control.turn import Turn
from tidemill.core.clock import from_ms, to_ms
from tidemill.core.ids import deterministic_id
from tidemill.events.records import Request
from tidemill.spec.quantities import format_duration

__all__ = ["claim", "end_run", "failed", "finished", "follow_run", "holds_grant", "next_run", "start_run", "unanswered"]

GRANT_FOR = timedelta(hours=12)
"""A backstop for runs that no runner shows; the others end with what their runner shows."""
WORD_WITHIN = timedelta(seconds=5)
"""How long a run that its runner shows as over may take until its own word arrives through the log."""
CLAIM_WITHIN = timedelta(minutes=5)
"""How long a run that was started may stay unseen by its runner and without a claim."""

_RUN_ID = "r%Y%m%d-%H%M%S"
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def next_run(turn: Turn) -> str:
    """The id of a run that starts now: `r<yyyymmdd>-<hhmmss>`, later than every one before it."""
    at = turn.now
    if turn.status.last_run:
        # Two runs within a second, or a clock that was set back, must not share an id.
        last = datetime.strptime(turn.status.last_run, _RUN_ID).replace(tzinfo=UTC)
        at = max(at, last + timedelta(seconds=1))
    return at.strftime(_RUN_ID)


def start_run(
    turn: Turn,
    cause: Cause,
    reason: str,
    figures: dict[str, Any],
    *,
    since: int | None = None,
    by: Request | None = None,
) -> Turn:
    """Decide that a run starts; the runner is asked for it once this is written. `by` is the request it answers."""
    arguments = by.arguments if by else {}
    run = Run(
        run=next_run(turn),
        cause=cause,
        reason=reason,
        started_at=turn.now_ms,
        by=by.by if by else "control",
        since=since,
        force=by is not None and forced(by),
        skip_gates=bool(arguments.get("skip_gates")),
        snapshot=str(arguments.get("snapshot") or ""),
        image=turn.resource.spec.model.image or "",
    )
    turn = _begun(turn, run).change(last_run=run.run)
    more = {"cause": cause, "by": run.by, "since": since, "force": run.force, "skip_gates": run.skip_gates}
    more |= {"snapshot": run.snapshot, "image": run.image}
    return turn.say("start-run", run.run, reason, figures | more, answers=by)


def claim(turn: Turn, request: Request) -> Turn:
    """Grant a run its right to propose, or refuse it because something else goes on."""
    name = str(request.arguments.get("run") or "")
    run = turn.status.run
    if run is None or run.run != name:
        if refusal := turn.busy or against_request(turn, request) or _unfit(turn, name):
            return turn.say("refuse", name or request.request_id, refusal, answers=request)
        run = _from_outside(turn, name, request)
        turn = _begun(turn, run)
    elif run.grant is not None and run.grant.claim not in {"", request.request_id}:
        # A second pipeline run of the same name: one that asks again has the same request.
        return turn.say("refuse", name, f"already running: {name}", answers=request)
    token = deterministic_id(turn.resource.id, name, request.request_id, turn.now_ms)
    expires_at = to_ms(turn.now + GRANT_FOR)
    claimed = request.request_id
    grant = run.grant or Grant(token=token, granted_at=turn.now_ms, expires_at=expires_at, claim=claimed)
    turn = turn.change(run=msgspec.structs.replace(run, grant=grant))
    return turn.say("grant", name, f"nothing else runs; {run.reason}", _terms(turn, run, grant), answers=request)


def holds_grant(turn: Turn, request: Request) -> str | None:
    """Why the run that makes this request may not; None if it holds the grant."""
    name, run = str(request.arguments.get("run") or ""), turn.status.run
    if run is None or run.run != name:
        return f"{name or 'a run without a name'} holds no grant" + (f"; {run.run} does" if run else "")
    if run.grant is None or run.grant.token != request.arguments.get("token"):
        return f"the token of {name} is not the one it was granted"
    if run.grant.expires_at <= turn.now_ms:
        return f"the grant of {name} expired at {from_ms(run.grant.expires_at):%Y-%m-%d %H:%M:%S} UTC"
    return None


def failed(turn: Turn, request: Request) -> Turn:
    """A run says that it failed."""
    if refusal := holds_grant(turn, request):
        return turn.say("refuse", request.request_id, refusal, answers=request)
    step = str(request.arguments.get("step") or "a step")
    error = str(request.arguments.get("error") or "no reason was given")
    figures = {"step": step, "error": error}
    name = str(request.arguments["run"])
    return _fail_run(turn).say("run-failed", name, f"{step} failed: {error}", figures, answers=request)


def finished(turn: Turn, request: Request) -> Turn:
    """A run says that it is over without a version to propose: its gates refused it."""
    if refusal := holds_grant(turn, request):
        return turn.say("refuse", request.request_id, refusal, answers=request)
    gates = gate_verdicts(request)
    reason = "no version is proposed" + (f": {refusals}" if (refusals := gates_in_words(gates)) else "")
    name = str(request.arguments["run"])
    return unanswered(end_run(turn)).say("run-finished", name, reason, {"gates": gates}, answers=request)


def follow_run(turn: Turn) -> Turn:
    """Notice what the run does not say itself: which step is at work, that it died, vanished or took too long."""
    run = turn.status.run
    if run is None:
        return _forget_stopped(turn)
    if run.grant and run.grant.expires_at <= turn.now_ms:
        reason = f"its grant expired after {format_duration(GRANT_FOR)}"
        stopping = (*turn.status.stopping, run.run)
        figures = {"step": run.step, "stopped": True}
        return _fail_run(turn).change(stopping=stopping).say("run-failed", run.run, reason, figures)
    if turn.observed.runs is None:
        return turn
    shown = next((seen for seen in turn.observed.runs if seen.run == run.run), None)
    run = _as_shown(turn, run, shown)
    if silence := _silent_end(turn, run, shown):
        return _fail_run(turn).say("run-failed", run.run, silence, {"step": run.step})
    return turn.change(run=run)


def end_run(turn: Turn) -> Turn:
    """No run is in flight any more; the cooldown counts from here unless a rollout follows."""
    return turn.change(run=None, quiet_from=turn.now_ms)


def unanswered(turn: Turn) -> Turn:
    """The champion stays: what the watch says of it only once is a cause again, after the cooldown."""
    drift = turn.status.drift
    pending = newest((*drift.pending, *said_once(drift.alarms)))
    return turn.change(drift=msgspec.structs.replace(drift, pending=pending))


def _fail_run(turn: Turn) -> Turn:
    """The run is over, and answered nothing."""
    return unanswered(end_run(turn))


def gate_verdicts(request: Request) -> list[Any]:
    """The gates' verdicts that a request carries as a JSON list; empty where it carries none that can be read."""
    try:
        found = json.loads(str(request.arguments.get("gates") or "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def gates_in_words(gates: list[Any]) -> str:
    """The reasons of the gates that refused."""
    verdicts = [gate for gate in gates if isinstance(gate, dict) and gate.get("passed") is False]
    return "; ".join(f"{gate.get('gate')}: {gate.get('reason')}" for gate in verdicts)


def _begun(turn: Turn, run: Run) -> Turn:
    """A run begins, whoever asked for it: it counts to the budget, and answers all that was pending or due.

    The latch keeps more from being added until its rollout ends.
    """
    status = turn.status
    return turn.change(
        run=run,
        drift=msgspec.structs.replace(status.drift, pending=()),
        schedule=answered(status.schedule, run.started_at),
        starts=kept_starts((*status.starts, run.started_at), turn.resource),
    )


def _from_outside(turn: Turn, name: str, request: Request) -> Run:
    reason = str(request.arguments.get("reason") or "no reason was given")
    return Run(
        run=name,
        cause="pipeline",
        reason=reason,
        started_at=turn.now_ms,
        by=str(request.arguments.get("requested_by") or request.by),
        force=forced(request),
        skip_gates=bool(request.arguments.get("skip_gates")),
        ours=False,
    )


def _unfit(turn: Turn, name: str) -> str | None:
    """Why a run cannot have this name, which becomes its version's: part of paths, object names and topics."""
    if not _SAFE_NAME.fullmatch(name):
        return f"a run is named with lower-case letters, digits and dashes, not {name!r}"
    status = turn.status
    if name in status.stopping:
        return f"{name} has lost its right to run, and is being ended"
    if any(known and known.version == name for known in (status.champion, status.candidate, status.previous)):
        return f"version {name} exists already"
    return None


def _terms(turn: Turn, run: Run, grant: Grant) -> dict[str, Any]:
    """What a granted run needs to know; with it a lost status is rebuilt, too."""
    champion = turn.status.champion
    return {
        "token": grant.token,
        "expires_at": grant.expires_at,
        "champion": champion.version if champion else "",
        "champion_artifact": champion.artifact if champion else "",
        "since": run.since,
        "cause": run.cause,
        "reason": run.reason,
        "by": run.by,
        "force": run.force,
        "skip_gates": run.skip_gates,
        "started_at": run.started_at,
        "ours": run.ours,
    }


def _as_shown(turn: Turn, run: Run, shown: RunSeen | None) -> Run:
    """The run with what its runner shows of it."""
    if shown is None and not run.seen:
        return run
    if shown is None or shown.state in {"succeeded", "failed"}:
        step = shown.step if shown and shown.step else run.step
        return msgspec.structs.replace(run, seen=True, step=step, over_since=run.over_since or turn.now_ms)
    return msgspec.structs.replace(run, seen=True, step=shown.step or run.step, over_since=None)


def _silent_end(turn: Turn, run: Run, shown: RunSeen | None) -> str | None:
    """Why the run is over although it has not said so; None while it may still be at work, or its word on the way."""
    if not run.seen:
        late = run.ours and run.grant is None and turn.now_ms - run.started_at >= to_ms(CLAIM_WITHIN)
        return f"its runner did not show it within {format_duration(CLAIM_WITHIN)}" if late else None
    if run.over_since is None or turn.now_ms - run.over_since < to_ms(WORD_WITHIN):
        return None
    if shown is None:
        return "its runner no longer shows it"
    if shown.state == "failed":
        return f"{shown.step or 'the run'} failed: {shown.error or 'no reason was given'}"
    return "it ended without a word to control"


def _forget_stopped(turn: Turn) -> Turn:
    """A run that was to be ended is forgotten once its runner shows that it is over."""
    if not turn.status.stopping or turn.observed.runs is None:
        return turn
    alive = {seen.run for seen in turn.observed.runs if seen.state in {"pending", "running"}}
    stopping = tuple(run for run in turn.status.stopping if run in alive)
    return turn if stopping == turn.status.stopping else turn.change(stopping=stopping)
