"""The decision: from what is declared, known and observed to what is known next, with every reason.

`decide` is pure: no I/O, no clock, no randomness. What is to be done about it follows from the status
(`tidemill.control.effects`), never from the decisions, which are for people and programs to read. The same
function runs in the local loop, in the operator and in a backtest.
"""

from datetime import datetime
from typing import NamedTuple

from tidemill.control.grants import claim, failed, finished, follow_run
from tidemill.control.hindrances import note_agreement
from tidemill.control.rollouts import ask_rollout, move_traffic, propose, revert, watch_promotion
from tidemill.control.schedule import follow_schedule
from tidemill.control.signals import note_signals
from tidemill.control.state import LoopStatus, Phase
from tidemill.control.triggers import retrain, start_due_run
from tidemill.control.turn import Observed, Turn
from tidemill.core.clock import from_ms, to_ms
from tidemill.events.records import Decision
from tidemill.spec.model import ContinualModel

__all__ = ["Decided", "Observed", "decide", "new_status"]


_PRESSING = frozenset({"retrain", "claim", "abort", "pause", "resume", "approve", "promote", "revert"})
_STALE_MS = 10 * 60_000
"""Who asks waits for minutes at most. A request found later, after an outage, is about a world that is gone."""


class Decided(NamedTuple):
    """The next status, and what was decided on the way to it."""

    status: LoopStatus
    decisions: tuple[Decision, ...]


def new_status(now: datetime) -> LoopStatus:
    """The status of a model that is seen for the first time."""
    return LoopStatus(created_at=to_ms(now))


def decide(resource: ContinualModel, status: LoopStatus, observed: Observed, now: datetime) -> Decided:
    """One turn of the loop.

    Args:
        resource: what is declared.
        status: what is known; the outbox in it must have been published.
        observed: what was found since.
        now: the time, aware.

    Returns:
        The next status with the turn's decisions in its outbox; the same status where nothing has changed.
    """
    turn = Turn(resource=resource, status=status, observed=observed, now=now)
    turn = note_signals(turn)
    turn = note_agreement(turn)
    turn = follow_schedule(turn)
    turn = answer_requests(turn)
    turn = follow_run(turn)
    turn = move_traffic(turn)
    turn = watch_promotion(turn)
    turn = start_due_run(turn)
    turn = turn.change(
        phase=_phase(turn.status),
        requests=observed.requests_read or status.requests,
        signals=observed.signals_read or status.signals,
    )
    return Decided(turn.close(), turn.said)


def answer_requests(turn: Turn) -> Turn:
    """Answer each request once, in the order in which they were written."""
    answers = {
        "retrain": retrain,
        "claim": claim,
        "propose": propose,
        "failed": failed,
        "finished": finished,
        "abort": ask_rollout,
        "pause": ask_rollout,
        "resume": ask_rollout,
        "approve": ask_rollout,
        "promote": ask_rollout,
        "revert": revert,
    }
    for request in turn.observed.requests:
        if request.request_id in turn.status.answered:
            continue
        if request.kind in _PRESSING and turn.now_ms - request.time > _STALE_MS:
            reason = f"it was asked at {from_ms(request.time):%Y-%m-%d %H:%M:%S} UTC, too long ago: ask again"
            turn = turn.say("refuse", request.request_id, reason, answers=request)
        else:
            turn = answers[request.kind](turn, request)
    return turn


def _phase(status: LoopStatus) -> Phase:
    if status.champion is None:
        return "Bootstrapping"
    if status.rollout is not None:
        phases: dict[str, Phase] = {
            "awaiting-approval": "AwaitingApproval",
            "shadowing": "Shadowing",
            "promoting": "Promoting",
            "rolling-back": "RollingBack",
        }
        return "RollingBack" if status.rollout.plan.reverts else phases.get(status.rollout.phase, "Canary")
    if status.run is not None:
        return "Retraining"
    return "Serving" if status.watching is None else "Watching"
