"""Online rows of labels, for windows over labels: the outcomes worker writes them as ingest writes those of events.

The same rules (DATAPLANE.md 4 and 7): labels are in the lake first, the rows have a fence, and the commit of the labels
topic comes last. So whatever a crash leaves undone is applied by the next life, and what was done is not done again.
"""

import polars as pl

from tidemill.core.clock import Clock
from tidemill.core.errors import NotFound
from tidemill.core.telemetry import get_logger
from tidemill.events.lake import LakeTable
from tidemill.features.filling import shares
from tidemill.features.freshness import Freshness
from tidemill.features.label_events import LABELS, label_events, label_kinds, label_layout
from tidemill.features.online import Filling, OnlineRows
from tidemill.spec.model import ContinualModel

__all__ = ["LabelRows"]

_log = get_logger(__name__)


class LabelRows:
    """The rows of one model's labels. One thread.

    Args:
        resource: the model.
        redis: URL of the server that holds the rows.
        table: the lake's labels.
        clock: tells how far back windows may be asked for.

    Methods raise `Unavailable` where Redis or the lake does not answer, and `RowsLost` (also `Transient`) where the
    rows are gone: `settle`, then apply the same labels again.
    """

    def __init__(self, resource: ContinualModel, redis: str, table: LakeTable, clock: Clock) -> None:
        self._kinds = label_kinds(resource)
        self._rows = OnlineRows(redis, resource.id, label_layout(resource), LABELS)
        self._table, self._clock, self._model = table, clock, resource.id
        self._freshness = Freshness(resource.id, LABELS, None, clock)
        reason = self._rows.check()
        if reason is not None:
            _log.warning(reason)

    def settle(self) -> None:
        """Fill the rows from the lake where they are lost, or other windows are asked for now."""
        if self._rows.rebuild(self._load):
            _log.info("online rows of labels were filled from the lake", model=self._model)

    def apply(self, labels: pl.DataFrame) -> None:
        """Bring the rows up to these labels, which the lake has: rows of its table, all of a range of offsets."""
        events = label_events(labels.lazy(), self._kinds).collect()
        if events.is_empty():
            return
        self._rows.apply(events)
        newest, arrived = events.select(pl.max("event_time"), pl.min("available_at")).row(0)
        self._freshness.wrote(newest=newest, arrived=arrived)

    def close(self) -> None:
        """Drop the connection."""
        self._rows.close()

    def _load(self) -> Filling:
        try:
            snapshot = self._table.snapshot()
        except NotFound:
            return Filling({}, ())
        events = label_events(snapshot.rows, self._kinds)
        parts = shares(events, self._rows.layout, self._clock.now(), self._table.collect)
        return Filling(snapshot.upto, parts)
