"""Who is told what: `spec.alerts`, its routes and the times at which nobody is to be told."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from tidemill.spec.part import Name, Part, Variable, refuse_repeated
from tidemill.spec.quantities import Duration, format_duration
from tidemill.spec.triggers import Watched

__all__ = ["KINDS", "SEVERITIES", "AlertKind", "AlertRoute", "Alerts", "Moment", "Mute", "Severity"]

AlertKind = Literal[
    "drift", "concept", "performance", "state", "failed-run", "refused-gate", "roll-back", "held", "promotion"
]
Severity = Literal["info", "warning", "critical"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the least to the most severe."""

KINDS: dict[AlertKind, Severity] = {
    "drift": "warning",
    "concept": "critical",
    "performance": "critical",
    "state": "warning",
    "failed-run": "warning",
    "refused-gate": "info",
    "roll-back": "critical",
    "held": "warning",
    "promotion": "info",
}
"""What there can be an alert of, and how severe it is."""

_LONGEST_GROUP = timedelta(hours=1)
_SHORTEST_REPEAT = timedelta(minutes=1)


def _parse_moment(text: object) -> datetime:
    moment = text
    if isinstance(text, str):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"a time with its zone, such as 2026-12-24T18:00:00+01:00, not {text!r}")
    return moment


Moment = Annotated[
    datetime,
    BeforeValidator(_parse_moment),
    PlainSerializer(datetime.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-12-24T18:00:00+01:00"]}),
]
"""A point in time with its zone."""


class AlertRoute(Part):
    """One way to people. Without a filter it is told everything."""

    name: Name
    """What it is called in commands, logs and metrics."""
    url_env: Variable
    """Environment variable with the Apprise URL, which is a secret: it stands nowhere else."""
    kinds: Annotated[tuple[AlertKind, ...], Field(min_length=1)] | None = None
    """Only these kinds of alerts."""
    severity: Severity = "info"
    """Only alerts at least this severe."""
    subjects: Annotated[tuple[Watched, ...], Field(min_length=1)] | None = None
    """Of what is watched, only this; runs, gates and rollouts are told all the same."""


class Mute(Part):
    """A time at which nobody is told. What is still open at its end is told then."""

    start: Moment
    """When it begins."""
    end: Moment
    """When it ends."""
    every: Literal["24h", "7d"] | None = None
    """Repeat it after so long, to the second: where clocks are changed, it moves by an hour."""
    kinds: Annotated[tuple[AlertKind, ...], Field(min_length=1)] | None = None
    """Only these kinds of alerts."""
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only alerts of these features."""
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    """Why; it is told with what was muted."""

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Mute":
        length = self.end - self.start
        if length <= timedelta(0):
            raise ValueError("end must be later than start")
        period = {"24h": timedelta(hours=24), "7d": timedelta(days=7), None: None}[self.every]
        if period is not None and length >= period:
            raise ValueError(
                f"it is {format_duration(length)} long, and so would never end when repeated each {self.every}"
            )
        return self


class Alerts(Part):
    """What people are told, and how often. Without routes nobody is."""

    routes: Annotated[tuple[AlertRoute, ...], Field(max_length=16)] = ()
    """The ways to people; one that does not answer holds up no other."""
    group_for: Duration = timedelta(seconds=30)
    """What begins within this time is told in one message."""
    repeat_after: Duration = timedelta(hours=4)
    """An alert that stays open is told again after this time."""
    mute: Annotated[tuple[Mute, ...], Field(max_length=100)] = ()
    """Times at which nobody is told."""

    @model_validator(mode="after")
    def _names_and_times_make_sense(self) -> "Alerts":
        refuse_repeated([route.name for route in self.routes], "alerts.routes: a route")
        if self.group_for > _LONGEST_GROUP:
            raise ValueError(f"groupFor must be at most {format_duration(_LONGEST_GROUP)}")
        if self.repeat_after < max(_SHORTEST_REPEAT, self.group_for):
            raise ValueError(f"repeatAfter must be at least {format_duration(_SHORTEST_REPEAT)}, and groupFor")
        return self
