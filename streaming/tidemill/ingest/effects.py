"""What a batch does: quarantine, lake, online rows, sketches. Each effect takes what it lacks and leaves the rest.

So `take` may be called again with the same batch, with an overlapping one, or by a worker that has lost its
partition meanwhile, after a failure at any line: nothing is lost and nothing is there twice.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import polars as pl

from tidemill.core.clock import Clock
from tidemill.core.errors import NotFound, Unavailable
from tidemill.core.telemetry import get_logger
from tidemill.events.kafka import RecordWriter
from tidemill.events.lake import Span
from tidemill.events.parts import SketchWriter
from tidemill.events.records import Sketch, Topics
from tidemill.events.sources import Source
from tidemill.events.upkeep import Policy, Upkeep
from tidemill.features.filling import shares
from tidemill.features.freshness import Freshness
from tidemill.features.online import Filling, OnlineRows, RowsLost
from tidemill.ingest.batch import Batch
from tidemill.ingest.skew import SkewCheck
from tidemill.ingest.tables import events_table, picture_store, quarantine_table
from tidemill.ingest.telemetry import EVENTS, QUARANTINED, REBUILDS, REFUSALS, REPEATED, begin
from tidemill.ingest.votes import Voting, sketches
from tidemill.spec.model import ContinualModel

__all__ = ["Effects", "Passed", "Stage"]

Stage = Literal["quarantine", "events", "rows", "sketches"]
"""The effects in their order."""

Passed = Callable[[Stage], None]
"""Told after each effect; what it raises ends the worker there (tests crash it so)."""

_FLUSH_S = 5.0

_PLACE = ("source", "offset")

_FIXED = ("entity", "source", "offset", "event_time", "available_at")
"""Columns of the events table that the online rows need besides fields."""

_log = get_logger(__name__)


class Effects:
    """The stores behind one worker.

    Args:
        resource: the model.
        rows: its online rows.
        lake: folder or URI of the lake.
        writer: for sketches and quarantined records.
        clock: tells how far back windows may be asked for.
        freshness: told what the online rows have.
        gone: which of these sources Kafka will never know again.
        passed: told after each effect.

    Methods raise `Transient` errors where a store does not answer; calling again is safe.
    """

    def __init__(
        self,
        resource: ContinualModel,
        *,
        rows: OnlineRows,
        lake: str,
        writer: RecordWriter,
        clock: Clock,
        passed: Passed,
        freshness: Freshness | None = None,
        gone: Callable[[Iterable[Source]], Collection[Source]] = lambda sources: (),
    ) -> None:
        self._model = resource.id
        self._topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self._voting = Voting(resource)
        self._row_columns = [*_FIXED, *rows.layout.names]
        self._needed = list(dict.fromkeys((*self._row_columns, *self._voting.features)))
        self.events = events_table(lake, resource)
        self._quarantine = quarantine_table(lake, resource)
        self._pictures = picture_store(lake, resource)
        self._skew = SkewCheck(lake, resource)
        self._rows = rows
        self._writer = writer
        self._clock = clock
        self._passed = passed
        self._freshness = freshness
        self._gone = gone
        self._sketches = SketchWriter(writer, self._topics.sketches)
        self._field_label = begin(resource)

    def take(self, batch: Batch) -> None:
        """All effects of a batch, in the order that makes each safe to repeat."""
        batch = self._once(batch)
        self._quarantine_bad(batch)
        self._passed("quarantine")
        sources = tuple(batch.upto)
        spans = self.events.append(batch.events, batch.upto, before_commit=lambda: self.announce(sources))
        self._passed("events")
        settled = self._settled(batch, spans)
        self._write_rows(settled)
        if self._freshness is not None and not settled.is_empty():
            newest, arrived = settled.select(pl.max("event_time"), pl.min("available_at")).row(0)
            self._freshness.wrote(newest=newest, arrived=arrived)
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

        def made(source: Source, span: Span) -> list[Sketch]:
            if rows is None or begin is None or begin[source] > span.after + 1:
                found = self._lake_rows(source, span)
            else:
                found = rows.filter(span.of(source))
            return sketches(self._voting, source, span, found)

        spans = ((source, self.events.last_span(source)) for source in sources)
        self._sketches.tell(((source, span) for source, span in spans if span is not None), made)

    def upkeep(self, policy: Policy) -> Upkeep:
        """Who keeps the tables small, beside the effects."""
        tables = (self.events, self._quarantine)
        return Upkeep(tables, policy, self._clock, sweeps=[self._pictures.sweep], checks=[self._skew.check])

    def settle(self, sources: Iterable[Source], *, recover: bool, rebuild: bool) -> None:
        """Before these sources are read: bring rows and sketches up to what the lake has of them.

        A worker that ended between the lake and them left this to whoever reads the source next. Of a topic that is
        gone no one does: `recover` does it for all that the lake has. `rebuild` fills the rows even if they stand.
        """
        self.fill_rows(force=recover or rebuild)
        self.announce(dict.fromkeys([*self.events.sources(), *sources]) if recover else sources)

    def fill_rows(self, *, force: bool = False) -> None:
        """Fill the online rows from the lake if they were lost (`force`: in any case)."""
        if self._rows.rebuild(self._load, force=force):
            REBUILDS.labels(self._model).inc()
            _log.info("online rows were filled from the lake", model=self._model)

    def _once(self, batch: Batch) -> Batch:
        """Without replays from quarantine that have taken effect: an origin counts once, wherever it comes from."""
        replays = batch.events.select(*_PLACE, "origin").filter(pl.col("origin").is_not_null())
        if replays.is_empty():
            return batch
        origins = replays["origin"].unique()
        found = [_taken(batch.events.lazy(), origins).collect()]
        if self.events.exists:
            found.insert(0, self.events.collect(_taken(self.events.scan(), origins)))
        # The first of each origin counts: what the lake has, be it this very record, then the batch in its order.
        first = pl.concat(found).unique("origin", keep="first", maintain_order=True)
        again = replays.join(first, on=_PLACE, how="anti")
        REPEATED.labels(self._model).inc(again.height)
        return replace(batch, events=batch.events.join(again, on=_PLACE, how="anti", maintain_order="left"))

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
                frames.append(self._lake_rows(source, Span(batch.begin[source] - 1, known)))
            frames.append(batch.events.filter(Span(known, upto).of(source)).select(self._needed))
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
        gone = self._gone_of(snapshot.upto)
        fence = {source: upto for source, upto in snapshot.upto.items() if source not in gone}
        rows = snapshot.rows.select(*self._row_columns, "event_date")
        return Filling(fence, shares(rows, self._rows.layout, self._clock.now(), self.events.collect), gone)

    def _gone_of(self, sources: Iterable[str]) -> set[str]:
        """Those that rows need no fence of. Without an answer they keep it: rows do not wait for Kafka."""
        try:
            return {str(source) for source in self._gone(map(Source.parse, sources))}
        except Unavailable:
            return set()

    def _lake_rows(self, source: Source, span: Span) -> pl.DataFrame:
        found = self.events.scan().filter(span.of(source)).select(self._needed)
        return self.events.collect(found.sort("offset"))

    def _count(self, batch: Batch, spans: dict[Source, Span]) -> None:
        for source, span in spans.items():
            EVENTS.labels(self._model).inc(batch.events.filter(span.of(source)).height)
            for record in batch.quarantined:
                if record.source == str(source) and record.offset > span.after:
                    QUARANTINED.labels(self._model, self._field_label(record.field)).inc()


def _taken(rows: pl.LazyFrame, origins: pl.Series) -> pl.LazyFrame:
    """Those of the rows that are one of the origins themselves, then those that are replays of one."""
    offsets: dict[str, list[int]] = defaultdict(list)
    for origin in origins:
        source, _, offset = origin.rpartition("/")
        offsets[source].append(int(offset))
    at = pl.any_horizontal(
        (pl.col("source") == source) & pl.col("offset").is_in(some) for source, some in offsets.items()
    )
    rows = rows.select(*_PLACE, "origin")
    itself = pl.concat_str(*_PLACE, separator="/").alias("origin")
    return pl.concat([rows.filter(at).with_columns(itself), rows.filter(pl.col("origin").is_in(origins.implode()))])
