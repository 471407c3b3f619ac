"""How a model is trained, how traffic moves to it, and how it answers: `spec.model`, `rollout` and `serving`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.spec.part import QUANTITY, Identifier, ImageName, ImportPath, Name, Part
from tidemill.spec.quantities import Duration

__all__ = [
    "Analysis",
    "Cohorts",
    "Guards",
    "ModelCode",
    "PredictionLogging",
    "Replay",
    "Resources",
    "Rollout",
    "RolloutWatch",
    "Serving",
    "Step",
]


class Replay(Part):
    """Which older rows a run learns from again, so that what was learnt is kept."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the training rows that are replayed, where there are enough older ones."""
    strategy: Literal["reservoir", "classBalanced", "recent"] = "reservoir"
    """`reservoir`: each older row has the same chance. `classBalanced`: each class has the same share. `recent`: the
    chance of a row halves with every tenth of the older rows that came after it."""


class Resources(Part):
    """What a process of the model may use on a cluster."""

    cpu: Annotated[float, Field(gt=0)] = 1.0
    """Processor cores that it is sure to have."""
    memory: Annotated[str, Field(pattern=QUANTITY, examples=["4Gi"])] = "2Gi"
    """Memory that it is sure to have, and may not exceed."""


class ModelCode(Part):
    """The user's two classes, and where the first version comes from."""

    image: ImageName | None = None
    """The image with these classes, which the steps of a run and the versions run in; on a cluster alone."""
    codec: ImportPath
    """`module:Class` of the Codec: row to tensors, outputs to answer. Must import without torch."""
    trainer: ImportPath
    """`module:Class` of the Trainer: the torch module, its loss and how it fits."""
    initial: Literal["none", "dataset", "version"] = "none"
    """`dataset`: train version 1 once enough labelled events are there. `version`: wait for `tidemill adopt`, which
    brings one from elsewhere. `none`: wait for `tidemill retrain`."""
    warm_start: bool = True
    """Start training from the champion's weights."""
    replay: Replay = Replay()
    """Older rows in a warm start; without one, a run learns from all rows."""
    resources: Resources = Resources()
    """What each server of a version may use; on a cluster alone."""


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


class Guards(Part):
    """What ends a rollout at once, whatever the labels say; seen at the proxy."""

    errors: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Largest share of failed requests above the champion's."""
    latency_p99: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    """Largest 99th percentile of the candidate's answers, over several looks."""


class Cohorts(Part):
    """Who is assigned to a version, and counted."""

    key: Name = "request"
    """`request`: each request, by chance. Else the request header that carries a key, such as `x-user`: a key keeps
    its version while shares rise, and counts once."""


class RolloutWatch(Part):
    """The time after a promotion in which labels that come late may still bring back the version before."""

    for_: Annotated[Duration, Field(gt=timedelta(0), alias="for")] = timedelta(days=1)
    """Its length: the rollout's outcomes are judged once more with the labels of this age."""


class Rollout(Part):
    """How traffic moves to a candidate."""

    approval: Literal["none", "required"] = "none"
    """`required`: a person approves each candidate before its first step. A first version replaces nothing."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=100)] = (
        Step(weight=5),
        Step(weight=25),
        Step(weight=50),
        Step(weight=100),
    )
    """Shares of traffic, rising; the last is 100 and is the promotion."""
    analysis: Analysis = Analysis()
    """What it is judged on."""
    guards: Guards = Guards()
    """What ends it at once."""
    cohorts: Cohorts = Cohorts()
    """Whether a user keeps a version."""
    shadow: bool = False
    """Before its first step the candidate gets a copy of each request; its answers to these reach no user, and are
    judged by the labels of the champion's. Needs `labels.control: 1.0` and cohorts by request."""
    watch: RolloutWatch | None = RolloutWatch()
    """After the promotion; null: what was promoted stays."""

    @model_validator(mode="after")
    def _copies_are_no_cohort(self) -> "Rollout":
        if self.shadow and self.cohorts.key != "request":
            raise ValueError(
                f"shadow: not with cohorts.key {self.cohorts.key}: a key counts once, and would have counted before "
                "the first step"
            )
        return self

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
    redact: Annotated[tuple[Identifier, ...], Field(max_length=200)] = ()
    """Features and fields of the answer that are left out of the log."""


class Serving(Part):
    """How versions answer."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Servers of each version; on a cluster alone."""
    driver: Literal["auto", "gateway", "knative", "local"] = "auto"
    """Who shares out the requests. `gateway`: an HTTPRoute over a KServe service per version. `knative`: KServe's
    `canaryTrafficPercent`. `local`: Envoy on one machine, which takes no other. `auto`: what is installed, with a
    reason."""
    service_account_name: Name = "default"
    """The service account of workers and servers, for the object store for instance; on a cluster alone."""
    log: PredictionLogging = PredictionLogging()
    """The prediction log."""

    @field_validator("driver", mode="before")
    @classmethod
    def _not_by_kserves_canary(cls, driver: object) -> object:
        if driver == "canary":
            raise ValueError(
                "KServe's spec.canary moves no request up to its 0.20.0, whatever percentage it is given: use gateway"
            )
        return driver
