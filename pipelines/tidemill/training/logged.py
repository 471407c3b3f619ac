"""What was logged with the first prediction of each event: a later one may know what came of the event."""

import polars as pl

from tidemill.core.clock import from_ms

__all__ = ["KEY", "first_predictions"]

KEY = ["entity", "event_id"]
"""The columns that name an event."""


def first_predictions(
    predictions: pl.LazyFrame, rows: pl.DataFrame, *columns: str, as_of: int | None = None
) -> pl.DataFrame:
    """Of each event that was predicted its first prediction, whatever that could read: KEY and these columns.

    Args:
        predictions: the lake's predictions.
        rows: the events that are asked about, by KEY; those without an id were never predicted.
        columns: of the predictions.
        as_of: milliseconds since the epoch; predictions that arrived later are not seen (None: all are).
    """
    if as_of is not None:
        predictions = predictions.filter(pl.col("available_at") <= from_ms(as_of))
    return (
        predictions.join(rows.lazy().select(KEY).unique(), on=KEY, how="semi")
        .sort("predicted_at", "source", "offset")
        .unique(KEY, keep="first", maintain_order=True)
        .select(*KEY, *columns)
        .collect()
    )
