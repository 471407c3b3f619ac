"""What lies in quarantine, and how it is taken in again: once, however often it is replayed.

A replay is the original record with the header `origin`, the source/offset at which the event first came. It is
produced in one Kafka transaction with a marker on `<id>.quarantine.replayed`. Ingest drops an origin that the lake has.
A replay goes to the partition that the original came from, so that one worker sees all replays of an origin.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import polars as pl

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import InvalidInput, NotFound, Unavailable
from tidemill.events.cluster import MAX_MESSAGE_BYTES, Cluster, ensure_topics
from tidemill.events.kafka import RecordReader
from tidemill.events.lake import with_missing
from tidemill.events.records import Quarantined, Replayed, Topics, encode
from tidemill.events.replay import Outgoing, TransactionWriter, read_value
from tidemill.events.sources import Source
from tidemill.ingest.batch import ORIGIN
from tidemill.ingest.tables import QUARANTINE_COLUMNS, quarantine_table
from tidemill.spec.model import ContinualModel

__all__ = ["Place", "QuarantineStore", "Replay", "Wanted", "parse_place"]

Place = tuple[str, int]
"""Source and offset of a record."""

_TOGETHER, _TOGETHER_BYTES = 200, 32 << 20
"""Records of one transaction at most, and bytes of their values (but for a single larger one)."""

_ORDER = ("available_at", "source", "offset")
_SIZE = pl.when("truncated").then(MAX_MESSAGE_BYTES).otherwise(pl.col("value").bin.size()).alias("size")
"""Bytes of a value; of one that stands in the log alone, the most there may be."""


class _Listed(NamedTuple):
    """A record without what may be large."""

    source: str
    offset: int
    available_at: datetime
    truncated: bool
    size: int

    @property
    def place(self) -> Place:
        return self.source, self.offset


@dataclass(frozen=True)
class Wanted:
    """Which quarantined records; what is None does not matter."""

    reason: str | None = None
    """Part of the reason, in any case."""
    field: str | None = None
    source: str | None = None
    """The source, or its beginning."""
    since: datetime | None = None
    until: datetime | None = None
    """Arrival at or after, and before."""
    places: frozenset[Place] | None = None


@dataclass(frozen=True)
class Replay:
    """What a replay did, or would do."""

    replayed: Sequence[Place]
    gone: Sequence[Place]
    """Too large to be copied to quarantine, and the log no longer holds them."""
    already: int
    """Left out because they were replayed before."""


class QuarantineStore:
    """The quarantine of one model.

    Args:
        resource: the model.
        lake: folder or URI of the lake.
        kafka: Kafka's address; None where there is none, which only `find` and `get` do without.
        clock: dates the markers.

    Methods raise `Unavailable` where a store does not answer.
    """

    def __init__(self, resource: ContinualModel, *, lake: str, kafka: str | None, clock: Clock) -> None:
        self._topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self._table = quarantine_table(lake, resource)
        self._address = kafka
        self._clock = clock

    def find(self, wanted: Wanted, limit: int | None = None) -> list[Quarantined]:
        """Records as they are wanted, the newest arrivals first; none where nothing was ever quarantined."""
        rows = self._rows(wanted).sort(_ORDER, descending=True)
        return self._found(rows if limit is None else rows.head(limit))

    def get(self, place: Place) -> Quarantined:
        """The record of a place; raises `NotFound`."""
        found = self.find(Wanted(places=frozenset([place])), 1)
        if not found:
            hint = "`tidemill quarantine list MODEL` shows what there is"
            raise NotFound(f"nothing of {place[0]}/{place[1]} is in quarantine", hint=hint)
        return found[0]

    def markers(self) -> dict[Place, Replayed]:
        """The newest replay of each record that was replayed."""
        ensure_topics(self._kafka, {self._topics.replayed: 1})
        found: dict[Place, Replayed] = {}
        with RecordReader(self._kafka, self._topics.replayed, Replayed) as reader:
            for one in reader.rest():
                found[one.record.source, one.record.offset] = one.record
        return found

    def replay(self, wanted: Wanted, *, by: str, again: bool = False, dry_run: bool = False) -> Replay:
        """Produce them to the events topic, oldest first; `again`: also those that were replayed before."""
        known = {} if again else self.markers()
        rows = self._rows(wanted)
        listed = self._table.collect(rows.select("source", "offset", "available_at", "truncated", _SIZE).sort(_ORDER))
        left = [one for one in map(_Listed._make, listed.iter_rows()) if one.place not in known]
        already = listed.height - len(left)
        if not left:
            return Replay([], [], already)
        with Cluster(self._kafka) as cluster:
            sources = cluster.sources(self._topics.events)
        replayed: list[Place] = []
        gone: list[Place] = []
        with nullcontext() if dry_run else self._writer() as writer:
            for part in _parts(left):
                values = {one.place: self._large(one.place, sources) for one in part if one.truncated}
                lost = [place for place, value in values.items() if value is None]
                here = [one.place for one in part if one.place not in lost]
                if writer is not None and here:
                    found = self._found(rows.filter(_condition(Wanted(places=frozenset(here)))).sort(_ORDER))
                    writer.write([out for one in found for out in self._outgoing(one, values, sources, by)])
                replayed += here
                gone += lost
        return Replay(replayed, gone, already)

    def _found(self, rows: pl.LazyFrame) -> list[Quarantined]:
        return [_quarantined(row) for row in self._table.collect(rows.drop("available_date")).iter_rows(named=True)]

    def _rows(self, wanted: Wanted) -> pl.LazyFrame:
        try:
            rows = with_missing(self._table.scan(), {ORIGIN: pl.String()})
        except NotFound:
            return pl.LazyFrame(schema=QUARANTINE_COLUMNS)
        return rows.select(*QUARANTINE_COLUMNS).filter(_condition(wanted))

    def _writer(self) -> TransactionWriter:
        ensure_topics(self._kafka, {self._topics.replayed: 1})
        return TransactionWriter(self._kafka, self._topics.replayed)

    def _large(self, place: Place, sources: dict[int, Source]) -> bytes | None:
        """From the log, the value that quarantine only points to; None where it is gone."""
        source = Source.parse(place[0])
        if sources.get(source.partition) != source:
            return None
        return read_value(self._kafka, self._topics.events, source.partition, place[1], clock=self._clock)

    def _outgoing(
        self, record: Quarantined, large: Mapping[Place, bytes | None], sources: dict[int, Source], by: str
    ) -> list[Outgoing]:
        origin = record.origin or f"{record.source}/{record.offset}"
        partition = Source.parse(record.source).partition
        headers = [(name, value) for name, value in record.headers if name != ORIGIN]
        marker = Replayed(
            source=record.source, offset=record.offset, origin=origin, time=to_ms(self._clock.now()), by=by
        )
        event = Outgoing(
            self._topics.events,
            large[record.source, record.offset] if record.truncated else record.value,
            record.key,
            [*headers, (ORIGIN, origin.encode())],
            partition if partition in sources else None,
        )
        return [event, Outgoing(self._topics.replayed, encode(marker), record.source.encode())]

    @property
    def _kafka(self) -> str:
        if self._address is None:
            raise Unavailable("no Kafka is known", hint="start a stack with `tidemill up`, or set TIDEMILL_KAFKA")
        return self._address


def parse_place(text: str) -> Place:
    """The place that `SOURCE/OFFSET` names; raises `InvalidInput`."""
    source, _, offset = text.rpartition("/")
    if not offset.isdecimal():
        raise InvalidInput(f"{text!r} is no SOURCE/OFFSET", hint="`tidemill quarantine list MODEL` shows them")
    return str(Source.parse(source)), int(offset)


def _condition(wanted: Wanted) -> pl.Expr:
    conditions = [pl.lit(True)]
    if wanted.reason is not None:
        conditions.append(pl.col("reason").str.to_lowercase().str.contains(wanted.reason.lower(), literal=True))
    if wanted.field is not None:
        conditions.append(pl.col("field") == wanted.field)
    if wanted.source is not None:
        conditions.append(pl.col("source").str.starts_with(wanted.source))
    if wanted.since is not None:
        conditions.append(pl.col("available_at") >= wanted.since)
    if wanted.until is not None:
        conditions.append(pl.col("available_at") < wanted.until)
    if wanted.places is not None:
        offsets = defaultdict(list)
        for source, offset in wanted.places:
            offsets[source].append(offset)
        here = [(pl.col("source") == source) & pl.col("offset").is_in(some) for source, some in offsets.items()]
        conditions.append(pl.any_horizontal(here) if here else pl.lit(False))
    return pl.all_horizontal(conditions)


def _quarantined(row: dict[str, Any]) -> Quarantined:
    headers = msgspec.json.decode(row["headers"], type=list[tuple[str, bytes]])
    return Quarantined(**{**row, "available_at": to_ms(row["available_at"]), "headers": headers})


def _parts(records: Sequence[_Listed]) -> Iterator[Sequence[_Listed]]:
    begin = size = 0
    for at, one in enumerate(records):
        if at > begin and (at - begin == _TOGETHER or size + one.size > _TOGETHER_BYTES):
            yield records[begin:at]
            begin, size = at, 0
        size += one.size
    yield records[begin:]
