"""How many labelled events there are for the next run, counted in the lake, which is where training reads them.

For the first version that is events with at least one label, both in the lake. Later it is label rows that
arrived after the champion's data: each says something that the champion has not seen. Refused labels never count,
nor do picks for labelling.
"""

import polars as pl

from tidemill.core.clock import Clock, from_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri

__all__ = ["LabelledCount"]

_AT_LEAST_S = 1.0
_SHARE = 0.05
"""Largest share of the time that counting may take: a large lake is counted less often."""


class LabelledCount:
    """Counts for one model; the last count is given again until the next one is due. One thread."""

    def __init__(self, lake: str, model: str, clock: Clock) -> None:
        self._events = LakeTable(table_uri(lake, model, "events"))
        self._labels = LakeTable(table_uri(lake, model, "labels"))
        self._clock = clock
        self._since: int | None = None
        self._count: int | None = None
        self._due = 0.0

    def __call__(self, since: int | None) -> int:
        """Labelled events that arrived after `since` (milliseconds); None: all. Raises `Unavailable`."""
        begun = self._clock.monotonic()
        if self._count is None or since != self._since or begun >= self._due:
            self._count, self._since = self._counted(since), since
            done = self._clock.monotonic()
            self._due = done + max(_AT_LEAST_S, (done - begun) / _SHARE)
        return self._count

    def _counted(self, since: int | None) -> int:
        try:
            # Neither what was refused has a value nor a row that says that a prediction was picked for labelling.
            labels = self._labels.scan().filter(pl.col("refused").is_null() & pl.col("value").is_not_null())
            if since is not None:
                return int(labels.filter(pl.col("available_at") > from_ms(since)).select(pl.len()).collect().item())
            key = ("entity", "event_id")
            events = self._events.scan().select(key).unique()
            return int(labels.select(key).unique().join(events, on=key, how="semi").select(pl.len()).collect().item())
        except NotFound:
            return 0
