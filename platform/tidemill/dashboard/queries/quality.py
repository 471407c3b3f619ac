"""Quality over time: the error of each version in windows, with its band and the share that is labelled."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.outcomes.known import Bracketed, Cut, Kind, Known, days, missing, newest
from tidemill.outcomes.slices import SliceReport, slices_of
from tidemill.outcomes.tables import OUTCOMES
from tidemill.spec.model import ContinualModel

__all__ = ["QualityPoint", "newest_slices", "quality_over_time", "window_for"]

_OUTCOMES = 8000
"""Newest outcomes that the picture is of: more would take longer than a second to add up."""
_SLICED = 20_000
"""Newest outcomes whose slices are looked for, for the same reason."""
_WINDOWS = 30
_RISK = 0.05
_COLUMNS = ["prediction_id", "revision", "version", "predicted_at", "loss", "assumed", "probability"]
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
        first, last = _span(lake, resource, _OUTCOMES)
    except NotFound:
        return 0, ()
    if first is None or last is None:
        return 0, ()
    window_ms = window_for(to_ms(last) - to_ms(first))
    return window_ms, tuple(_points(lake, resource, Cut(window_ms=window_ms, since=first), window_ms))


def _points(lake: str, resource: ContinualModel, cut: Cut, window_ms: int) -> list[QualityPoint]:
    """The error as `quality_of` estimates it, without the other figures, which take most of its time."""
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = with_missing(outcomes.scan(), OUTCOMES)
    known = Known.of(lake, resource, outcomes, rows)
    lost = 0 if known.kind == "labelled only" else sum(missing(outcomes, rows))
    cells: dict[tuple[str, int], _Cell] = {}
    for day in days(outcomes, cut):
        found = known.bounds(outcomes.collect(newest(rows, day, cut, _COLUMNS)))
        window = (pl.col("predicted_at").dt.epoch("ms") // window_ms).alias("window")
        for (version, at), part in found.with_columns(window).partition_by("version", "window", as_dict=True).items():
            cells.setdefault((str(version), int(at)), _Cell(Bracketed(known.least, _RISK))).add(part)
    return [cell.point(version, at * window_ms, known.kind, lost) for (version, at), cell in sorted(cells.items())]


@dataclass
class _Cell:
    """One version in one window, as it is added up."""

    estimate: Bracketed
    outcomes: int = 0
    labelled: int = 0

    def add(self, part: pl.DataFrame) -> None:
        """Take in outcomes, the oldest prediction first."""
        self.outcomes += part.height
        self.labelled += part["loss"].count()
        self.estimate.update(part.filter("asked").select("low", "high", "chance").to_numpy())

    def point(self, version: str, at: int, kind: Kind, lost: int) -> QualityPoint:
        """The point that it makes."""
        seen = self.estimate.estimate(lost)
        return QualityPoint(version, at, seen.mean, *seen.interval, self.outcomes, self.labelled, kind)


def window_for(span_ms: int) -> int:
    """The length of a window, so that a span has about thirty: one that people count in."""
    return next((length for length in _LENGTHS if length * _WINDOWS >= span_ms), _LENGTHS[-1])


def newest_slices(lake: str, resource: ContinualModel) -> SliceReport | None:
    """The slices of the newest outcomes; None before there are any. Raises `Unavailable`."""
    try:
        since, _ = _span(lake, resource, _SLICED)
        return slices_of(lake, resource, Cut(since=since))
    except NotFound:
        return None


def _span(lake: str, resource: ContinualModel, most: int) -> tuple[datetime | None, datetime | None]:
    """The time of the newest outcomes, so many at most; raises `NotFound` before there are any, `Unavailable`."""
    table = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = table.scan().filter(pl.col("revision") == 0).select("predicted_at").top_k(most, by="predicted_at")
    found = table.collect(rows.select(pl.col("predicted_at").min().alias("first"), pl.col("predicted_at").max()))
    first, last = found.row(0)
    return first, last
