"""Feast's entity, feature view and feature service of a ContinualModel. Importing this imports Feast.

The source is the lake's events table, for `feast ui` and lineage. Do not train from it with Feast's default offline
store, which drops rows whose features are missing; point-in-time retrieval of our own is not built yet.
"""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Bool, Float64, Int64, String

from tidemill.core.errors import InvalidInput
from tidemill.events.lake import table_uri
from tidemill.features.feast_online import MODEL_TAG, VIEW_TAG
from tidemill.features.layout import EVENTS, Layout, layout_of
from tidemill.features.project import project_name
from tidemill.features.tiles import Tiled
from tidemill.spec.model import ContinualModel

__all__ = ["VIEW", "definitions"]

VIEW = EVENTS
"""Name of the view of an entity's events."""

_TYPES = {"float": Float64, "int": Int64, "string": String, "bool": Bool}
_KEYS = {"string": (ValueType.STRING, String), "int": (ValueType.INT64, Int64)}


def definitions(resource: ContinualModel, lake: str) -> list[Any]:
    """What Feast shall know of the model: `[Entity, FeatureView, FeatureService]`.

    The view `events` has each event field that is no picture and each picture statistic of the entity's last event,
    and the windows over its events; the service is named as the project is. Raises `InvalidInput` for a model without
    any such value.
    """
    events, layout = resource.spec.events, layout_of(resource)
    key_type, key_field = _KEYS[events.entity.type]
    fields = [Field(name=name, dtype=_TYPES[kind]) for name, kind in layout.fields]
    fields += [Field(name=window.name, dtype=_window_type(layout, window)) for window in layout.windows]
    if not fields:
        raise InvalidInput(
            f"{resource.id} has no feature: its events have only pictures",
            hint="name picture statistics under spec.features.image, or add a field to spec.events.fields",
        )
    tags = {MODEL_TAG: resource.id, VIEW_TAG: VIEW}
    entity = Entity(name=events.entity.name, join_keys=[events.entity.name], value_type=key_type, tags=tags)
    source = FileSource(
        name=f"{VIEW}_lake",
        path=table_uri(lake, resource.id, "events"),
        file_format=DeltaFormat(),
        timestamp_field="event_time",
        created_timestamp_column="available_at",
        field_mapping={"entity": events.entity.name},
        tags=tags,
    )
    view = FeatureView(
        name=VIEW,
        entities=[entity],
        schema=[Field(name=events.entity.name, dtype=key_field), *fields],
        source=source,
        ttl=resource.spec.features.ttl or timedelta(0),  # 0: never
        online=True,
        tags=tags,
    )
    return [entity, view, FeatureService(name=project_name(resource.id), features=[view], tags=tags)]


def _window_type(layout: Layout, window: Tiled) -> Any:
    if window.agg in {"count", "distinct"}:
        return Int64
    kind = layout.kind_of(window)
    return _TYPES[kind] if kind else Float64
