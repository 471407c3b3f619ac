"""Labels as events of their entities, for windows over labels (`of: label.defect`): their own view, `labels`.

A label counts for the entity that it names, at the time when it was said (its `time`, else its arrival), from its
arrival on; the same rules as for events hold for lateness. A label that names a prediction alone names no entity, and
counts in no window. One that is said again counts again, as an event does that is sent again.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from tidemill.features.layout import Kind, Layout, check_size
from tidemill.features.tiles import tiled
from tidemill.spec.inputs import LABEL_PREFIX
from tidemill.spec.model import ContinualModel

__all__ = ["LABELS", "label_events", "label_kinds", "label_layout"]

LABELS = "labels"
"""Name of the view of each entity's labels."""

_KINDS: dict[str, Kind] = {"bool": "bool", "float": "float", "int": "int", "class": "string", "string": "string"}
_TYPES: dict[Kind, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
}
_INT64 = 1 << 63
_DECODER = msgspec.json.Decoder(dict[str, Any])
_PLACE = ("source", "offset", "entity", "event_time", "available_at")


def label_kinds(resource: ContinualModel) -> tuple[tuple[str, Kind], ...]:
    """The fields that windows are of, as `label.<name>`, each with its kind."""
    asked = {window.of for window in resource.spec.features.label_windows}
    fields = resource.spec.labels.fields
    return tuple(
        (LABEL_PREFIX + field.name, _KINDS[field.type]) for field in fields if LABEL_PREFIX + field.name in asked
    )


def label_layout(resource: ContinualModel) -> Layout:
    """The layout of the view's rows. Raises `InvalidInput` where a row may get too large."""
    spec = resource.spec
    windows = tiled(spec.features.label_windows, spec.events.allowed_lateness)
    return check_size(Layout(label_kinds(resource), windows))


def label_events(labels: pl.LazyFrame, kinds: Sequence[tuple[str, Kind]]) -> pl.LazyFrame:
    """Labels that name their entity, with the columns that windows need of events.

    Args:
        labels: the lake's labels: source, offset, entity, event_time, available_at and the value as JSON.
        kinds: from `label_kinds`.

    Returns:
        source, offset, entity, event_time, available_at, event_date, and a column for each of `kinds`, null where a
        label does not have it.
    """
    said = labels.filter(pl.col("entity").is_not_null() & pl.col("value").is_not_null())
    fields = pl.col("value").map_batches(
        lambda values: _fields(values, kinds), return_dtype=pl.Struct({name: _TYPES[kind] for name, kind in kinds})
    )
    day = pl.col("event_time").dt.date().alias("event_date")
    return said.select(*_PLACE, day, fields.alias("fields")).unnest("fields")


def _fields(values: pl.Series, kinds: Sequence[tuple[str, Kind]]) -> pl.Series:
    """Of each label its fields by name. Polars' own reader of JSON rounds numbers, and fails for another type."""
    rows = [_DECODER.decode(value) for value in values]
    columns = [
        pl.Series(name, [_fitting(row.get(name.removeprefix(LABEL_PREFIX)), kind) for row in rows], _TYPES[kind])
        for name, kind in kinds
    ]
    return pl.DataFrame(columns).to_struct("fields")


def _fitting(value: Any, kind: Kind) -> Any:
    """The value, or None where it is of another kind: the resource may have said otherwise when it was taken in."""
    if isinstance(value, bool) or value is None:
        return value if kind == "bool" else None
    if kind == "float":
        return float(value) if isinstance(value, int | float) else None
    if kind == "int":
        return value if isinstance(value, int) and -_INT64 <= value < _INT64 else None
    return value if kind == "string" and isinstance(value, str) else None
