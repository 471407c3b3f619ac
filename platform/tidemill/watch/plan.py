"""What the resource says, as the reducer needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.watch.quantity import Subject
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
    rise: float = 0.05
    """The declared largest rise of the loss; it holds at once likewise."""
    watch: Sequence[Subject] = ("inputs",)
    """What is watched."""
    performance_rise: float = 0.0
    """The rise of `triggers.performance`; 0: it is not declared."""
    performance_risk: float = 0.05
    control: float = 0.0
    """Share of predictions that is sure to be labelled; 0: no label says how good the model is."""

    def lateness_of(self, stream: Subject) -> int:
        """How much later than the newest record one may come; labels are timed by their arrival."""
        return 0 if stream == "labels" else self.lateness_ms


def plan_of(resource: ContinualModel, trigger: DriftTrigger) -> WatchPlan:
    """The plan of a resource with this drift trigger."""
    millisecond, performance = timedelta(milliseconds=1), resource.spec.triggers.performance
    return WatchPlan(
        model=resource.id,
        entity=resource.spec.events.entity.name,
        tick_ms=round(trigger.every / millisecond),
        lateness_ms=round(resource.spec.events.allowed_lateness / millisecond),
        period_ms=budget_period_ms(trigger),
        tolerance=trigger.tolerance,
        rise=trigger.rise,
        watch=trigger.watch,
        performance_rise=performance.rise if performance else 0.0,
        performance_risk=performance.risk if performance else 0.05,
        control=resource.spec.labels.control,
    )
