"""A model's quality, read from the lake's outcomes: figures of the labelled, and what they say of all.

A day is read at a time: all revisions of an outcome lie in the day of its prediction, and the newest one counts. Slices
are the entity, or a feature that was logged with the prediction: its values where they are few, else its quarters.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.metrics.measures import Figures, Measures
from tidemill.metrics.quality import Cell, Judged, QualityTable
from tidemill.outcomes.known import Bracketed, Cut, Kind, Known, days, missing, newest
from tidemill.outcomes.tables import OUTCOMES
from tidemill.spec.model import ContinualModel
from tidemill.stats.sampling import Estimate

__all__ = ["ENTITY", "MOST_CELLS", "CellQuality", "Cut", "Slices", "quality_of"]

ENTITY = "entity"
"""Slices by the entity; other names are features."""

_FEW = 12
"""Values of a feature that make a slice each; of more, numbers are cut into quarters."""
_LOOKED_AT = 50_000
"""Newest predictions whose values decide that."""
MOST_CELLS = 2000
"""A line of a report each; more are a mistake, and their sums take memory."""
_COLUMNS = [
    *("prediction_id", "revision", "version", "entity", "cohort", "predicted_at", "output", "label", "loss"),
    *("assumed", "disputed", "probability"),
]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class CellQuality(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    version: str
    slice: str
    cohort: str
    window: datetime | None
    """When it begins."""
    outcomes: int
    labelled: int
    assumed: int
    disputed: int
    kind: Kind
    error: Estimate
    """Of the bounded loss `error`."""
    waiting: int
    """Outcomes that are to be labelled and are not: the interval allows for anything that they may turn out to be."""
    figures: Figures | None
    """Of the labelled outcomes alone."""
    lost: int
    """Predictions known to be missing from the log, of all versions."""
    maybe_lost: int
    """How many more may be, at most."""


def quality_of(lake: str, resource: ContinualModel, cut: Cut, *, risk: float = 0.05) -> list[CellQuality]:
    """The quality of each cell that has an outcome, by version, slice, cohort and window.

    Raises `NotFound` before there are outcomes, `InvalidInput` for a feature that no prediction has and for more than
    `MOST_CELLS` cells, `Unavailable`.
    """
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = with_missing(outcomes.scan(), OUTCOMES)
    slices = Slices(lake, resource, cut.by)
    known = Known.of(lake, resource, outcomes, rows)
    report = _Report(resource, known, risk)
    for day in days(outcomes, cut):
        found = known.bounds(outcomes.collect(newest(rows, day, cut, _COLUMNS)))
        for row, name in zip(found.iter_rows(named=True), slices.of(found, day), strict=True):
            at = to_ms(row["predicted_at"])
            window = at // cut.window_ms if cut.window_ms else 0
            report.add(Cell(row["version"], name, (row["cohort"] or "") if cut.cohorts else "", window), row)
        report.settle()
    return list(report.lines(cut.window_ms, *missing(outcomes, rows)))


class _Report:
    """Sums and estimates by cell."""

    def __init__(self, resource: ContinualModel, known: Known, risk: float) -> None:
        self._table = QualityTable(Measures(resource.spec.prediction, resource.spec.labels.fields))
        self._known, self._risk = known, risk
        self._pending: dict[Cell, list[tuple[float, float, float]]] = {}
        self._estimates: dict[Cell, Bracketed] = {}

    def add(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Take in an outcome."""
        label = None if row["label"] is None else _decode(row["label"])
        self._table.add(cell, Judged(_decode(row["output"]), label, bool(row["assumed"]), bool(row["disputed"])))
        self._pending.setdefault(cell, [])
        if row["asked"]:
            self._pending[cell].append((row["low"], row["high"], row["chance"]))

    def settle(self) -> None:
        """Hand on what waits."""
        if len(self._estimates.keys() | self._pending.keys()) > MOST_CELLS:
            raise InvalidInput(
                f"that are more than {MOST_CELLS:,} cells", hint="take longer windows, or slices with fewer values"
            )
        for cell, seen in self._pending.items():
            estimate = self._estimates.setdefault(cell, Bracketed(self._known.least, self._risk))
            estimate.update(np.array(seen, dtype=np.float64).reshape(-1, 3))
        self._pending = {}

    def lines(self, window_ms: int | None, lost: int, maybe_lost: int) -> Iterator[CellQuality]:
        """The report."""
        for cell in self._table.cells():
            yield CellQuality(
                version=cell.version,
                slice=cell.slice,
                cohort=cell.cohort,
                window=None if window_ms is None else from_ms(cell.window * window_ms),
                outcomes=self._table.count(cell),
                labelled=self._table.count(cell, "labelled"),
                assumed=self._table.count(cell, "assumed"),
                disputed=self._table.count(cell, "disputed"),
                waiting=self._estimates[cell].waiting,
                kind=self._known.kind,
                error=self._estimates[cell].estimate(0 if self._known.kind == "labelled only" else lost + maybe_lost),
                figures=self._table.figures(cell),
                lost=lost,
                maybe_lost=maybe_lost,
            )


class Slices:
    """Which slice an outcome is in."""

    def __init__(self, lake: str, resource: ContinualModel, by: str | None) -> None:
        self._by = by
        self._table = LakeTable(table_uri(lake, resource.id, "predictions"))
        self._edges = None if by in {None, ENTITY} else self._quarters(str(by))

    def of(self, rows: pl.DataFrame, day: date) -> list[str]:
        """The slice of each row of a day."""
        if self._by is None:
            return [""] * rows.height
        if self._by == ENTITY:
            return rows["entity"].to_list()
        features = self._table.scan().filter(pl.col("event_date") == day).select("prediction_id", "features")
        known = self._table.collect(features.unique("prediction_id"))
        found = rows.select("prediction_id").join(known, on="prediction_id", how="left", maintain_order="left")
        return [self._name(None if text is None else _decode(text).get(self._by)) for text in found["features"]]

    def _quarters(self, name: str) -> list[float]:
        """The feature's quartiles, where it has many values and they are numbers; else none."""
        scan = self._table.scan()
        newest = scan.select("predicted_at", "features").sort("predicted_at", descending=True).head(_LOOKED_AT)
        values = [_decode(text) for text in self._table.collect(newest)["features"]]
        names = {one for value in values for one in value}
        if name not in names:
            raise InvalidInput(
                f"no prediction has a feature {name}", hint=f"there are {', '.join(sorted(names | {ENTITY}))}"
            )
        numbers = [value[name] for value in values if isinstance(value.get(name), int | float)]
        if len(set(numbers)) <= _FEW:
            return []
        return [float(edge) for edge in np.quantile(np.asarray(numbers, np.float64), [0.25, 0.5, 0.75])]

    def _name(self, value: Any) -> str:
        if value is None:
            return "(none)"
        if not self._edges or isinstance(value, bool | str):
            return str(value).lower() if isinstance(value, bool) else str(value)
        place = int(np.searchsorted(self._edges, value))
        edges = ["-∞", *(f"{edge:.4g}" for edge in self._edges), "∞"]
        return f"{edges[place]} to {edges[place + 1]}"
