"""How a model is kept right: `spec.model`, `triggers`, `gates`, `rollout` and `serving`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.spec.part import Identifier, ImportPath, Part, Share
from tidemill.spec.quantities import Duration, Rate, format_duration

__all__ = [
    "Analysis",
    "DriftTrigger",
    "FreshGate",
    "Gates",
    "ModelCode",
    "PredictionLogging",
    "Rollout",
    "Serving",
    "Step",
    "Triggers",
    "VolumeTrigger",
    "Watched",
]

SHORTEST_TICK = timedelta(milliseconds=100)


class ModelCode(Part):
    """The user's two classes, and where the first version comes from."""

    codec: ImportPath
    """`module:Class` of the Codec: row to tensors, outputs to answer. Must import without torch."""
    trainer: ImportPath
    """`module:Class` of the Trainer: the torch module, its loss and how it fits."""
    initial: Literal["none", "dataset"] = "none"
    """`dataset`: train version 1 once enough labelled events are there. `none`: wait for `tidemill retrain`."""
    warm_start: bool = True
    """Start training from the champion's weights."""


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


class VolumeTrigger(Part):
    """Retrain when enough new labels have arrived."""

    new_labels: Annotated[int, Field(gt=0)] = 5000
    """Labelled rows since the champion's snapshot (for `initial: dataset`, in all)."""


class Triggers(Part):
    """When to retrain."""

    drift: DriftTrigger | None = None
    """On a drift signal."""
    volume: VolumeTrigger | None = None
    """On enough new labels."""
    cooldown: Duration = timedelta(hours=1)
    """Least time between the ends of two runs' rollouts and the next automatic run."""


class FreshGate(Part):
    """Compare candidate and champion on the newest matured rows, which neither was trained on."""

    metric: Literal["error"] = "error"
    """The bounded loss to compare."""
    not_worse_than: Literal["champion"] = "champion"
    """Whom the candidate is compared with; not applicable while there is none."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The lower 95 % paired-bootstrap bound of (champion's error - candidate's error) must be at least -margin."""
    rows: Annotated[int, Field(ge=30)] = 500
    """Newest matured rows held out from training."""
    at_most: Share | None = None
    """Absolute gate: the upper 95 % bootstrap bound of the candidate's error must not exceed this."""


class Gates(Part):
    """What a candidate must pass before any traffic."""

    fresh: FreshGate = FreshGate()
    """On the newest matured rows."""


class Step(Part):
    """One step of a rollout."""

    weight: Annotated[int, Field(gt=0, le=100)]
    """The candidate's share of requests in percent."""


class Analysis(Part):
    """What a rollout is judged on."""

    metric: Literal["error"] = "error"
    """The bounded per-outcome loss."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """How much worse the candidate may be and still be promoted."""
    risk: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability of promoting a candidate worse than the margin; likewise of rolling back one that is not."""
    min_outcomes: Annotated[int, Field(ge=1)] = 50
    """Least number of candidate outcomes in a step before it may go on."""
    timeout: Duration = timedelta(days=3)
    """Longest time a rollout may take."""
    on_timeout: Literal["hold", "rollBack"] = "hold"
    """What happens then."""


class Rollout(Part):
    """How traffic moves to a candidate."""

    steps: Annotated[tuple[Step, ...], Field(min_length=1)] = (
        Step(weight=5),
        Step(weight=25),
        Step(weight=50),
        Step(weight=100),
    )
    """Shares of traffic, rising; the last is 100 and is the promotion."""
    analysis: Analysis = Analysis()
    """What it is judged on."""

    @model_validator(mode="after")
    def _steps_rise_to_100(self) -> "Rollout":
        weights = [step.weight for step in self.steps]
        if weights != sorted(set(weights)) or weights[-1] != 100:
            raise ValueError(f"steps must rise and end at 100, not {weights}")
        if len(weights) > 1:
            harm = self.analysis.margin / (weights[0] / 100) ** 0.5
            if harm >= 1:
                raise ValueError(
                    f"a first step of {weights[0]} % cannot be judged at margin {self.analysis.margin:g} "
                    f"(margin/√share is {harm:.2f}, must be below 1): raise the first weight or lower the margin"
                )
        return self


class PredictionLogging(Part):
    """What is kept of answers."""

    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of rows that are logged, drawn at random; each is logged with this number."""
    redact: tuple[Identifier, ...] = ()
    """Features and fields of the answer that are left out of the log."""


class Serving(Part):
    """How versions answer."""

    log: PredictionLogging = PredictionLogging()
    """The prediction log."""
