"""Feast's entity, feature view and feature service of a ContinualModel. Importing this imports Feast.

The source is the lake's events table: the offline store reads it as of a time, windows included
(`tidemill.features.feast_offline`), and `feast ui` shows where values come from.
"""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Bool, Float64, Int64, String

from tidemill.core.errors import InvalidInput
from tidemill.events.lake import table_uri
from tidemill.features.feast_online import MODEL_TAG, VIEW_TAG
from tidemill.features.label_events import LABELS, label_layout
from tidemill.features.layout import EVENTS, Layout, layout_of
from tidemill.features.project import project_name
from tidemill.features.tiles import Tiled
from tidemill.features.window_tag import windows_tag
from tidemill.spec.model import ContinualModel

__all__ = ["VIEW", "definitions"]

VIEW = EVENTS
"""Name of the view of an entity's events."""

_TYPES = {"float": Float64, "int": Int64, "string": String, "bool": Bool}
_KEYS = {"string": (ValueType.STRING, String), "int": (ValueType.INT64, Int64)}


def definitions(resource: ContinualModel, lake: str) -> list[Any]:
    """What Feast shall know of the model: its entity, its views, and a service of all of them.

    The view `events` has each event field that is no picture and each picture statistic of the entity's last event,
    and the windows over its events; the view `labels` has the windows over its labels, where there are such; the
    service is named as the project is. Raises `InvalidInput` for a model without any such value.
    """
    events, layout, of_labels = resource.spec.events, layout_of(resource), label_layout(resource)
    fields = [Field(name=name, dtype=_TYPES[kind]) for name, kind in layout.fields]
    fields += _windows(layout)
    if not fields and not of_labels.windows:
        raise InvalidInput(
            f"{resource.id} has no feature: its events have only pictures",
            hint="name picture statistics under spec.features.image, or add a field to spec.events.fields",
        )
    tags = {MODEL_TAG: resource.id, VIEW_TAG: VIEW}
    key_type, _ = _KEYS[events.entity.type]
    entity = Entity(name=events.entity.name, join_keys=[events.entity.name], value_type=key_type, tags=tags)
    views: list[Any] = [_view(resource, lake, entity, VIEW, fields, resource.spec.features.ttl)] if fields else []
    if of_labels.windows:
        views.append(_view(resource, lake, entity, LABELS, _windows(of_labels), None))
    return [entity, *views, FeatureService(name=project_name(resource.id), features=views, tags=tags)]


def _view(
    resource: ContinualModel, lake: str, entity: Entity, name: str, fields: list[Field], ttl: timedelta | None
) -> FeatureView:
    key = resource.spec.events.entity
    tags = {MODEL_TAG: resource.id, VIEW_TAG: name} | windows_tag(resource, name)
    source = FileSource(
        name=f"{name}_lake",
        path=table_uri(lake, resource.id, name),
        file_format=DeltaFormat(),
        timestamp_field="event_time",
        created_timestamp_column="available_at",
        field_mapping={"entity": key.name},
        tags=tags,
    )
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=key.name, dtype=_KEYS[key.type][1]), *fields],
        source=source,
        ttl=ttl or timedelta(0),  # 0: never
        online=True,
        tags=tags,
    )


def _windows(layout: Layout) -> list[Field]:
    return [Field(name=window.name, dtype=_window_type(layout, window)) for window in layout.windows]


def _window_type(layout: Layout, window: Tiled) -> Any:
    if window.agg in {"count", "distinct"}:
        return Int64
    kind = layout.kind_of(window)
    return _TYPES[kind] if kind else Float64
