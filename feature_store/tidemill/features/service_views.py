"""What a FeatureService is made of, checked against a resource: its views, on-demand views, keys and names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from tidemill.core.errors import InvalidInput, Unsupported
from tidemill.spec.inputs import EVENT_COLUMNS
from tidemill.spec.model import ContinualModel

__all__ = ["OnDemand", "Plan", "View", "plan"]

_TYPES: Mapping[str, Any] = {
    "Int32": pl.Int32(),
    "Int64": pl.Int64(),
    "Float32": pl.Float32(),
    "Float64": pl.Float64(),
    "String": pl.String(),
    "Bool": pl.Boolean(),
}
"""Feast's types that a feature may have, by name."""
_COLUMNS: Mapping[str, Any] = {"float": pl.Float64(), "int": pl.Int64(), "string": pl.String(), "bool": pl.Boolean()}
_KEYS = {"string": {"STRING"}, "int": {"INT64", "INT32"}}
"""Feast's value types that a join key may have, by the type of its field."""


@dataclass(frozen=True)
class View:
    """A feature view, and which of its features are read (an on-demand view may need more than the service has)."""

    name: str
    keys: tuple[str, ...]
    features: dict[str, Any]
    """Polars type by name."""
    ttl: timedelta | None
    """Age at which a value is absent; None: never."""

    @property
    def refs(self) -> list[str]:
        """The features as Feast is asked for them."""
        return [f"{self.name}:{feature}" for feature in self.features]

    def full(self, feature: str) -> str:
        """The feature's name with the view's, as Feast writes it: two views may have features of one name."""
        return f"{self.name}__{feature}"


@dataclass(frozen=True)
class OnDemand:
    """An on-demand feature view of the service."""

    name: str
    features: dict[str, Any]
    feast: Any
    """Feast's own object."""

    def full(self, feature: str) -> str:
        """As of a view."""
        return f"{self.name}__{feature}"


@dataclass(frozen=True)
class Plan:
    """How a service's features come about."""

    views: tuple[View, ...]
    on_demand: tuple[OnDemand, ...]
    keys: tuple[str, ...]
    schema: dict[str, Any]
    """Columns that a row brings, with their types: join keys, then request-time inputs."""
    sources: dict[str, str]
    """Full name of each of the service's features, by name."""
    types: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The service's features."""
        return tuple(self.sources)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that a row brings."""
        return tuple(self.schema)


def plan(resource: ContinualModel, store: Any, service: Any) -> Plan:
    """What the service needs and gives. Raises `InvalidInput` or `Unsupported` where it does not fit the resource."""
    wanted: dict[str, dict[str, Any]] = {}
    on_demand, request = [], dict[str, Any]()
    order: list[tuple[str, dict[str, Any]]] = []
    for projection in service.feature_view_projections:
        features = {field.name: _type(projection.name, field) for field in projection.features}
        order.append((projection.name, features))
        if projection.view_type == "onDemandFeatureView" or projection.batch_source is None:
            view = store.get_on_demand_feature_view(projection.name)
            _refuse_unusual(view)
            on_demand.append(OnDemand(projection.name, features, view))
            for source in view.source_request_sources.values():
                request |= {field.name: field for field in source.schema}
            sources: Iterable[Any] = view.source_feature_view_projections.values()
        else:
            sources = [projection]
        for source in sources:
            if source.join_key_map:
                raise Unsupported(f"{service.name} renames the join keys of {source.name} (with_join_key_map)")
            wanted.setdefault(source.name, {}).update({one.name: _type(source.name, one) for one in source.features})
    views = tuple(_view(resource, store, name, features) for name, features in wanted.items())
    keys = tuple(dict.fromkeys(key for view in views for key in view.keys))
    taken = {key: _column(resource, key, f"join key of {service.name}") for key in keys}
    taken |= {name: _column(resource, name, f"request-time input of {service.name}") for name in request}
    names = [(name, f"{view}__{name}", kind) for view, features in order for name, kind in features.items()]
    _refuse_taken(resource, service.name, [name for name, _, _ in names])
    return Plan(
        views=views,
        on_demand=tuple(on_demand),
        keys=keys,
        schema=taken,
        sources={name: full for name, full, _ in names},
        types={name: kind for name, _, kind in names},
    )


def _view(resource: ContinualModel, store: Any, name: str, features: dict[str, Any]) -> View:
    view = _stored_view(store, name)
    entities = [store.get_entity(entity) for entity in view.entities if entity != "__dummy"]
    for entity in entities:
        _check_key(resource, name, entity)
    ttl = view.ttl if view.ttl else None  # Feast writes "never" as zero
    return View(name, tuple(entity.join_key for entity in entities), features, ttl)


def _stored_view(store: Any, name: str) -> Any:
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException:
        return store.get_stream_feature_view(name)


def _check_key(resource: ContinualModel, view: str, entity: Any) -> None:
    """A join key is the resource's entity or a field that each event has, of the same type."""
    events, key = resource.spec.events, entity.join_key
    fields = {field.name: field for field in events.fields}
    if key == events.entity.name:
        declared: str = events.entity.type
    elif key in fields and fields[key].type in _KEYS and fields[key].required:
        declared = fields[key].type
    else:
        can = [events.entity.name, *(one.name for one in events.fields if one.type in _KEYS and one.required)]
        raise InvalidInput(
            f"feature view {view} is joined by {key}, and no event has that; keys can be {', '.join(can)}",
            hint=f"add a required field {key} to spec.events.fields, or name the entity's field so",
        )
    kind = entity.value_type.name
    if kind != "UNKNOWN" and kind not in _KEYS[declared]:
        raise InvalidInput(f"feature view {view} is joined by {key}: Feast has it as {kind}, events as {declared}")


def _column(resource: ContinualModel, name: str, what: str) -> Any:
    events = resource.spec.events
    if name == events.entity.name:
        return _COLUMNS[events.entity.type]
    kinds = {field.name: _COLUMNS[field.type] for field in events.fields if field.type in _COLUMNS}
    if name not in kinds:
        have = ", ".join([events.entity.name, *kinds])
        raise InvalidInput(f"{name}, a {what}, is no field of an event; there are {have}")
    return kinds[name]


def _refuse_taken(resource: ContinualModel, service: str, names: Sequence[str]) -> None:
    spec = resource.spec
    taken = dict.fromkeys(EVENT_COLUMNS, "a column of the events table")
    taken |= {window: "a window" for one in spec.features.windows for window in one.features}
    taken |= dict.fromkeys(spec.features.image, "a picture statistic")
    taken |= {field.name: "an event field" for field in spec.events.fields}
    taken |= {field.name: "a label field" for field in spec.labels.fields}
    taken[spec.events.entity.name] = "the entity"
    for position, name in enumerate(names):
        other = "another feature of it" if name in names[:position] else taken.get(name)
        if other:
            raise InvalidInput(
                f"FeatureService {service} has a feature {name}, which is the name of {other}, too",
                hint="rename the feature in your repository, or the field in the resource",
            )


def _refuse_unusual(view: Any) -> None:
    for unusual in ("write_to_online_store", "singleton", "aggregations"):
        if getattr(view, unusual, None):
            raise Unsupported(f"the on-demand feature view {view.name} uses {unusual}, which is not supported here")


def _type(view: str, field: Any) -> Any:
    name = getattr(field.dtype, "name", str(field.dtype)).title()
    if name not in _TYPES:
        raise Unsupported(
            f"feature {view}:{field.name} is of type {field.dtype}; a model takes {', '.join(_TYPES)}",
            hint="leave it out of the FeatureService",
        )
    return _TYPES[name]
