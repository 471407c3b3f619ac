"""What goes in: `spec.events`, and `spec.features` that are computed from them."""

from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from tidemill.core.clock import to_ms
from tidemill.spec.part import URI_PREFIX, Identifier, Part, Share, TopicName, Windowed, refuse_repeated
from tidemill.spec.quantities import Duration, format_duration

__all__ = [
    "AGGREGATIONS",
    "EVENT_COLUMNS",
    "IMAGE_STATISTICS",
    "LABEL_PREFIX",
    "Aggregation",
    "Entity",
    "EventField",
    "Events",
    "Features",
    "Quarantine",
    "Window",
]

IMAGE_STATISTICS = ("brightness", "contrast", "sharpness", "saturation", "clipping")
EVENT_COLUMNS = (
    *("source", "offset", "entity", "event_id", "event_time", "available_at", "event_date", "origin"),
    "picture_sha256",
)
"""Columns that each events table has besides the event's fields, which cannot bear these names."""
Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "last", "distinct", "quantile"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
LABEL_PREFIX = "label."
"""Before the name of a label's field where it might be taken for an event's."""
SHORTEST_WINDOW = timedelta(seconds=6)
LONGEST_WINDOW = timedelta(days=365)
_ANY_OF = Field(max_length=1000)


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
    enum: Annotated[tuple[str, ...], _ANY_OF] | Annotated[tuple[int, ...], _ANY_OF] | None = None
    """Values allowed (strings and whole numbers only)."""
    uris: Annotated[tuple[Annotated[str, Field(pattern=URI_PREFIX)], ...], Field(max_length=100)] = ()
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
    fields: Annotated[tuple[EventField, ...], Field(min_length=1, max_length=1000)]
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
    of: Windowed | None = None
    """The event field or picture statistic; `label.` and its name for a field of the labels of the entity's events;
    none for `count` of events."""
    over: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=10)]
    """Lengths of the window."""
    q: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Which quantile, such as 0.95 (`agg: quantile` only)."""

    @property
    def is_of_labels(self) -> bool:
        """Whether it aggregates labels, and not events."""
        return self.of is not None and self.of.startswith(LABEL_PREFIX)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, one for each length."""
        return tuple(f"{self.name}_{format_duration(length)}" for length in self.over)

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
            if to_ms(length) % 60:
                raise ValueError(f"{self.name}: {format_duration(length)} is no whole number of milliseconds times 60")
        refuse_repeated([format_duration(length) for length in self.over], "length")
        return self


class Features(Part):
    """What is computed from events, kept for serving and watched for drift."""

    image: tuple[Literal["brightness", "contrast", "sharpness", "saturation", "clipping"], ...] = ()
    """Statistics of the event's image field; of a prediction, those of the picture that was sent with it."""
    windows: Annotated[tuple[Window, ...], Field(max_length=100)] = ()
    """Aggregates of each entity's recent events and labels."""
    service: Identifier | None = None
    """A FeatureService of your own Feast repository (setting `feast_repo`), used as it is."""
    freshness: Duration | None = None
    """How old the newest online values may be (event time to now): an SLO, measured for each view."""
    ttl: Duration | None = None
    """Age at which an entity's last event no longer counts, online and in history; none: never.
    Windows bound their own age."""

    @property
    def event_windows(self) -> tuple[Window, ...]:
        """Those of events."""
        return tuple(window for window in self.windows if not window.is_of_labels)

    @property
    def label_windows(self) -> tuple[Window, ...]:
        """Those of labels."""
        return tuple(window for window in self.windows if window.is_of_labels)

    @property
    def window_names(self) -> tuple[str, ...]:
        """Names of the windows' features."""
        return tuple(name for window in self.windows for name in window.features)

    @model_validator(mode="after")
    def _differ(self) -> "Features":
        refuse_repeated(self.image, "image statistic")
        refuse_repeated(self.window_names, "window feature")
        return self
