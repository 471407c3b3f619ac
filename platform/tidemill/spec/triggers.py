"""When to retrain: `spec.triggers`."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, model_validator

from tidemill.spec.part import Identifier, Part
from tidemill.spec.quantities import Duration, Rate, format_duration

__all__ = [
    "AtLeast",
    "Budget",
    "DriftTrigger",
    "NewClassTrigger",
    "PerformanceTrigger",
    "ScheduleTrigger",
    "Triggers",
    "VolumeTrigger",
    "Watched",
]

SHORTEST_TICK = timedelta(milliseconds=100)
_ANY_TIME = datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))


def _is_cron(text: str) -> str:
    try:
        CronSim(text, _ANY_TIME)
    except CronSimError as error:
        fields = "minute, hour, day of month, month, weekday"
        raise ValueError(f"five cron fields ({fields}) such as '0 3 * * *': {error}") from error
    return text


def _is_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"a time zone such as Europe/Berlin or UTC, not {text!r}") from error
    return text


class ScheduleTrigger(Part):
    """Retrain at set times. Those missed, while control was down or a run was under way, are made up for by one run."""

    cron: Annotated[str, AfterValidator(_is_cron)]
    """Five cron fields: minute, hour, day of month, month, weekday."""
    timezone: Annotated[str, AfterValidator(_is_zone)] = "UTC"
    """IANA time zone of the fields; in the hour that a clock change repeats or skips, as Debian's cron does."""


Watched = Literal["inputs", "predictions", "labels", "errors"]


class DriftTrigger(Part):
    """Retrain when the world has moved further than can be lived with."""

    tolerance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Largest change of any cumulative share P(x <= q) that is not drift."""
    false_alarms: Rate = Rate(1, timedelta(days=30))
    """Budget of false alarms over everything watched, on average."""
    every: Duration = timedelta(seconds=10)
    """Length of a window tick: each entity has one vote a tick."""
    watch: Annotated[tuple[Watched, ...], Field(min_length=1)] = ("inputs", "predictions", "labels", "errors")
    """What is watched; all of it shares the budget."""
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Largest rise of the mean loss on matured outcomes above its level at the promotion that is not drift."""
    slices: Annotated[tuple[Identifier, ...], Field(max_length=4)] = ()
    """The entity's name or event fields, by whose values losses are watched apart and groups are compared."""

    @model_validator(mode="after")
    def _tick_is_long_enough(self) -> "DriftTrigger":
        if self.every < SHORTEST_TICK:
            raise ValueError(f"every must be at least {format_duration(SHORTEST_TICK)}")
        return self


class PerformanceTrigger(Part):
    """Retrain when the champion has become worse than it was at its promotion, as its own labels tell."""

    metric: Literal["error"] = "error"
    """The bounded per-outcome loss."""
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """Largest rise of the mean loss above its level at the promotion that can be lived with."""
    risk: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability that a version ever causes a run although its loss has not risen further; however often one looks."""


class VolumeTrigger(Part):
    """Retrain when enough new labels have arrived."""

    new_labels: Annotated[int, Field(gt=0)] = 5000
    """Labelled rows since the champion's snapshot (for `initial: dataset`, in all)."""


class NewClassTrigger(Part):
    """Retrain when labels name classes that the champion does not know, and let the new version learn them."""

    min_examples: Annotated[int, Field(ge=10)] = 50
    """Mature labelled events of one such class, as far as labellers agree on it (`labels.conflict`). At least half of
    them are trained on: where `gates.fresh.rows` would hold out more, fewer rows are held out."""


class AtLeast(Part):
    """So many of the declared triggers must have a cause at the same time."""

    at_least: Annotated[int, Field(ge=1)]
    """How many."""


class Budget(Part):
    """How many runs there may be: those started by hand or in the KFP UI count, too, and pass it only by force."""

    runs: Annotated[int, Field(ge=1)] = 8
    """Most runs in any period of this length."""
    per: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(days=1)
    """The period; it slides."""


class Triggers(Part):
    """When to retrain."""

    schedule: ScheduleTrigger | None = None
    """At set times."""
    drift: DriftTrigger | None = None
    """On a drift signal."""
    performance: PerformanceTrigger | None = None
    """On a rise of the champion's loss."""
    volume: VolumeTrigger | None = None
    """On enough new labels."""
    new_class: NewClassTrigger | None = None
    """On enough examples of a class that the champion does not know."""
    combine: Literal["any", "all"] | AtLeast = "any"
    """How many of the declared triggers must have a cause: any one, all, or `atLeast: n`. The first run needs none."""
    cooldown: Duration = timedelta(hours=1)
    """Least time between the ends of two runs' rollouts and the next automatic run."""
    budget: Budget = Budget()
    """How many runs there may be."""

    @property
    def declared(self) -> tuple[str, ...]:
        """The triggers that are declared, by their names in the resource."""
        named = {
            "schedule": self.schedule,
            "drift": self.drift,
            "performance": self.performance,
            "volume": self.volume,
            "newClass": self.new_class,
        }
        return tuple(name for name, trigger in named.items() if trigger is not None)

    @model_validator(mode="after")
    def _enough_are_declared(self) -> "Triggers":
        if isinstance(self.combine, AtLeast) and self.combine.at_least > len(self.declared):
            raise ValueError(
                f"combine.atLeast is {self.combine.at_least}, but {len(self.declared)} triggers are declared: "
                "no run would ever start"
            )
        return self
