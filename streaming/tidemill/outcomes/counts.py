"""What serving processes said of themselves (`ServingCount`), kept in the lake: the log forgets it, loss stays.

One row a word that says something new. `tidemill.outcomes.gaps` is told all of them again when a worker starts.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.events.lake import LakeTable
from tidemill.events.records import ServingCount

__all__ = ["COUNTS", "count_row", "told"]

_TIME = pl.Datetime("us", "UTC")

COUNTS: dict[str, Any] = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "boot": pl.String(),
    "answered": pl.Int64(),
    "logged": pl.Int64(),
    "settled": pl.Int64(),
    "capacity": pl.Int64(),
    "every_ms": pl.Int64(),
    "ended": pl.Boolean(),
    "available_at": _TIME,
    "available_date": pl.Date(),
}


def count_row(word: ServingCount, arrived_at: int) -> dict[str, Any]:
    """A row of `counts`, without its source and offset."""
    return {
        "boot": word.boot,
        "answered": word.answered,
        "logged": word.logged,
        "settled": word.settled,
        "capacity": word.capacity,
        "every_ms": word.every_ms,
        "ended": word.ended,
        "available_at": arrived_at,
    }


def told(table: LakeTable) -> Iterator[tuple[ServingCount, int]]:
    """Of each process all that it said together, and when its last word arrived (milliseconds)."""
    if not table.exists:
        return
    largest = [pl.col(name).max() for name in ("answered", "logged", "settled", "capacity", "every_ms")]
    found = table.scan().group_by("boot").agg(*largest, pl.col("ended").any(), pl.col("available_at").max())
    for row in table.collect(found).iter_rows(named=True):
        arrived_at = row.pop("available_at")
        yield ServingCount(**row), to_ms(arrived_at)
