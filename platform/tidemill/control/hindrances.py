"""What stands against a run besides another one: pause, hold, budget and cooldown.

Automatic runs are held by all of them. One that a person or a program asks for skips the cooldown; `force` takes it
past the others too. Every run counts to the budget, whoever asked for it and by whatever force.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from tidemill.control.state import KEPT_STARTS, Agreed, LoopStatus
from tidemill.control.turn import Turn
from tidemill.core.clock import from_ms, to_ms
from tidemill.events.records import Request
from tidemill.spec.model import ContinualModel
from tidemill.spec.quantities import format_duration

__all__ = [
    "HOLD",
    "RELEASE",
    "Spent",
    "against_request",
    "forced",
    "hindrances",
    "kept_starts",
    "note_agreement",
    "spent",
]

HOLD, RELEASE = "hold-runs", "release-runs"
"""The kinds of the decisions by which a lost hold is found again."""


class Spent(NamedTuple):
    """The budget as it stands."""

    used: int
    """Runs that started within the last period."""
    runs: int
    """How many there may be."""
    frees_at: int | None
    """When there is room for one more; None: there is now."""


def hindrances(resource: ContinualModel, status: LoopStatus, now: datetime) -> Iterator[str]:
    """What stands against an automatic run, in words."""
    yield from _against_all(resource, status, now)
    if status.quiet_from is not None:
        cooldown = resource.spec.triggers.cooldown
        left = from_ms(status.quiet_from) + cooldown - now
        if left > timedelta(0):
            yield f"the cooldown of {format_duration(cooldown)} has {_whole(left)} left"


def against_request(turn: Turn, request: Request) -> str | None:
    """Why a run that is asked for may not start; None where nothing hinders it, or `force` takes it past that."""
    if forced(request):
        return None
    return next(_against_all(turn.resource, turn.status, turn.now), None)


def forced(request: Request) -> bool:
    """Whether a request asks for a run by force."""
    return bool(request.arguments.get("force"))


def spent(resource: ContinualModel, status: LoopStatus, now: datetime) -> Spent:
    """How much of the budget is used up."""
    budget = resource.spec.triggers.budget
    starts = [at for at in status.starts if from_ms(at) > now - budget.per]
    over = len(starts) - budget.runs
    frees = None if over < 0 else to_ms(from_ms(sorted(starts)[over]) + budget.per)
    return Spent(len(starts), budget.runs, frees)


def kept_starts(starts: Iterable[int], resource: ContinualModel) -> tuple[int, ...]:
    """The newest of them, as many as the budget may ever need."""
    return tuple(sorted(starts)[-max(KEPT_STARTS, resource.spec.triggers.budget.runs) :])


def note_agreement(turn: Turn) -> Turn:
    """Take in the newest word on how far labellers agree; when a hold begins or ends, that is a decision."""
    said, known = turn.observed.agreement, turn.status.agreement
    if said is None or (known is not None and said.through <= known.through):
        return turn
    now = Agreed(through=said.through, alpha=said.alpha, least=said.min_agreement, trusted=said.trusted)
    turn = turn.change(agreement=now)
    figures = msgspec.structs.asdict(now)
    if _holds(now) and not _holds(known):
        return turn.say(HOLD, turn.resource.id, _in_words(now), figures)
    if _holds(known) and not _holds(now):
        how_far = f"labellers agree to {_alpha(now)}" if now.alpha is not None else said.verdict
        return turn.say(RELEASE, turn.resource.id, f"{how_far}: runs may start again", figures)
    return turn


def _against_all(resource: ContinualModel, status: LoopStatus, now: datetime) -> Iterator[str]:
    """What stands against every run that is not forced."""
    if resource.spec.paused:
        yield "the model is paused (spec.paused)"
    if status.agreement is not None and _holds(status.agreement):
        yield _in_words(status.agreement)
    budget = spent(resource, status, now)
    if budget.frees_at is not None:
        per = format_duration(resource.spec.triggers.budget.per)
        left = _whole(from_ms(budget.frees_at) - now)
        yield f"the budget of {budget.runs} runs in {per} is used up: there is room for one more in {left}"


def _holds(agreed: Agreed | None) -> bool:
    return agreed is not None and agreed.trusted is False


def _in_words(agreed: Agreed) -> str:
    return f"labellers agree to {_alpha(agreed)}, {agreed.least:g} is needed: held until agreement is back"


def _alpha(agreed: Agreed) -> str:
    """Alpha to two decimals, or to four where two would hide on which side it is."""
    if agreed.alpha is None:
        return "an unknown degree"
    short = f"{agreed.alpha:.2f}"
    return short if (float(short) < agreed.least) == (agreed.alpha < agreed.least) else f"{agreed.alpha:.4f}"


def _whole(left: timedelta) -> str:
    """What is left in whole seconds, never less than there is."""
    return format_duration(timedelta(seconds=-(-left // timedelta(seconds=1))))
