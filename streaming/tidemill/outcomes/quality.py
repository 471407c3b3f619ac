"""A model's quality, read from the lake's outcomes: figures of the labelled, and what they say of all.

A day is read at a time: all revisions of an outcome lie in the day of its prediction, and the newest one counts. Slices
are the entity, or a feature that was logged with the prediction: its values where they are few, else its quarters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.metrics.measures import Figures, Measures
from tidemill.metrics.quality import Cell, Judged, QualityTable
from tidemill.outcomes.tables import LABELS, OUTCOMES
from tidemill.spec.model import ContinualModel
from tidemill.stats.confidence import Interval
from tidemill.stats.sampling import Estimate, SampledMean

__all__ = ["ENTITY", "MOST_CELLS", "CellQuality", "Cut", "quality_of"]

ENTITY = "entity"
"""Slices by the entity; other names are features."""

Kind = Literal["all labelled", "sampled", "labelled only"]
"""What the estimate is of: every answer is labelled; a control share is, so that it is of all; or of the labelled."""

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

    Raises `NotFound` before there are outcomes, `InvalidInput` for a feature that no prediction has and for more than
    `MOST_CELLS` cells, `Unavailable`.
    """
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = with_missing(outcomes.scan(), OUTCOMES)
    slices = _Slices(lake, resource, cut.by)
    report = _Report(resource, Picks.of(lake, resource), _least(outcomes, rows, resource), risk)
    for day in _days(outcomes, cut.since):
        found = outcomes.collect(_newest(rows, day, cut))
        for row, name in zip(found.iter_rows(named=True), slices.of(found, day), strict=True):
            at = round(row["predicted_at"].timestamp() * 1000)
            window = at // cut.window_ms if cut.window_ms else 0
            report.add(Cell(row["version"], name, (row["cohort"] or "") if cut.cohorts else "", window), row)
        report.settle()
    return list(report.lines(cut.window_ms, *_missing(outcomes, rows)))


@dataclass(frozen=True)
class Picks:
    """What was picked to be labelled."""

    ids: frozenset[str] = frozenset()
    """Predictions."""
    through: datetime | None = None
    """Up to when predictions were considered in a round; None: never."""

    @classmethod
    def of(cls, lake: str, resource: ContinualModel) -> "Picks":
        """Those in the lake; none where everything is to be labelled, or nothing."""
        table = LakeTable(table_uri(lake, resource.id, "labels"))
        if not 0 < resource.spec.labels.control < 1 or not table.exists:
            return cls()
        said = with_missing(table.scan(), LABELS).filter(pl.col("reasons").is_not_null())
        found = table.collect(said.select("prediction_id", "event_time"))
        return cls(frozenset(found["prediction_id"].drop_nulls()), found.select(pl.col("event_time").max()).item())


def _least(outcomes: LakeTable, rows: pl.LazyFrame, resource: ContinualModel) -> float:
    """The smallest probability that a label can have: the control share, or what it was before it was raised."""
    control = resource.spec.labels.control
    if not 0 < control < 1:
        return 1.0
    known = outcomes.collect(rows.select(pl.col("probability").min())).item()
    return float(control if known is None else min(control, known))


def _missing(outcomes: LakeTable, rows: pl.LazyFrame) -> tuple[int, int]:
    """Predictions missing from the log, and how many more may be: as the outcome says that was written last."""
    last = outcomes.collect(rows.select("available_at", "lost", "maybe_lost").top_k(1, by="available_at"))
    return (last["lost"][0] or 0, last["maybe_lost"][0] or 0) if last.height else (0, 0)


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

    def __init__(self, resource: ContinualModel, picks: Picks, least: float, risk: float) -> None:
        self._table = QualityTable(Measures(resource.spec.prediction, resource.spec.labels.fields))
        self._control, self._picks, self._least, self._risk = resource.spec.labels.control, picks, least, risk
        self._pending: dict[Cell, list[tuple[float, float, float]]] = {}
        self._estimates: dict[Cell, _Estimate] = {}

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
        self._pending.setdefault(cell, [])
        if (seen := self._seen(row)) is not None:
            self._pending[cell].append(seen)

    def settle(self) -> None:
        """Hand on what waits."""
        if len(self._estimates.keys() | self._pending.keys()) > MOST_CELLS:
            raise InvalidInput(
                f"that are more than {MOST_CELLS:,} cells", hint="take longer windows, or slices with fewer values"
            )
        for cell, seen in self._pending.items():
            estimate = self._estimates.setdefault(cell, _Estimate(self._least, self._risk))
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
                kind=self.kind,
                error=self._estimates[cell].estimate(0 if self.kind == "labelled only" else lost + maybe_lost),
                figures=self._table.figures(cell),
                lost=lost,
                maybe_lost=maybe_lost,
            )

    def _seen(self, row: Mapping[str, Any]) -> tuple[float, float, float] | None:
        """The least and the largest loss that it may have, and the probability of its label; None: it is not asked."""
        loss = row["loss"]
        if self.kind == "labelled only":
            return None if loss is None else (loss, loss, 1.0)
        if self.kind == "all labelled":
            return (0.0, 1.0, 1.0) if loss is None else (loss, loss, 1.0)
        if self._picks.through is None or row["predicted_at"] > self._picks.through:
            return None  # no round has considered it yet
        known = row["probability"]
        if loss is not None and not row["assumed"]:
            return loss, loss, np.nan if known is None else known
        if row["prediction_id"] in self._picks.ids:
            return 0.0, 1.0, self._least  # its label is still to come, or disputed
        return np.nan, np.nan, np.nan


class _Estimate:
    """The estimate of a cell: with each label that is still to come as good as it can be, and as bad."""

    def __init__(self, least: float, risk: float) -> None:
        # Each side may miss with half of the risk.
        self._good, self._bad = SampledMean(least, risk=risk / 2), SampledMean(least, risk=risk / 2)
        self.waiting = 0
        """Outcomes that are to be labelled and are not."""

    def update(self, seen: npt.NDArray[np.float64]) -> None:
        """Take in rows of (least loss, largest loss, probability)."""
        good, bad, probability = seen.T
        self._good.update(good, probability)
        self._bad.update(bad, probability)
        self.waiting += int((good < bad).sum())

    def estimate(self, lost: int) -> Estimate:
        """Both together; the mean is in the middle."""
        good, bad = self._good.estimate(lost), self._bad.estimate(lost)
        mean = None if good.mean is None or bad.mean is None else (good.mean + bad.mean) / 2
        interval = Interval(good.interval.low, bad.interval.high)
        labelled = good.labelled - self.waiting
        return replace(good, mean=mean if labelled else None, interval=interval, labelled=labelled)


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
