"""What a prediction knows besides the event's own fields: statistics of its picture, and its entity's windows.

Statistics are those of the picture that came with the request, as ingest computes them of the event's. Windows are
read from the online store and evaluated at the request's time. An answer does not wait for a store that is gone: rows
then have None for each window, never a part of them, and the prediction's record says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter

from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput, TidemillError
from tidemill.core.telemetry import REGISTRY, bounded, get_logger
from tidemill.features.images import statistics
from tidemill.features.reader import OnlineRow, Status
from tidemill.features.rows import Value
from tidemill.serving.rows import RequestRow
from tidemill.spec.model import ContinualModel

__all__ = ["UNAVAILABLE", "FeatureRow", "FeatureSource", "OnlineFeatures", "PictureStatistics", "RowFeatures", "Views"]

UNAVAILABLE = "UNAVAILABLE"
"""Status of a feature whose store did not answer in time."""
_PAUSE_S = 1.0
"""After a failed read, none is tried for this long: requests must not queue up behind a store that hangs."""

_READS = Counter("tidemill_feature_reads_total", "Online rows read, by status.", ["status"], registry=REGISTRY)
_NULLS = Counter(
    "tidemill_feature_null_values_total",
    "Windows' features that a prediction went without, whatever the row's status; of all tidemill_feature_reads_total.",
    ["feature"],
    registry=REGISTRY,
)

_log = get_logger(__name__)


class FeatureRow(msgspec.Struct, frozen=True):
    """One row's features: of its entity's windows all, or None for all and a status that says why."""

    values: dict[str, Value] = {}
    fence: dict[str, int] = {}
    status: str | None = None
    """Of the windows: `PRESENT`, `OUTSIDE_MAX_AGE` (the last event is older than `features.ttl`; windows bound their
    own age and stand), `NOT_FOUND` (a count is 0), `REBUILDING`, `UNAVAILABLE`; None for a model without windows."""
    statuses: dict[str, str] = {}
    """Of a FeatureService's features, those that are not `PRESENT`, each with Feast's status or `UNAVAILABLE`."""

    def joined(self, other: "FeatureRow") -> "FeatureRow":
        """This row and a FeatureService's, which has no windows: the status stays."""
        return FeatureRow(self.values | other.values, self.fence, self.status, self.statuses | other.statuses)


class RowFeatures(Protocol):
    """Features that take a row's own fields, too; `tidemill.serving.service.ServiceFeatures` is one."""

    def of(self, rows: Sequence[RequestRow]) -> list[FeatureRow]:
        """One row of features per row, in order. Never raises for a store that does not answer."""
        ...


class FeatureSource(Protocol):
    """Reads online rows, one per entity, in order; raises a `TidemillError` where it cannot."""

    def read(self, entities: Sequence[str], now_ms: int | None = None) -> list[OnlineRow]:
        """The rows, their windows as they are at `now_ms`."""
        ...


class Views:
    """Several views of the same entities as one: values and fences of all, and the first view's time.

    Args:
        views: readers of the views.
    """

    def __init__(self, views: Sequence[FeatureSource]) -> None:
        self._views = tuple(views)

    def read(self, entities: Sequence[str], now_ms: int | None = None) -> list[OnlineRow]:
        """The rows; REBUILDING where one of the views is, PRESENT where one of them has the entity."""
        found = [view.read(entities, now_ms) for view in self._views]
        return [_together(rows) for rows in zip(*found, strict=True)]


def _together(rows: Sequence[OnlineRow]) -> OnlineRow:
    statuses = [row.status for row in rows]
    if Status.REBUILDING in statuses:
        return OnlineRow(Status.REBUILDING)
    known = [status for status in statuses if status is not Status.NOT_FOUND]
    return OnlineRow(
        known[0] if known else Status.NOT_FOUND,
        {name: value for row in rows for name, value in row.values.items()},
        rows[0].event_time,
        {source: offset for row in rows for source, offset in row.fence.items()},
    )


class OnlineFeatures:
    """The features named, of each entity. Used by one thread."""

    def __init__(self, source: FeatureSource | None, names: Sequence[str], *, clock: Clock) -> None:
        self._source, self._names, self._clock = source if names else None, tuple(names), clock
        self._not_before = 0.0
        """While the store is out, when it is tried again; 0 while it answers."""
        label = bounded(self._names)
        self._nulls = [(name, _NULLS.labels(label(name))) for name in self._names]

    def of(self, entities: Sequence[str], now_ms: int) -> list[FeatureRow]:
        """One row of features per entity at a time, in order. Never raises for a store that does not answer."""
        if self._source is None:
            return [FeatureRow() for _ in entities]
        if self._clock.monotonic() < self._not_before:
            return self._absent(entities)
        try:
            found = self._source.read(list(dict.fromkeys(entities)), now_ms)
        except TidemillError as error:
            if not self._not_before:  # an outage is told once
                _log.warning("answering without features", reason=error.message)
            self._not_before = self._clock.monotonic() + _PAUSE_S
            return self._absent(entities)
        self._not_before = 0.0
        by_entity = dict(zip(dict.fromkeys(entities), found, strict=True))
        return [self._counted(self._row(by_entity[entity])) for entity in entities]

    def _row(self, row: OnlineRow) -> FeatureRow:
        if not row.values:
            return FeatureRow(dict.fromkeys(self._names), status=str(row.status))
        return FeatureRow({name: row.values.get(name) for name in self._names}, row.fence, str(row.status))

    def _absent(self, entities: Sequence[str]) -> list[FeatureRow]:
        return [self._counted(FeatureRow(dict.fromkeys(self._names), status=UNAVAILABLE)) for _ in entities]

    def _counted(self, row: FeatureRow) -> FeatureRow:
        _READS.labels(row.status).inc()
        for name, nulls in self._nulls:
            if row.values[name] is None:
                nulls.inc()
        return row


class PictureStatistics:
    """The statistics named in the resource, of the picture in a request's row."""

    def __init__(self, resource: ContinualModel) -> None:
        self._names = resource.spec.features.image
        self._field = resource.image_field.name if resource.image_field else None

    def of(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Value]]:
        """One set per row, in order; None for each without a picture. Raises `InvalidInput` for a damaged one."""
        return [self._measured(number, row) for number, row in enumerate(rows)]

    def _measured(self, number: int, row: Mapping[str, Any]) -> dict[str, Value]:
        image = row.get(self._field) if self._field else None
        if image is None or not self._names:
            return dict.fromkeys(self._names)
        try:
            return dict(statistics(image, self._names))
        except InvalidInput as error:
            raise InvalidInput(f"row {number}, field {self._field}: {error.message}") from error
