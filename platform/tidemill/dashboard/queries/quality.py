"""Quality over time: the error of each version in windows, with its band and the share that is labelled."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.outcomes.known import Cut, Kind
from tidemill.outcomes.quality import quality_of
from tidemill.spec.model import ContinualModel

__all__ = ["QualityPoint", "quality_over_time", "window_for"]

_OUTCOMES = 8000
"""Newest outcomes that the picture is of: more would take longer than a second to add up."""
_WINDOWS = 40
_MINUTE = 60_000
_LENGTHS = (
    *(1000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(60 * _MINUTE * hours for hours in (1, 2, 6, 12, 24, 168)),
)


@dataclass(frozen=True, slots=True)
class QualityPoint:
    """One version in one window of time."""

    version: str
    at: int
    """Where the window begins, milliseconds since the epoch."""
    error: float | None
    low: float
    high: float
    outcomes: int
    labelled: int
    kind: Kind


def quality_over_time(lake: str, resource: ContinualModel) -> tuple[int, tuple[QualityPoint, ...]]:
    """The length of the windows in milliseconds, and the points, by version and time. Raises `Unavailable`."""
    try:
        first, last = _span(lake, resource)
    except NotFound:
        return 0, ()
    if first is None or last is None:
        return 0, ()
    window_ms = window_for(to_ms(last) - to_ms(first))
    found = quality_of(lake, resource, Cut(window_ms=window_ms, since=first))
    points = [
        QualityPoint(
            one.version,
            0 if one.window is None else to_ms(one.window),
            one.error.mean,
            *one.error.interval,
            one.outcomes,
            one.labelled,
            one.kind,
        )
        for one in found
    ]
    return window_ms, tuple(sorted(points, key=lambda one: (one.version, one.at)))


def window_for(span_ms: int) -> int:
    """The length of a window, so that a span has about forty: one that people count in."""
    return next((length for length in _LENGTHS if length * _WINDOWS >= span_ms), _LENGTHS[-1])


def _span(lake: str, resource: ContinualModel) -> tuple[datetime | None, datetime | None]:
    """The time of the newest outcomes; raises `NotFound` before there are any."""
    table = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = table.scan().filter(pl.col("revision") == 0).select("predicted_at").top_k(_OUTCOMES, by="predicted_at")
    found = table.collect(rows.select(pl.col("predicted_at").min().alias("first"), pl.col("predicted_at").max()))
    first, last = found.row(0)
    return first, last
