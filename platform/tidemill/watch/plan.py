"""What the resource says, as the reducer needs it."""

from dataclasses import dataclass
from datetime import timedelta

from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.watch.reference import budget_period_ms

__all__ = ["WatchPlan", "plan_of"]


@dataclass(frozen=True)
class WatchPlan:
    """Fixed while the watch runs. Times are milliseconds."""

    model: str
    entity: str
    """Name of the entity in the resource, for messages."""
    tick_ms: int
    lateness_ms: int
    period_ms: float
    """Time in which one false alarm may be expected."""
    tolerance: float
    """The declared tolerance; where it is above a reference's own it holds at once."""


def plan_of(resource: ContinualModel, trigger: DriftTrigger) -> WatchPlan:
    """The plan of a resource with this drift trigger."""
    millisecond = timedelta(milliseconds=1)
    return WatchPlan(
        model=resource.id,
        entity=resource.spec.events.entity.name,
        tick_ms=round(trigger.every / millisecond),
        lateness_ms=round(resource.spec.events.allowed_lateness / millisecond),
        period_ms=budget_period_ms(trigger),
        tolerance=trigger.tolerance,
    )
