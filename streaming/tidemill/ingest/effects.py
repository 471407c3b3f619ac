"""What a batch does: quarantine, lake, online rows, sketches. Each effect takes what it lacks and leaves the rest.

So `take` may be called again with the same batch, with an overlapping one, or by a worker that has lost its
partition meanwhile, after a failure at any line: nothing is lost and nothing is there twice.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Literal

import polars as pl

from tidemill.core.errors import NotFound
from tidemill.core.telemetry import get_logger
from tidemill.events.kafka import RecordWriter
from tidemill.events.lake import Span
from tidemill.events.records import Topics
from tidemill.events.sources import Source
from tidemill.features.online import Filling, OnlineRows, RowsLost
from tidemill.ingest.batch import Batch
from tidemill.ingest.tables import events_table, quarantine_table
from tidemill.ingest.telemetry import EVENTS, QUARANTINED, REBUILDS, REFUSALS
from tidemill.ingest.votes import Voting, sketch
from tidemill.spec.model import ContinualModel

__all__ = ["Effects", "Passed", "Stage"]

Stage = Literal["quarantine", "events", "rows", "sketches"]
"""The effects in their order."""

Passed = Callable[[Stage], None]
"""Told after each effect; what it raises ends the worker there (tests crash it so)."""

_FLUSH_S = 5.0

_FIXED = ("entity", "source", "offset", "event_time", "available_at")
"""Columns of the events table that the online rows need besides fields."""

_REBUILT_TOGETHER = 2_000_000
"""Events that a rebuild folds together."""

_log = get_logger(__name__)


class Effects:
    """The stores behind one worker.

    Args:
        resource: the model.
        rows: its online rows.
        lake: folder or URI of the lake.
        writer: for sketches and quarantined records.
        passed: told after each effect.

    Methods raise `Transient` errors where a store does not answer; calling again is safe.
    """

    def __init__(
        self, resource: ContinualModel, *, rows: OnlineRows, lake: str, writer: RecordWriter, passed: Passed
    ) -> None:
        self._model = resource.id
        self._topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self._voting = Voting(resource)
        self._row_columns = [*_FIXED, *rows.layout.names]
        self._needed = list(dict.fromkeys((*self._row_columns, *self._voting.features)))
        self.events = events_table(lake, resource)
        self._quarantine = quarantine_table(lake, resource)
        self._rows = rows
        self._writer = writer
        self._passed = passed
        self._announced: dict[Source, int] = {}

    def take(self, batch: Batch) -> None:
        """All effects of a batch, in the order that makes each safe to repeat."""
        self._quarantine_bad(batch)
        self._passed("quarantine")
        sources = tuple(batch.upto)
        spans = self.events.append(batch.events, batch.upto, before_commit=lambda: self.announce(sources))
        self._passed("events")
        settled = self._settled(batch, spans)
        self._write_rows(settled)
        self._passed("rows")
        self.announce(sources, settled, batch.begin)
        self._passed("sketches")
        self._count(batch, spans)

    def announce(
        self, sources: Iterable[Source], rows: pl.DataFrame | None = None, begin: Mapping[Source, int] | None = None
    ) -> None:
        """Write the sketch of each source's last commit, whoever made it, unless this worker did so already.

        This comes before every commit of a source and at its start, so that no range is left without its sketch
        (see `Sketch`). `rows` are the lake's rows of each source from offset `begin` on, where they are at hand.
        """
        written: dict[Source, int] = {}
        for source in sources:
            span = self.events.last_span(source)
            if span is None or self._announced.get(source, -1) >= span.upto:
                continue
            if rows is None or begin is None or begin[source] > span.after + 1:
                found = self._lake_rows(source, span.after + 1, span.upto)
            else:
                found = rows.filter(_within(source, span.after + 1, span.upto))
            self._writer.send(self._topics.sketches, sketch(self._voting, source, span, found), key=str(source))
            written[source] = span.upto
        if written:
            self._writer.flush(_FLUSH_S)
            self._announced.update(written)

    def fill_rows(self, *, force: bool = False) -> None:
        """Fill the online rows from the lake if they were lost (`force`: in any case)."""
        if self._rows.rebuild(self._load, force=force):
            REBUILDS.labels(self._model).inc()
            _log.info("online rows were filled from the lake", model=self._model)

    def _quarantine_bad(self, batch: Batch) -> None:
        """Before the events' commit moves v: a worker that begins at v + 1 does not see these records again."""
        if batch.quarantined:
            self._quarantine.append(batch.quarantine, batch.upto)
            for record in batch.quarantined:
                self._writer.send(self._topics.quarantine, record, key=record.source)
            self._writer.flush(_FLUSH_S)

    def _settled(self, batch: Batch, spans: Mapping[Source, Span]) -> pl.DataFrame:
        """The batch's rows as the lake has them, which took what was read before under the rules of that time."""
        frames = []
        for source, upto in batch.upto.items():
            known = spans[source].after if source in spans else upto
            if batch.begin[source] <= known:
                frames.append(self._lake_rows(source, batch.begin[source], known))
            frames.append(batch.events.filter(_within(source, known + 1, upto)).select(self._needed))
        return pl.concat(frames)

    def _write_rows(self, settled: pl.DataFrame) -> None:
        try:
            refusals = self._rows.apply(settled)
        except RowsLost as lost:
            _log.warning("the online rows were lost", model=self._model, reason=str(lost))
            self.fill_rows()
            raise  # the next call applies the batch to what was filled
        REFUSALS.labels(self._model).inc(refusals)

    def _load(self) -> Filling:
        try:
            snapshot = self.events.snapshot()
        except NotFound:
            return Filling({}, ())
        rows = snapshot.rows
        order = ("event_time", "source", "offset")
        last = rows.select(self._row_columns).sort(order).unique("entity", keep="last").collect()
        both = pl.concat([last, self._in_windows(rows, last)]).unique(["source", "offset"])
        parts = max(1, both.height // _REBUILT_TOGETHER)
        return Filling(snapshot.upto, (both.filter(pl.col("entity").hash() % parts == part) for part in range(parts)))

    def _in_windows(self, rows: pl.LazyFrame, last: pl.DataFrame) -> pl.DataFrame:
        """The events that a window may still ask for: no time from the newest arrival on reaches further back."""
        windows = self._rows.layout.windows
        if not windows or last.is_empty():
            return last.clear()
        newest = rows.select(pl.col("available_at").max()).collect().item()
        since = newest - timedelta(microseconds=max(window.step * window.ring for window in windows))
        # What counts is older than its arrival by the allowed lateness at most: files of earlier days are not read.
        day = (since - timedelta(microseconds=windows[0].lateness)).date()
        recent = rows.filter((pl.col("event_date") >= day) & (pl.col("available_at") >= since))
        return recent.select(self._row_columns).collect()

    def _lake_rows(self, source: Source, first: int, last: int) -> pl.DataFrame:
        found = self.events.scan().filter(_within(source, first, last)).select(self._needed)
        return found.sort("offset").collect()

    def _count(self, batch: Batch, spans: dict[Source, Span]) -> None:
        for source, span in spans.items():
            EVENTS.labels(self._model).inc(batch.events.filter(_within(source, span.after + 1, span.upto)).height)
            for record in batch.quarantined:
                if record.source == str(source) and record.offset > span.after:
                    QUARANTINED.labels(self._model, record.field or "").inc()


def _within(source: Source, first: int, last: int) -> pl.Expr:
    return (pl.col("source") == str(source)) & pl.col("offset").is_between(first, last)
