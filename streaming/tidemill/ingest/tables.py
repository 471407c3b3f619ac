"""The tables that ingest writes."""

import polars as pl

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.pictures import DIGEST_COLUMN, PictureStore
from tidemill.spec.model import ContinualModel

__all__ = [
    "EVENT_COLUMNS",
    "QUARANTINE_COLUMNS",
    "TIME",
    "events_schema",
    "events_table",
    "picture_store",
    "quarantine_table",
]

TIME = pl.Datetime("us", "UTC")
"""Type of every time in the lake; events carry milliseconds."""

EVENT_COLUMNS = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "event_time": TIME,
    "available_at": TIME,
    "event_date": pl.Date(),
    "origin": pl.String(),
    DIGEST_COLUMN: pl.String(),
}
"""Columns of every events table; `origin` is the source/offset of a record that is a replay from quarantine."""

QUARANTINE_COLUMNS = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "reason": pl.String(),
    "field": pl.String(),
    "available_at": TIME,
    "available_date": pl.Date(),
    "key": pl.Binary(),
    "value": pl.Binary(),
    "headers": pl.String(),
    "truncated": pl.Boolean(),
    "origin": pl.String(),
}
"""Columns of every quarantine table; `headers` is JSON, [name, base64] each. `origin` is that of a replay."""

_TYPES: dict[str, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
    "image": pl.Binary(),
}


def events_schema(resource: ContinualModel) -> dict[str, pl.DataType]:
    """Columns of the events table: the fixed ones, each event field, each picture statistic."""
    fields = {field.name: _TYPES[field.type] for field in resource.spec.events.fields}
    statistics: dict[str, pl.DataType] = {name: pl.Float64() for name in resource.spec.features.image}
    return {**EVENT_COLUMNS, **fields, **statistics}


def events_table(lake: str, resource: ContinualModel) -> LakeTable:
    """Where events are kept, as ingest appends to it."""
    uri = table_uri(lake, resource.id, "events")
    return LakeTable(uri, events_schema(resource), pipeline="ingest", partition_by=("event_date",), compacts=False)


def quarantine_table(lake: str, resource: ContinualModel) -> LakeTable:
    """Where records are kept that could not be taken in."""
    uri = table_uri(lake, resource.id, "quarantine")
    return LakeTable(uri, QUARANTINE_COLUMNS, pipeline="ingest", partition_by=("available_date",), compacts=False)


def picture_store(lake: str, resource: ContinualModel) -> PictureStore:
    """Where a model's large pictures are kept."""
    return PictureStore(table_uri(lake, resource.id, "pictures"))
