"""A model's quality, read from the lake's outcomes: figures of the labelled, and what they say of all.

A day is read at a time: all revisions of an outcome lie in the day of its prediction, and the newest one counts. Slices
are the entity, or a feature that was logged with the prediction: its values where they are few, else its quarters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.lake import LakeTable, table_uri
from tidemill.metrics.measures import Figures, Measures
from tidemill.metrics.quality import Cell, Judged, QualityTable
from tidemill.spec.model import ContinualModel
from tidemill.stats.sampling import Estimate, SampledMean

__all__ = ["ENTITY", "CellQuality", "Cut", "quality_of"]

ENTITY = "entity"
"""Slices by the entity; other names are features."""

Kind = Literal["all labelled", "sampled", "labelled only"]
"""What the estimate is of: every answer is labelled; a control share is, so that it is of all; or of the labelled."""

_FEW = 12
"""Values of a feature that make a slice each; of more, numbers are cut into quarters."""
_LOOKED_AT = 50_000
"""Newest predictions whose values decide that."""
_COLUMNS = [
    *("prediction_id", "revision", "version", "entity", "cohort", "predicted_at", "output", "label", "loss"),
    *("assumed", "disputed", "probability", "lost", "maybe_lost"),
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
    figures: Figures | None
    """Of the labelled outcomes alone."""
    lost: int
    """Predictions known to be missing from the log, of all versions."""
    maybe_lost: int
    """How many more may be, at most."""


@dataclass(frozen=True)
class Cut:
    """How outcomes are told apart, besides by version."""

    by: str | None = None
    """`entity`, or a feature."""
    cohorts: bool = False
    window_ms: int | None = None
    since: datetime | None = None
    version: str | None = None


def quality_of(lake: str, resource: ContinualModel, cut: Cut, *, risk: float = 0.05) -> list[CellQuality]:
    """The quality of each cell that has an outcome, by version, slice, cohort and window.

    Raises `NotFound` before there are outcomes, `InvalidInput` for a feature that no prediction has, `Unavailable`.
    """
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    slices = _Slices(lake, resource, cut.by)
    report = _Report(resource, risk)
    for day in _days(outcomes, cut.since):
        rows = outcomes.collect(_newest(outcomes.scan(), day, cut))
        names = slices.of(rows, day)
        for row, name in zip(rows.iter_rows(named=True), names, strict=True):
            at = round(row["predicted_at"].timestamp() * 1000)
            window = at // cut.window_ms if cut.window_ms else 0
            report.add(Cell(row["version"], name, (row["cohort"] or "") if cut.cohorts else "", window), row)
    return list(report.lines(cut.window_ms))


def _days(outcomes: LakeTable, since: datetime | None) -> list[date]:
    days = outcomes.scan().select(pl.col("event_date").unique())
    if since is not None:
        days = days.filter(pl.col("event_date") >= since.date())
    return sorted(outcomes.collect(days)["event_date"].to_list())


def _newest(rows: pl.LazyFrame, day: date, cut: Cut) -> pl.LazyFrame:
    """The newest revision of each outcome of a day, oldest prediction first."""
    rows = rows.filter(pl.col("event_date") == day)
    if cut.version is not None:
        rows = rows.filter(pl.col("version") == cut.version)
    if cut.since is not None:
        rows = rows.filter(pl.col("predicted_at") >= cut.since)
    newest = rows.select(_COLUMNS).sort("revision").unique("prediction_id", keep="last")
    return newest.sort("predicted_at", "prediction_id")


class _Report:
    """Sums and estimates by cell."""

    def __init__(self, resource: ContinualModel, risk: float) -> None:
        self._table = QualityTable(Measures(resource.spec.prediction, resource.spec.labels.fields))
        self._control, self._risk = resource.spec.labels.control, risk
        self._pending: dict[Cell, list[tuple[float, float]]] = {}
        self._estimates: dict[Cell, SampledMean] = {}
        self._lost = self._maybe_lost = 0

    @property
    def kind(self) -> Kind:
        """By the share that is sure to be labelled."""
        if self._control == 1:
            return "all labelled"
        return "sampled" if self._control else "labelled only"

    def add(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Take in an outcome."""
        label = None if row["label"] is None else _decode(row["label"])
        self._table.add(cell, Judged(_decode(row["output"]), label, bool(row["assumed"]), bool(row["disputed"])))
        self._lost, self._maybe_lost = row["lost"] or 0, row["maybe_lost"] or 0
        # What is only assumed was not looked at: no label of a known probability.
        loss = np.nan if row["loss"] is None or row["assumed"] else row["loss"]
        pending = self._pending.setdefault(cell, [])
        pending.append((loss, self._probability(row["probability"])))
        if len(pending) >= 10_000:
            self._settle(cell)

    def lines(self, window_ms: int | None) -> Iterator[CellQuality]:
        """The report."""
        for cell in self._table.cells():
            self._settle(cell)
            outcomes, labelled = self._table.count(cell), self._table.count(cell, "labelled")
            estimate, missing = self._estimates[cell], self._lost + self._maybe_lost
            # Where all are to be labelled, one whose label is still to come may be anything: so may what is lost.
            unknown = {"all labelled": missing + outcomes - estimate.count, "sampled": missing, "labelled only": 0}
            yield CellQuality(
                version=cell.version,
                slice=cell.slice,
                cohort=cell.cohort,
                window=None if window_ms is None else from_ms(cell.window * window_ms),
                outcomes=outcomes,
                labelled=labelled,
                assumed=self._table.count(cell, "assumed"),
                disputed=self._table.count(cell, "disputed"),
                kind=self.kind,
                error=estimate.estimate(unknown[self.kind]),
                figures=self._table.figures(cell),
                lost=self._lost,
                maybe_lost=self._maybe_lost,
            )

    def _probability(self, known: float | None) -> float:
        if self.kind != "sampled":
            return 1.0
        return np.nan if known is None or known < self._control else known

    def _settle(self, cell: Cell) -> None:
        """Hand on what waits. Where all are labelled, or only those count, what has no label is not in the sequence.

        What is logged was drawn by a coin that knows nothing of it: what holds of the logged holds of all.
        """
        losses, probabilities = np.array(self._pending.pop(cell, []), dtype=np.float64).reshape(-1, 2).T
        if self.kind != "sampled":
            probabilities, losses = probabilities[~np.isnan(losses)], losses[~np.isnan(losses)]
        least = self._control if self.kind == "sampled" else 1.0
        self._estimates.setdefault(cell, SampledMean(least, risk=self._risk)).update(losses, probabilities)


class _Slices:
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
