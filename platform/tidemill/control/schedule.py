"""The schedule: which firing is due next, and that missed ones are made up for by one run.

The status holds the next firing that no run has answered. It is set when a schedule is declared or changed, so that
nothing fires for the past; time that passes, however much of it, makes it due once; and each run that starts,
whatever its cause, moves it on to the first firing after that start. So an outage of a week is one run.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from tidemill.control.state import Schedule
from tidemill.control.turn import Turn
from tidemill.core.clock import from_ms, to_ms

__all__ = ["DECISION", "answered", "begun_schedule", "follow_schedule", "in_zone"]

DECISION = "schedule"
"""The kind of the decisions by which a lost cursor is found again."""


def follow_schedule(turn: Turn) -> Turn:
    """Take up a schedule that was declared or changed: it counts from now; forget one that is declared no more."""
    trigger, known = turn.resource.spec.triggers.schedule, turn.status.schedule
    if trigger is None:
        if known is None:
            return turn
        reason = "no schedule is declared any more"
        return turn.change(schedule=None).say(DECISION, turn.resource.id, reason)
    if known is not None and (known.cron, known.timezone) == (trigger.cron, trigger.timezone):
        return turn
    schedule = begun_schedule(trigger.cron, trigger.timezone, turn.now)
    first = "never" if schedule.due is None else f"first at {in_zone(schedule.due, schedule.timezone)}"
    reason = f"runs are scheduled by {trigger.cron} ({trigger.timezone}), {first}"
    return turn.change(schedule=schedule).say(DECISION, turn.resource.id, reason, msgspec.to_builtins(schedule))


def begun_schedule(cron: str, timezone: str, now: datetime) -> Schedule:
    """A schedule that counts from `now` on: nothing before is due."""
    following = next(CronSim(cron, now.astimezone(ZoneInfo(timezone))), None)
    return Schedule(cron=cron, timezone=timezone, due=None if following is None else to_ms(following))


def answered(schedule: Schedule | None, start: int) -> Schedule | None:
    """The schedule after a run that started then: all that was due is answered by it."""
    if schedule is None or schedule.due is None or schedule.due > start:
        return schedule
    return begun_schedule(schedule.cron, schedule.timezone, from_ms(start))


def in_zone(at: int, timezone: str) -> str:
    """A moment as people read it in the schedule's own zone."""
    return f"{from_ms(at).astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M} {timezone}"
