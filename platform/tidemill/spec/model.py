"""ContinualModel as Pydantic models: one class per part of the resource, each field documented, each default safe.

The schema holds only what Tidemill acts on. A field that is planned but not built yet is refused with the
stage it belongs to (`tidemill.spec.load`).
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from tidemill.core.ids import model_id
from tidemill.spec.alerts import Alerts
from tidemill.spec.answers import LabelField, Labels, Maturity, Prediction, Value
from tidemill.spec.gates import FreshGate, Gates
from tidemill.spec.inputs import (
    AGGREGATIONS,
    IMAGE_STATISTICS,
    LABEL_PREFIX,
    Aggregation,
    Entity,
    EventField,
    Events,
    Features,
    Quarantine,
    Window,
)
from tidemill.spec.loop import (
    Analysis,
    Guards,
    ModelCode,
    PredictionLogging,
    Replay,
    Rollout,
    Serving,
    Step,
)
from tidemill.spec.part import PATTERNS, Name, Part, refuse_repeated
from tidemill.spec.triggers import DriftTrigger, PerformanceTrigger, Triggers, VolumeTrigger

__all__ = [
    "AGGREGATIONS",
    "IMAGE_STATISTICS",
    "PATTERNS",
    "Aggregation",
    "Alerts",
    "Analysis",
    "ContinualModel",
    "DriftTrigger",
    "Entity",
    "EventField",
    "Events",
    "Features",
    "FreshGate",
    "Gates",
    "Guards",
    "LabelField",
    "Labels",
    "Maturity",
    "Metadata",
    "ModelCode",
    "PerformanceTrigger",
    "Prediction",
    "PredictionLogging",
    "Quarantine",
    "Replay",
    "Rollout",
    "Serving",
    "Spec",
    "Step",
    "Triggers",
    "Value",
    "VolumeTrigger",
    "Window",
]


class Metadata(Part):
    """Which model this is."""

    name: Name
    """Name of the model; with the namespace it prefixes topics, keys and paths."""
    namespace: Name = "default"
    """Namespace; on one machine there is only `default` unless you say otherwise."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Free text by key, kept as it is."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Selectable text by key, kept as it is."""


class Spec(Part):
    """What to keep right, and how."""

    paused: bool = False
    """Decide nothing while true; ingest, outcomes and serving go on."""
    events: Events
    features: Features = Features()
    prediction: Prediction
    labels: Labels
    model: ModelCode
    triggers: Triggers = Triggers()
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    serving: Serving = Serving()
    alerts: Alerts = Alerts()
    artifact_root: str | None = None
    """Where versions are kept; default: a folder of this installation."""

    @model_validator(mode="after")
    def _features_have_their_source(self) -> "Spec":
        if self.features.image and not any(field.type == "image" for field in self.events.fields):
            raise ValueError("features.image needs a field of type image in events.fields")
        fields = [field.name for field in self.events.fields]
        refuse_repeated([*fields, *self.features.image, *self.features.window_names], "feature")
        drift, values = self.triggers.drift, any(field.type != "image" for field in self.events.fields)
        if drift is not None and "inputs" in drift.watch and not values and not self.features.image:
            raise ValueError("triggers.drift has nothing to watch: features.image is empty, all fields are pictures")
        return self

    @model_validator(mode="after")
    def _slices_are_groups(self) -> "Spec":
        groups = [self.events.entity.name]
        groups += [field.name for field in self.events.fields if field.type in {"string", "int", "bool"}]
        watched = self.triggers.drift.slices if self.triggers.drift else ()
        refuse_repeated(watched, "triggers.drift.slices: a name")
        by_gate = [gate.by for gate in self.gates.slices]
        for where, names in (("triggers.drift.slices", watched), ("gates.slices", by_gate)):
            for name in names:
                if name not in groups:
                    raise ValueError(f"{where}: {name} is no group; there are {', '.join(groups)}")
        return self

    @model_validator(mode="after")
    def _gates_have_their_measure(self) -> "Spec":
        gates, prediction = self.gates, self.prediction
        named = [("fresh", gates.fresh.metric)] + [("slices", gate.metric) for gate in gates.slices]
        if gates.frozen is not None:
            named.append(("frozen", gates.frozen.metric))
            wrong = gates.frozen.at_most if gates.frozen.metric != "error" else gates.frozen.at_least
            if wrong is not None:
                raise ValueError("gates.frozen: atMost is for the metric error, atLeast for f1, recall and precision")
        if prediction.type != "regression":
            return self
        for gate, metric in named:
            if metric != "error":
                raise ValueError(f"gates.{gate}: {metric} is of classes, and a regression has none: use error")
        if gates.calibration is not None:
            raise ValueError("gates.calibration is of confidences, and a regression has none")
        return self

    @model_validator(mode="after")
    def _performance_is_watched(self) -> "Spec":
        drift = self.triggers.drift
        if self.triggers.performance is not None and (drift is None or "errors" not in drift.watch):
            raise ValueError(
                "triggers.performance needs triggers.drift with errors in its watch, whose votes it counts"
            )
        return self

    @model_validator(mode="after")
    def _new_classes_can_be_told(self) -> "Spec":
        if self.triggers.new_class is not None and not any(field.type == "class" for field in self.labels.fields):
            raise ValueError("triggers.newClass needs a field of type class in labels.fields")
        return self

    @model_validator(mode="after")
    def _copies_can_be_judged(self) -> "Spec":
        if not self.rollout.shadow:
            return self
        if self.labels.control < 1:
            raise ValueError(
                f"rollout.shadow needs labels.control: 1.0, not {self.labels.control:g}: a copy is judged by the label "
                "of the champion's answer, and which answers are labelled may depend on them"
            )
        if self.serving.driver == "knative":
            raise ValueError(
                "rollout.shadow: the knative driver sends no copies: use serving.driver: gateway, or leave shadow out"
            )
        return self

    @model_validator(mode="after")
    def _windows_have_their_source(self) -> "Spec":
        events = {field.name: field.type for field in self.events.fields if field.type != "image"}
        events |= dict.fromkeys(self.features.image, "float")
        labels = {LABEL_PREFIX + field.name: field.type for field in self.labels.fields if field.type != "box"}
        known = events | labels
        for window in self.features.windows:
            kind = known.get(window.of) if window.of is not None else None
            if window.of is not None and kind is None:
                raise ValueError(f"features.windows: {window.name} is of {window.of}; there are {', '.join(known)}")
            if kind in {"string", "class"} and window.agg not in {"count", "last", "distinct"}:
                raise ValueError(
                    f"features.windows: {window.name}: {window.agg} is for numbers; {window.of} is a {kind}"
                )
        return self

    @model_validator(mode="after")
    def _what_is_redacted_is_there_and_not_needed(self) -> "Spec":
        redacted = self.serving.log.redact
        refuse_repeated(redacted, "serving.log.redact: a name")
        known = [field.name for field in self.events.fields] + [*self.features.image, *self.features.window_names]
        for name in redacted:
            if name in {"class", "value", "box"}:
                raise ValueError(f"serving.log.redact: an outcome cannot be judged without the answer's {name}")
            # The features of a service are known to Feast alone.
            if self.features.service is None and name not in {*known, "confidence"}:
                raise ValueError(f"serving.log.redact: {name}: there are {', '.join(known)} and confidence")
        return self

    @model_validator(mode="after")
    def _labels_say_what_is_judged(self) -> "Spec":
        types = [field.type for field in self.labels.fields]
        if self.prediction.type == "regression":
            if len([kind for kind in types if kind in {"float", "int"}]) != 1:
                raise ValueError("labels.fields needs one field of type float or int: regression is judged by it")
            if "class" in types:
                raise ValueError("labels.fields: a field of type class needs prediction.classes")
            return self
        if "class" not in types and "bool" not in types:
            raise ValueError(
                "labels.fields needs a field of type class, or bool for whether anything was found: "
                "nothing else says if an answer was right"
            )
        refuse_repeated([kind for kind in types if kind in {"class", "box"}], "labels.fields: a field of type")
        return self


class ContinualModel(Part):
    """A model's whole life after its first deployment, declared."""

    api_version: Literal["tidemill.dev/v1alpha1"]
    kind: Literal["ContinualModel"]
    metadata: Metadata
    spec: Spec

    @model_validator(mode="after")
    def _topics_are_its_own(self) -> "ContinualModel":
        refuse_repeated([self.events_topic, self.labels_topic], "topic")
        return self

    @property
    def id(self) -> str:
        """`<namespace>.<name>`."""
        return model_id(self.metadata.namespace, self.metadata.name)

    def with_classes(self, classes: Sequence[str]) -> "ContinualModel":
        """The resource as if it declared these classes: those that came after it was written are judged alike."""
        prediction = self.spec.prediction.model_copy(update={"classes": tuple(classes)})
        return self.model_copy(update={"spec": self.spec.model_copy(update={"prediction": prediction})})

    @property
    def events_topic(self) -> str:
        """The topic of events."""
        return self.spec.events.topic or f"{self.id}.events"

    @property
    def labels_topic(self) -> str:
        """The topic of labels."""
        return self.spec.labels.topic or f"{self.id}.labels"

    @property
    def image_field(self) -> EventField | None:
        """The event's image field, if it has one."""
        return next((field for field in self.spec.events.fields if field.type == "image"), None)

    @property
    def watched_features(self) -> tuple[str, ...]:
        """The numeric features watched for drift: numeric event fields, then image statistics."""
        fields = self.spec.events.fields
        numbers = tuple(field.name for field in fields if field.type in {"float", "int"} and field.enum is None)
        return numbers + self.spec.features.image

    @property
    def watched_categories(self) -> tuple[str, ...]:
        """The event fields watched for drift by the shares of their values: text, yes or no, and numbers of a list."""
        fields = self.spec.events.fields
        return tuple(field.name for field in fields if field.type in {"string", "bool"} or field.enum is not None)
