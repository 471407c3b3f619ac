"""When to retrain, and why not now.

A run starts when enough of the declared triggers have a cause (`tidemill.control.causes`) and nothing stands against
it (`tidemill.control.hindrances`); each says in words and figures what it saw, or what it still waits for.
"""

from datetime import datetime

from tidemill.control.causes import Found, Known, causes, first_version, needed_together, together
from tidemill.control.grants import start_run
from tidemill.control.hindrances import against_request, hindrances
from tidemill.control.state import LoopStatus
from tidemill.control.turn import Turn
from tidemill.events.records import Request
from tidemill.spec.model import ContinualModel

__all__ = ["retrain", "start_due_run", "why_not_now"]


def retrain(turn: Turn, request: Request) -> Turn:
    """A person or a program asks for a run: the cooldown is skipped, and with `force` all but another run."""
    if turn.busy:
        return turn.say("refuse", request.request_id, turn.busy, answers=request)
    if refusal := against_request(turn, request):
        hint = {"hint": "--force starts it anyway"}
        return turn.say("refuse", request.request_id, refusal, hint, answers=request)
    said = str(request.arguments.get("reason") or "no reason was given")
    since = min((signal.since or signal.time for signal in turn.status.drift.pending), default=None)
    figures = {"labelled": turn.observed.labelled}
    return start_run(turn, "manual", f"asked for by {request.by}: {said}", figures, since=since, by=request)


def start_due_run(turn: Turn) -> Turn:
    """Start a run if there is cause enough and nothing stands against it."""
    if turn.busy or any(hindrances(turn.resource, turn.status, turn.now)):
        return turn
    observed = turn.observed
    known = Known(turn.resource, turn.status, turn.now, observed.labelled, observed.new_classes)
    found, _ = _looked(known)
    if found is None:
        return turn
    return start_run(turn, found.cause, found.reason, found.figures, since=found.since)


def why_not_now(resource: ContinualModel, status: LoopStatus, now: datetime) -> tuple[str, ...]:
    """The reasons why no run starts now, in words; empty only if one starts at the next tick."""
    if status.run is not None:
        return (f"run {status.run.run} is under way ({status.run.cause}: {status.run.reason})",)
    if status.candidate is not None:
        return (f"candidate {status.candidate.version} is being rolled out",)
    against = tuple(hindrances(resource, status, now))
    found, told = _looked(Known(resource, status, now, status.seen.labelled, status.seen.new_classes))
    if found is not None and not against:
        return ()
    return (*against, *told)


def _looked(known: Known) -> tuple[Found | None, tuple[str, ...]]:
    """The cause for which a run starts, if there is one, and what every trigger says, in words."""
    champion = known.status.champion
    if champion is None:
        first = first_version(known)
        return (first, (_told(first.reason),)) if isinstance(first, Found) else (None, (first.reason,))
    looked, needed = causes(known, champion), needed_together(known.triggers)
    if not looked:
        return None, ("nothing is declared that would start one (spec.triggers)",)
    found = {name: cause for name, cause in looked.items() if isinstance(cause, Found)}
    told = tuple(_told(cause.reason) if name in found else cause.reason for name, cause in looked.items())
    if needed > 1:
        told = (f"{needed} of {len(looked)} triggers must have a cause at the same time, {len(found)} has one", *told)
    return (together(found, needed) if len(found) >= needed else None), told


def _told(reason: str) -> str:
    return f"there is a cause: {reason}"
