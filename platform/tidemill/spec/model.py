"""ContinualModel as Pydantic models: one class per part of the resource, each field documented, each default safe.

The schema holds only what Tidemill acts on. A field that is planned but not built yet is refused with the
stage it belongs to (`tidemill.spec.load`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from tidemill.core.ids import model_id
from tidemill.spec.quantities import Duration, Rate, format_duration

__all__ = [
    "AGGREGATIONS",
    "IMAGE_STATISTICS",
    "PATTERNS",
    "Aggregation",
    "Analysis",
    "ContinualModel",
    "DriftTrigger",
    "Entity",
    "EventField",
    "Events",
    "Features",
    "FreshGate",
    "Gates",
    "LabelField",
    "Labels",
    "Maturity",
    "Metadata",
    "ModelCode",
    "Prediction",
    "Quarantine",
    "Rollout",
    "Spec",
    "Step",
    "Triggers",
    "VolumeTrigger",
    "Window",
]

SHORTEST_TICK = timedelta(milliseconds=100)
IMAGE_STATISTICS = ("brightness", "contrast", "sharpness", "saturation", "clipping")
EVENT_COLUMNS = (
    *("source", "offset", "entity", "event_id", "event_time", "available_at", "event_date", "origin"),
    "picture_sha256",
)
"""Columns that each events table has besides the event's fields, which cannot bear these names."""
Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "last", "distinct", "quantile"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
SHORTEST_WINDOW = timedelta(seconds=6)
LONGEST_WINDOW = timedelta(days=365)

_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_TOPIC = r"^[A-Za-z0-9._-]{1,200}$"
_URI_PREFIX = r"^(file|s3|gs|gcs|abfs|abfss|hdfs)://.*/$"
_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

PATTERNS = {
    _NAME: "a name of lower-case letters, digits and dashes that starts with a letter",
    _IDENTIFIER: "a field name: letters, digits and _, not starting with a digit",
    _TOPIC: "a topic name: letters, digits, dots, dashes and _",
    _URI_PREFIX: "the beginning of a URI that ends with a slash, such as s3://pictures/",
    _IMPORT_PATH: "module:Class, such as inspection.model:Codec",
}
"""Each pattern that text must match, in words."""

Name = Annotated[str, Field(pattern=_NAME, max_length=63)]
Identifier = Annotated[str, Field(pattern=_IDENTIFIER)]
TopicName = Annotated[str, Field(pattern=_TOPIC)]
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH, examples=["inspection.model:Codec"])]
Share = Annotated[float, Field(ge=0, le=1)]


def refuse_repeated(names: Sequence[str], what: str) -> None:
    """Raise `ValueError` that names the first of `names` that is there twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f"{what} {name} is there twice")


class Part(BaseModel):
    """The base of every part: camelCase outside, unknown fields refused, immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=AliasGenerator(alias=to_camel),
        populate_by_name=False,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class Metadata(Part):
    """Which model this is."""

    name: Name
    """Name of the model; with the namespace it prefixes topics, keys and paths."""
    namespace: Name = "default"
    """Namespace; on one machine there is only `default` unless you say otherwise."""
    annotations: dict[str, str] = {}
    """Free text by key, kept as it is."""
    labels: dict[str, str] = {}
    """Selectable text by key, kept as it is."""


class Entity(Part):
    """What an event is about: the key of the record."""

    name: Identifier
    """Field of the event that holds the entity's key."""
    type: Literal["string", "int"] = "string"
    """Type of the key."""


class EventField(Part):
    """One field of an event."""

    name: Identifier
    """Name of the field in the event's JSON object."""
    type: Literal["float", "int", "string", "bool", "image"]
    """Type; an `image` is the base64 of a PNG or JPEG file, or the URI of one (see `uris`)."""
    required: bool = True
    """Whether an event without it is quarantined."""
    min: float | None = None
    """Smallest value allowed (numbers only)."""
    max: float | None = None
    """Largest value allowed (numbers only)."""
    enum: tuple[str, ...] | tuple[int, ...] | None = None
    """Values allowed (strings and whole numbers only)."""
    uris: tuple[Annotated[str, Field(pattern=_URI_PREFIX)], ...] = ()
    """Images only: a picture may be given by a URI that begins with one of these, such as `s3://pictures/`.
    None by default: whoever may write events could else make a worker fetch anything."""

    @model_validator(mode="after")
    def _range_fits(self) -> "EventField":
        if (self.min is not None or self.max is not None) and self.type not in {"float", "int"}:
            raise ValueError(f"min and max are for numbers; {self.name} is of type {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    @model_validator(mode="after")
    def _enum_fits(self) -> "EventField":
        if self.enum is None:
            return self
        kind = {"string": str, "int": int}.get(self.type)
        if kind is None:
            raise ValueError(f"enum is for strings and whole numbers; {self.name} is of type {self.type}")
        if not self.enum or not all(isinstance(value, kind) for value in self.enum):
            raise ValueError(f"enum of {self.name} needs at least one value, each of type {self.type}")
        refuse_repeated([str(value) for value in self.enum], "enum value")
        return self

    @model_validator(mode="after")
    def _uris_are_of_images(self) -> "EventField":
        if self.uris and self.type != "image":
            raise ValueError(f"uris is for images; {self.name} is of type {self.type}")
        return self


class Quarantine(Part):
    """What happens to events that cannot be taken in."""

    stop_above: Share = 0.5
    """Share of bad events among the newest at which ingest stops with an alarm, instead of draining the stream into
    quarantine: then the schema is wrong, not the events. 1.0: never."""


class Events(Part):
    """The stream of facts the model learns from."""

    topic: TopicName | None = None
    """Kafka topic; default `<namespace>.<name>.events`."""
    entity: Entity
    """What an event is about."""
    id: Identifier | None = None
    """Field with the event's own id; labels may refer to it."""
    timestamp: Identifier
    """Field with the event time: ISO 8601 with a zone, or milliseconds since the epoch."""
    allowed_lateness: Duration = timedelta(minutes=10)
    """How late an event may arrive and still count in ticks and windows; it is kept in the lake in any case."""
    max_future: Duration = timedelta(minutes=1)
    """How far ahead of its arrival an event time may lie before the event is quarantined."""
    fields: Annotated[tuple[EventField, ...], Field(min_length=1)]
    """The event's fields, besides entity, id and timestamp; at most one is an image."""
    quarantine: Quarantine = Quarantine()
    """What happens to events that cannot be taken in."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Events":
        own = [name for name in (self.entity.name, self.id, self.timestamp) if name is not None]
        refuse_repeated([*own, *(field.name for field in self.fields)], "field")
        for field in self.fields:
            if field.name in EVENT_COLUMNS:
                raise ValueError(f"field {field.name} has the name of a column that each events table has already")
        images = [field.name for field in self.fields if field.type == "image"]
        if len(images) > 1:
            raise ValueError(f"an event has at most one image, not {', '.join(images)}")
        return self


class Window(Part):
    """An aggregate of an entity's recent events, kept in tiles: the same value online and in training.

    A window of length W ends now, is never older than W, and spans at least W less a tile: a sixtieth of it, a twelfth
    for quantiles and distinct counts. It gives one feature for each length: `seen` over 10m is `seen_10m`.
    """

    name: Identifier
    """Name of the feature, before the length."""
    agg: Aggregation
    """How the values are put together. `distinct` and `quantile` are approximate (about 2 %)."""
    of: Identifier | None = None
    """The event field or picture statistic; none for `count` of events."""
    over: Annotated[tuple[Duration, ...], Field(min_length=1)]
    """Lengths of the window."""
    q: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Which quantile, such as 0.95 (`agg: quantile` only)."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, one for each length."""
        return tuple(f"{self.name}_{format_duration(length)}" for length in self.over)

    @field_validator("of", mode="before")
    @classmethod
    def _of_events(cls, of: object) -> object:
        if isinstance(of, str) and of.startswith("label."):
            raise ValueError(f"{of}: windows over labels are planned, not built yet (stage outcomes); remove it")
        return of

    @model_validator(mode="after")
    def _fits(self) -> "Window":
        if self.of is None and self.agg != "count":
            raise ValueError(f"{self.name}: {self.agg} needs `of`, the field it is about")
        if (self.q is None) == (self.agg == "quantile"):
            raise ValueError(f"{self.name}: q is for agg quantile, which needs it")
        for length in self.over:
            if not SHORTEST_WINDOW <= length <= LONGEST_WINDOW:
                shortest, longest = format_duration(SHORTEST_WINDOW), format_duration(LONGEST_WINDOW)
                raise ValueError(f"{self.name}: a window is {shortest} to {longest} long")
            if round(length.total_seconds() * 1000) % 60:
                raise ValueError(f"{self.name}: {format_duration(length)} is no whole number of milliseconds times 60")
        refuse_repeated([format_duration(length) for length in self.over], "length")
        return self


class Features(Part):
    """What is computed from events, kept for serving and watched for drift."""

    image: tuple[Literal["brightness", "contrast", "sharpness", "saturation", "clipping"], ...] = ()
    """Statistics of the event's image field; of a prediction, those of the picture that was sent with it."""
    windows: tuple[Window, ...] = ()
    """Aggregates of each entity's recent events."""
    service: Identifier | None = None
    """A FeatureService of your own Feast repository (setting `feast_repo`), used as it is."""
    freshness: Duration | None = None
    """How old the newest online values may be (event time to now): an SLO, measured for each view."""
    ttl: Duration | None = None
    """Age at which an entity's last event no longer counts, online and in history; none: never.
    Windows bound their own age."""

    @property
    def window_names(self) -> tuple[str, ...]:
        """Names of the windows' features."""
        return tuple(name for window in self.windows for name in window.features)

    @model_validator(mode="after")
    def _differ(self) -> "Features":
        refuse_repeated(self.image, "image statistic")
        refuse_repeated(self.window_names, "window feature")
        return self


class Prediction(Part):
    """What the model answers."""

    type: Literal["classification", "detection"]
    """`classification`: one class; `detection`: one class and the box of what was found."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """The classes; the first means that nothing was found."""

    @model_validator(mode="after")
    def _classes_differ(self) -> "Prediction":
        refuse_repeated(self.classes, "class")
        return self


class LabelField(Part):
    """One field of a label's value."""

    name: Identifier
    """Name of the field."""
    type: Literal["class", "bool", "float", "int", "string", "box"]
    """`class`: one of `prediction.classes`; `box`: [x0, y0, x1, y1] in pixels, or null."""


class Maturity(Part):
    """When a prediction may be judged."""

    after: Duration = timedelta(minutes=30)
    """Earliest age of a prediction in reports, training, gates and verdicts."""
    horizon: Duration = timedelta(days=14)
    """Age at which a missing label is final."""

    @model_validator(mode="after")
    def _in_order(self) -> "Maturity":
        if self.horizon < self.after:
            raise ValueError("horizon must not be shorter than after")
        return self

    @property
    def kept(self) -> timedelta:
        """How long what labels are joined with is kept: a day longer than they count, for a worker that was stopped."""
        return self.horizon + timedelta(days=1)


class Labels(Part):
    """What turned out to be true."""

    topic: TopicName | None = None
    """Kafka topic; default `<namespace>.<name>.labels`."""
    fields: Annotated[tuple[LabelField, ...], Field(min_length=1)]
    """The fields of a label's value."""
    maturity: Maturity = Maturity()
    """When a prediction may be judged."""
    control: Share = 0.0
    """Share of predictions sure to be labelled whatever the answer or version; 1.0: all are."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Labels":
        refuse_repeated([field.name for field in self.fields], "field")
        return self


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


class DriftTrigger(Part):
    """Retrain when the input has moved further than can be lived with."""

    tolerance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Largest change of any cumulative share P(x <= q) that is not drift."""
    false_alarms: Rate = Rate(1, timedelta(days=30))
    """Budget of false alarms over everything watched, on average."""
    every: Duration = timedelta(seconds=10)
    """Length of a window tick: each entity has one vote a tick."""

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
    artifact_root: str | None = None
    """Where versions are kept; default: a folder of this installation."""

    @model_validator(mode="after")
    def _features_have_their_source(self) -> "Spec":
        if self.features.image and not any(field.type == "image" for field in self.events.fields):
            raise ValueError("features.image needs a field of type image in events.fields")
        numbers = [field.name for field in self.events.fields if field.type in {"float", "int"}]
        fields = [field.name for field in self.events.fields]
        refuse_repeated([*fields, *self.features.image, *self.features.window_names], "feature")
        if self.triggers.drift is not None and not numbers and not self.features.image:
            raise ValueError("triggers.drift has nothing to watch: features.image is empty, and no field is a number")
        return self

    @model_validator(mode="after")
    def _windows_have_their_source(self) -> "Spec":
        events = {field.name: field.type for field in self.events.fields if field.type != "image"}
        events |= dict.fromkeys(self.features.image, "float")
        for window in self.features.windows:
            kind = events.get(window.of) if window.of is not None else None
            if window.of is not None and kind is None:
                raise ValueError(f"features.windows: {window.name} is of {window.of}; there are {', '.join(events)}")
            if kind == "string" and window.agg not in {"count", "last", "distinct"}:
                raise ValueError(
                    f"features.windows: {window.name}: {window.agg} is for numbers; {window.of} is a string"
                )
        return self

    @model_validator(mode="after")
    def _labels_say_what_is_judged(self) -> "Spec":
        types = [field.type for field in self.labels.fields]
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
        numbers = tuple(field.name for field in self.spec.events.fields if field.type in {"float", "int"})
        return numbers + self.spec.features.image
