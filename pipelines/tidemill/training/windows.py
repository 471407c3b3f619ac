"""Window features of a dataset's rows: as they were served, else as they stood at the event's time.

What a model saw is in the prediction log, and nothing that is computed afterwards is more like it: there are no clocks
to disagree with. So where the event was predicted and the features could be read, these values stand. Of several
predictions of one event it is the first or none: the windows of a later one may hold the event itself.

An event that was never predicted, or whose first prediction could not read the features, gets V(entity, t, t) at its
event time t: what had arrived by then, and so, as it is in serving, most often not the event itself, which is asked
about while it is on its way to the lake. At its arrival it would count in its own windows, which served rows hardly
ever see.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import polars as pl

from tidemill.features.label_events import label_events, label_kinds
from tidemill.features.point_in_time import scan_windows
from tidemill.outcomes.tables import LABELS
from tidemill.spec.model import ContinualModel
from tidemill.training.logged import KEY, first_predictions

__all__ = ["FROM", "with_windows"]

FROM = "windows_from"
"""Column that says whose window features a row has: the id of the prediction that logged them; null: recomputed."""

_READ = ("PRESENT", "OUTSIDE_MAX_AGE")
"""Statuses with windows' values: windows bound their own age, so those of an old row stand as well."""
_decoder = msgspec.json.Decoder(dict[str, Any])


def with_windows(
    rows: pl.DataFrame,
    events: pl.LazyFrame,
    resource: ContinualModel,
    *,
    labels: pl.LazyFrame | None = None,
    predictions: pl.LazyFrame | None = None,
    as_of: int | None = None,
) -> pl.DataFrame:
    """The rows, in their order, with a column per window feature and `windows_from`; unchanged where there is none.

    Args:
        rows: columns entity, event_id and event_time.
        events: the lake's events.
        resource: for the windows.
        labels: the lake's labels, for windows over them; without it, they see none.
        predictions: the lake's predictions.
        as_of: milliseconds since the epoch; predictions that arrived later are not seen (None: all are).
    """
    names = resource.spec.features.window_names
    if not names:
        return rows
    computed = _computed(rows, events, labels, resource).select(names)
    logged = _logged(rows, computed.schema, predictions, as_of)
    served = rows.select(KEY).join(logged, on=KEY, how="left", maintain_order="left")
    is_served = served[FROM].is_not_null()
    values = [served[name].zip_with(is_served, computed[name]) for name in names]
    return rows.with_columns(*values, served[FROM])


def _computed(
    rows: pl.DataFrame, events: pl.LazyFrame, labels: pl.LazyFrame | None, resource: ContinualModel
) -> pl.DataFrame:
    """V(entity, t, t) of each window at the rows' event times."""
    features, times = resource.spec.features, resource.spec.events
    asked = rows.select(pl.col("entity").cast(pl.String), pl.col("event_time").alias("at"))
    said = pl.LazyFrame(schema=LABELS) if labels is None else labels
    found = [
        scan_windows(asked, seen, windows, allowed_lateness=times.allowed_lateness, max_future=times.max_future)
        for seen, windows in (
            (events.with_columns(pl.col("entity").cast(pl.String)), features.event_windows),
            (label_events(said, label_kinds(resource)), features.label_windows),
        )
        if windows
    ]
    return pl.concat(found, how="horizontal")


def _logged(
    rows: pl.DataFrame, types: Mapping[str, pl.DataType], predictions: pl.LazyFrame | None, as_of: int | None
) -> pl.DataFrame:
    """What was logged of the events whose first prediction read its windows, one row an event."""
    schema = {"entity": rows.schema["entity"], "event_id": rows.schema["event_id"], FROM: pl.String(), **types}
    if predictions is None:
        return pl.DataFrame(schema=schema)
    first = first_predictions(predictions, rows, "prediction_id", "features", "feature_status", as_of=as_of)
    read = first.filter(pl.col("feature_status").is_in(_READ))
    return pl.DataFrame(list(_values(read, types)), schema=schema, orient="row")


def _values(first: pl.DataFrame, types: Mapping[str, pl.DataType]) -> Iterator[tuple[Any, ...]]:
    """Rows of those predictions that logged every window: a version from before a window did not have it."""
    for *key, prediction, text in first.select(*KEY, "prediction_id", "features").iter_rows():
        features = _decoder.decode(text)
        if types.keys() <= features.keys():
            yield (*key, prediction, *(_typed(features[name], kind) for name, kind in types.items()))


def _typed(value: Any, kind: pl.DataType) -> Any:
    """JSON writes 2.0 as 2.0 but other writers may not; a whole number is one in either form."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if kind.is_integer() else float(value)
