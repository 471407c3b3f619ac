"""What lies in quarantine, and how it is taken in again: once, however often it is replayed.

A replay is the original record with the header `origin`, the source/offset at which the event first came. It is
produced in one Kafka transaction with a marker on `<id>.quarantine.replayed`. Ingest drops an origin that the lake has.
A replay goes to the partition that the original came from, so that one worker sees all replays of an origin.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import polars as pl

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import InvalidInput, NotFound, Unavailable
from tidemill.events.cluster import Cluster, ensure_topics
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Quarantined, Replayed, Topics, encode
from tidemill.events.replay import Outgoing, TransactionWriter, read_value
from tidemill.events.sources import Source
from tidemill.ingest.batch import ORIGIN
from tidemill.ingest.tables import QUARANTINE_COLUMNS, quarantine_table
from tidemill.spec.model import ContinualModel

__all__ = ["Place", "QuarantineStore", "Replay", "Wanted", "parse_place"]

Place = tuple[str, int]
"""Source and offset of a record."""

_TOGETHER = 200
"""Records of one transaction."""


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
        return list(islice(self._records(wanted, limit), limit))

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
            while not reader.at_end():
                for one in reader.poll(timeout_s=0.2):
                    found[one.record.source, one.record.offset] = one.record
        return found

    def replay(self, wanted: Wanted, *, by: str, again: bool = False, dry_run: bool = False) -> Replay:
        """Produce them to the events topic, oldest first; `again`: also those that were replayed before."""
        known = {} if again else self.markers()
        all_found = self.find(wanted)[::-1]
        found = [one for one in all_found if (one.source, one.offset) not in known]
        with Cluster(self._kafka) as cluster:
            sources = cluster.sources(self._topics.events)
        gone = _places([one for one in found if one.truncated and self._value(one, sources) is None])
        left = [one for one in found if (one.source, one.offset) not in gone]
        if not dry_run and left:
            ensure_topics(self._kafka, {self._topics.replayed: 1})
            with TransactionWriter(self._kafka, self._topics.replayed) as writer:
                for part in _parts(left):
                    writer.write([out for one in part for out in self._outgoing(one, sources, by)])
        return Replay(_places(left), gone, len(all_found) - len(found))

    def _records(self, wanted: Wanted, limit: int | None) -> Iterator[Quarantined]:
        try:
            rows = self._table.scan()
        except NotFound:
            return
        if ORIGIN not in rows.collect_schema():  # written before replays were known
            rows = rows.with_columns(pl.lit(None, pl.String).alias(ORIGIN))
        rows = rows.select(*QUARANTINE_COLUMNS).filter(_condition(wanted))
        rows = rows.sort("available_at", "source", "offset", descending=True)
        found = (rows if limit is None else rows.head(limit)).collect()
        for row in found.drop("available_date").iter_rows(named=True):
            yield _quarantined(row)

    def _value(self, record: Quarantined, sources: dict[int, Source]) -> bytes | None:
        """The record's value, from the log where quarantine only points to it; None where it is gone."""
        if not record.truncated:
            return record.value
        source = Source.parse(record.source)
        if sources.get(source.partition) != source:
            return None
        return read_value(self._kafka, self._topics.events, source.partition, record.offset, clock=self._clock)

    def _outgoing(self, record: Quarantined, sources: dict[int, Source], by: str) -> list[Outgoing]:
        origin = record.origin or f"{record.source}/{record.offset}"
        partition = Source.parse(record.source).partition
        headers = [(name, value) for name, value in record.headers if name != ORIGIN]
        marker = Replayed(
            source=record.source, offset=record.offset, origin=origin, time=to_ms(self._clock.now()), by=by
        )
        event = Outgoing(
            self._topics.events,
            self._value(record, sources),
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
        here = [(pl.col("source") == source) & (pl.col("offset") == offset) for source, offset in wanted.places]
        conditions.append(pl.any_horizontal(here) if here else pl.lit(False))
    return pl.all_horizontal(conditions)


def _quarantined(row: dict[str, Any]) -> Quarantined:
    headers = msgspec.json.decode(row["headers"], type=list[tuple[str, bytes]])
    return Quarantined(**{**row, "available_at": to_ms(row["available_at"]), "headers": headers})


def _places(records: Sequence[Quarantined]) -> list[Place]:
    return [(one.source, one.offset) for one in records]


def _parts(records: Sequence[Quarantined]) -> Iterator[Sequence[Quarantined]]:
    for start in range(0, len(records), _TOGETHER):
        yield records[start : start + _TOGETHER]
