"""What the user's FeatureService had of each row: as it was served where that is known, else as of the event's time.

The values that a prediction was made with stand in the prediction log, and nothing is more like serving than what was
served. Of several predictions of one event it is the first: a later one may know what came of the event. An event
that was never predicted, or while the service's store did not answer, gets the historical values.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import polars as pl

from tidemill.training.logged import KEY, first_predictions

__all__ = ["ServiceHistory", "with_service"]

_UNAVAILABLE = "UNAVAILABLE"
_values = msgspec.json.Decoder(dict[str, Any])


class ServiceHistory(Protocol):
    """A FeatureService's past; `tidemill.features.service.RepositoryService` is one."""

    @property
    def types(self) -> Mapping[str, Any]:
        """Polars type of each feature, by name."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that it asks of a row."""
        ...

    def historical(self, rows: pl.DataFrame, time: str) -> pl.DataFrame:
        """The features as of each row's `time`; one row each, in order."""
        ...


def with_service(
    frame: pl.DataFrame,
    service: ServiceHistory,
    predictions: pl.LazyFrame | None,
    *,
    entity: str,
    as_of: int | None = None,
) -> tuple[pl.DataFrame, int]:
    """The rows with the service's features, and how many of them have the values that were served.

    Args:
        frame: from `dataset.content`.
        service: the service.
        predictions: the lake's predictions, if there are any.
        entity: name of the resource's entity, whose key is the column `entity`.
        as_of: milliseconds since the epoch; predictions that arrived later are not seen (None: all are).
    """
    logged = _logged(frame, service.types, predictions, as_of)
    is_logged = frame.join(logged, on=KEY, how="left", maintain_order="left")["logged"].is_not_null()
    served = frame.filter(is_logged).join(logged.drop("logged"), on=KEY, how="left", maintain_order="left")
    other = frame.filter(~is_logged)
    if other.height:
        wanted = other.with_columns(pl.col("entity").alias(entity)).select(*service.inputs, "event_time")
        other = pl.concat([other, service.historical(wanted, "event_time")], how="horizontal")
    else:
        other = served.clear()
    both = pl.concat([served.select(other.columns), other])
    return both.sort("event_time", "source", "offset"), served.height


def _logged(
    frame: pl.DataFrame, types: Mapping[str, Any], predictions: pl.LazyFrame | None, as_of: int | None
) -> pl.DataFrame:
    """Columns entity, event_id, logged (true) and the features, of each event whose first prediction knew them all."""
    rows: list[dict[str, Any]] = []
    if predictions is not None and "feature_statuses" in predictions.collect_schema():
        found = first_predictions(predictions, frame, "features", "feature_statuses", as_of=as_of)
        for entity, event_id, features, statuses in found.iter_rows():
            values, absent = _values.decode(features or "{}"), _values.decode(statuses or "{}")
            if types.keys() <= values.keys() and _UNAVAILABLE not in {absent.get(name) for name in types}:
                rows.append({"entity": entity, "event_id": event_id, "logged": True} | {n: values[n] for n in types})
    schema = {"entity": frame.schema["entity"], "event_id": frame.schema["event_id"], "logged": pl.Boolean(), **types}
    return pl.DataFrame(rows, schema=schema)
