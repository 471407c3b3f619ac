"""How right two versions are, slice by slice: of the newest outcomes of each, by entity and declared slice."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from tidemill.core.errors import InvalidInput, NotFound
from tidemill.dashboard.queries.groups import groups_of
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.outcomes.known import Bracketed, Cut, Known, days, missing, newest
from tidemill.outcomes.quality import ENTITY, Slices
from tidemill.outcomes.tables import OUTCOMES
from tidemill.spec.model import ContinualModel

__all__ = ["Side", "SlicePair", "slices_beside"]

_OUTCOMES = 10_000
"""Newest outcomes of each version that are looked at."""
_SLICES = 25
"""Slices of each kind, those of most outcomes."""
_RISK = 0.05
_COLUMNS = ("prediction_id", "revision", "version", "entity", "predicted_at", "loss", "assumed", "probability")


@dataclass(frozen=True, slots=True)
class Side:
    """One version in one slice."""

    outcomes: int
    error: float | None
    low: float
    high: float
    """The interval of 95 %, over all of the slice's outcomes."""


@dataclass(frozen=True, slots=True)
class SlicePair:
    """A slice in both versions; None where one answered nothing in it."""

    by: str
    name: str
    one: Side | None
    other: Side | None

    @property
    def apart(self) -> float:
        """How much more the other errs; below 0 it errs less."""
        if self.one is None or self.other is None or self.one.error is None or self.other.error is None:
            return 0.0
        return self.other.error - self.one.error


def slices_beside(lake: str, resource: ContinualModel, one: str, other: str) -> tuple[SlicePair, ...]:
    """All outcomes first, then slice by slice, those first that are furthest apart. Raises `Unavailable`."""
    try:
        outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
        sides = [_Version(lake, resource, outcomes, version) for version in (one, other)]
    except NotFound:
        return ()
    found: list[SlicePair] = []
    for by in (None, ENTITY, *groups_of(resource)):
        first, second = (side.by(by) for side in sides)
        names = sorted({*first, *second}, key=lambda name: -_most(first.get(name), second.get(name)))[:_SLICES]
        pairs = [SlicePair(_said(resource, by), name, first.get(name), second.get(name)) for name in names]
        found += sorted(pairs, key=lambda pair: (-abs(pair.apart), pair.name))
    return tuple(found)


def _said(resource: ContinualModel, by: str | None) -> str:
    return {None: "", ENTITY: resource.spec.events.entity.name}.get(by, str(by))


def _most(*sides: Side | None) -> int:
    return max(one.outcomes for one in sides if one is not None)


class _Version:
    """The newest outcomes of one version. Raises `NotFound` before there are outcomes of any."""

    def __init__(self, lake: str, resource: ContinualModel, outcomes: LakeTable, version: str) -> None:
        rows = with_missing(outcomes.scan(), OUTCOMES)
        mine = rows.filter(pl.col("version") == version, pl.col("revision") == 0).select("predicted_at")
        since = outcomes.collect(mine.top_k(_OUTCOMES, by="predicted_at"))["predicted_at"].min()
        self._lake, self._resource = lake, resource
        self._known = Known.of(lake, resource, outcomes, rows)
        self._lost = 0 if self._known.kind == "labelled only" else sum(missing(outcomes, rows))
        cut = Cut(version=version, since=since)  # type: ignore[arg-type]  # a time, of a column of times
        self._days = (
            []
            if since is None
            else [
                (day, self._known.bounds(outcomes.collect(newest(rows, day, cut, _COLUMNS))))
                for day in days(outcomes, cut)
            ]
        )

    def by(self, by: str | None) -> dict[str, Side]:
        """Its slices of a kind; none where no prediction has that."""
        try:
            return dict(self._sides(by))
        except InvalidInput:
            return {}

    def _sides(self, by: str | None) -> Iterator[tuple[str, Side]]:
        if not self._days:
            return
        slices = Slices(self._lake, self._resource, by)
        named = [rows.with_columns(pl.Series("slice", slices.of(rows, day), pl.String)) for day, rows in self._days]
        parts = pl.concat(named).partition_by("slice", as_dict=True, maintain_order=True)
        for (name,), part in sorted(parts.items(), key=lambda item: -item[1].height)[: 2 * _SLICES]:
            estimate = Bracketed(self._known.least, _RISK)
            estimate.update(part.filter("asked").select("low", "high", "chance").to_numpy())
            seen = estimate.estimate(self._lost)
            yield str(name), Side(part.height, seen.mean, *seen.interval)
