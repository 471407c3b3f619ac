"""Records on Kafka: write them with every replica's acknowledgement, read them with their source and offset.

For consumers that keep their own offsets (watch, control, the CLI, pipeline steps). Workers that share partitions
through a consumer group have their own loop (`tidemill.ingest.worker`).
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.clock import Clock, SystemClock
from tidemill.core.errors import Conflict
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import MAX_MESSAGE_BYTES, Cluster, ensure_topics, kafka_failures, reach
from tidemill.events.records import Record, decode, encode
from tidemill.events.sources import Source

__all__ = [
    "Decoding",
    "RecordReader",
    "RecordWriter",
    "Stamped",
    "check_topic",
    "connect",
    "ensure_topics",
    "first_offsets",
]

R = TypeVar("R", bound=Record)

_log = get_logger(__name__)
# It logs every attempt to reconnect; an outage is reported once, by whoever waits for its end.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

_PROBE_S = 5.0
"""A silent log is asked whether it is there at all after this long: a consumer cannot tell silence from absence."""


@dataclass(frozen=True, slots=True)
class Stamped(Generic[R]):
    """A record, where it stands in the log, and when it arrived there (milliseconds since the epoch)."""

    source: Source
    offset: int
    timestamp_ms: int
    record: R


class RecordWriter:
    """Writes records: idempotent, acknowledged by all replicas, batched for 5 ms. Thread-safe.

    Args:
        bootstrap: Kafka's address.
        client_id: how this process shows in the brokers' logs and metrics.
        max_block_s: longest time `send` waits for the brokers or for room in the buffer.
        give_up_s: age at which a record that is not written is given up.

    Raises:
        Unavailable: the brokers do not answer.
    """

    def __init__(
        self, bootstrap: str, *, client_id: str = "tidemill", max_block_s: float = 10.0, give_up_s: float = 30.0
    ) -> None:
        self._failed: list[BaseException] = []
        reach(bootstrap)
        with kafka_failures(f"Kafka at {bootstrap}"):
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap.split(","),
                client_id=client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                batch_size=256 << 10,
                max_request_size=MAX_MESSAGE_BYTES,
                max_block_ms=round(max_block_s * 1000),
                bootstrap_timeout_ms=round(max_block_s * 1000),
                request_timeout_ms=10_000,
                delivery_timeout_ms=round(give_up_s * 1000),
                reconnect_backoff_max_ms=1000,
            )

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        topic: str,
        record: Record | bytes,
        *,
        key: str | None = None,
        on_done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        """Hand a record (or a user's own JSON) to the buffer; it is written by the time `flush` returns.

        `on_done` is called once, on the writer's thread, with None or the reason why the record was not written;
        a record with an `on_done` is not counted by `flush`. Raises `Unavailable` where the topic's partitions
        cannot be learned or the buffer stays full, `InvalidInput` for a record larger than Kafka takes.
        """
        value = record if isinstance(record, bytes) else encode(record)
        with kafka_failures(f"writing to {topic}"):
            future = self._producer.send(topic, value=value, key=None if key is None else key.encode())
        if on_done is None:
            future.add_errback(self._failed.append)
        else:
            future.add_callback(lambda _: on_done(None))
            future.add_errback(on_done)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when all that was sent is written; raises `Unavailable` where some of it is not (or may not be)."""
        with kafka_failures(f"{timeout_s:g} s were not enough to write all records"):
            self._producer.flush(timeout=timeout_s)
        failed, self._failed = self._failed, []
        if failed:
            with kafka_failures(f"{len(failed)} records were not written"):
                raise failed[0]

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is buffered if that is possible in `timeout_s`, and drop the connection."""
        self._producer.close(timeout=timeout_s)


class Decoding(Generic[R]):
    """What is made of a topic's messages.

    Args:
        topic: for logs.
        kind: the record type on the topic.
        on_bad: called with the source, offset and bytes of what is no `kind`; without it that is logged and skipped.
        keyed: only records that have a key; those without one are of another kind (`.outcomes`: `LabelAgreement`).
        unkeyed: the kind of those without a key, where they are to be read, too.
    """

    def __init__(
        self,
        topic: str,
        kind: type[R],
        *,
        on_bad: Callable[[Source, int, bytes], None] | None = None,
        keyed: bool = False,
        unkeyed: type[R] | None = None,
    ) -> None:
        self._topic = topic
        self._kind = kind
        self._unkeyed: type[R] | None = unkeyed or (None if keyed else kind)
        self._on_bad = on_bad or self._log_bad

    def records(self, source: Source, raw: Sequence[Any]) -> list[Stamped[R]]:
        """The records of a partition's messages."""
        stamped = []
        for record in raw:
            if record.value is None:  # a tombstone of a compacted topic says nothing
                continue
            kind = self._kind if record.key is not None else self._unkeyed
            if kind is None:
                continue
            try:
                value = decode(kind, record.value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._on_bad(source, record.offset, record.value)
            else:
                stamped.append(Stamped(source, record.offset, record.timestamp, value))
        return stamped

    def _log_bad(self, source: Source, offset: int, value: bytes) -> None:
        _log.error(
            "skipped what is no record of this topic",
            topic=self._topic,
            source=str(source),
            offset=offset,
            expected=self._kind.__name__,
            value=value[:80],
        )


class RecordReader(Generic[R]):
    """Reads all partitions of a topic from given offsets, read_committed, without a consumer group. One thread.

    Args:
        bootstrap: Kafka's address.
        topic: must exist.
        kind, on_bad, keyed, unkeyed: as of `Decoding`.
        offsets: next offset to read by partition; partitions that are not named, and None, start where the log does.
        clock: measures silence.

    Raises:
        NotFound: there is no such topic.
        Unavailable: the brokers do not answer.

    An offset that the log no longer holds is raised to its start; `lost` counts the offsets in between.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        kind: type[R],
        offsets: Mapping[int, int] | None = None,
        *,
        on_bad: Callable[[Source, int, bytes], None] | None = None,
        keyed: bool = False,
        unkeyed: type[R] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.topic = topic
        self.lost = 0
        self._decoding = Decoding(topic, kind, on_bad=on_bad, keyed=keyed, unkeyed=unkeyed)
        self._clock = clock or SystemClock()
        self._heard = self._clock.monotonic()
        self._cluster = Cluster(bootstrap)
        try:
            self.sources = self._cluster.sources(topic)
            self._consumer = connect(bootstrap)
        except BaseException:
            self._cluster.close()
            raise
        self._seek(offsets or {})

    def __enter__(self) -> "RecordReader[R]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def poll(self, max_records: int = 500, timeout_s: float = 0.5) -> list[Stamped[R]]:
        """The next records in offset order by partition, or none after `timeout_s`.

        Raises `Unavailable` where the brokers have been silent and do not answer when asked, and `Conflict` where
        the topic was made anew: its offsets mean something else now.
        """
        with kafka_failures(f"reading {self.topic}"):
            try:
                found = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=max_records)
            except kafka_errors.OffsetOutOfRangeError:
                self._check_topic()
                self._seek(self.offsets())
                return []
        if found:
            # Ids are never given twice: the same id before and after the fetch means the same topic during it.
            self._check_topic()
            self._heard = self._clock.monotonic()
        elif self._clock.monotonic() - self._heard > _PROBE_S:
            self._check_topic()
            self._heard = self._clock.monotonic()
        return [
            stamped for tp, raw in found.items() for stamped in self._decoding.records(self.sources[tp.partition], raw)
        ]

    def rest(self) -> Iterator[Stamped[R]]:
        """All that was acknowledged to its writer before this call, from here on; then it ends.

        A committed transaction counts: the brokers say so before they mark it in each partition, so that for a moment
        its records lie behind the end that `ends` tells. One that is open is waited for, until its time is up.
        Raises as `poll`.
        """
        wanted = self._cluster.acknowledged(self.topic, self.sources)
        while any(at < wanted[number] for number, at in self.offsets().items()):
            yield from self.poll()

    def pause(self, partitions: Collection[int]) -> None:
        """Read all partitions but these from now on."""
        wanted, paused = {self._tp(number) for number in partitions}, self._consumer.paused()
        if wanted != paused:
            self._consumer.resume(*(paused - wanted))
            self._consumer.pause(*(wanted - paused))

    def offsets(self) -> dict[int, int]:
        """The next offset to read by partition; hand it to a later reader to go on from here."""
        with kafka_failures(f"position in {self.topic}"):
            return {number: int(self._consumer.position(self._tp(number))) for number in self.sources}

    def ends(self) -> dict[int, int]:
        """Where each partition's log ends now: the offset after its last committed record. Raises `Unavailable`."""
        return self._cluster.ends(self.topic, self.sources)

    def at_end(self) -> bool:
        """Whether every partition was read up to where its log ends now. Raises `Unavailable`.

        On a topic that is written to all the time this may hardly ever be so; compare `offsets` with older `ends`.
        """
        ends = self.ends()
        return all(at >= ends[number] for number, at in self.offsets().items())

    def close(self) -> None:
        """Drop the connections."""
        self._consumer.close()
        self._cluster.close()

    def _seek(self, offsets: Mapping[int, int]) -> None:
        starts = self._cluster.starts(self.topic, self.sources)
        self._consumer.assign([self._tp(number) for number in self.sources])
        first, lost = first_offsets(self.topic, starts, offsets)
        self.lost += lost
        for number, offset in first.items():
            self._consumer.seek(self._tp(number), offset)

    def _check_topic(self) -> None:
        check_topic(self._cluster, self.topic, self.sources)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)


def connect(bootstrap: str, **settings: Any) -> Any:
    """A consumer without a group: read_committed, and a wrong offset is an error. Raises `Unavailable`."""
    with kafka_failures(f"Kafka at {bootstrap}"):
        return KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            client_id="tidemill-reader",
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=16 << 20,
            reconnect_backoff_max_ms=1000,
            bootstrap_timeout_ms=10_000,
            **settings,
        )


def first_offsets(topic: str, starts: Mapping[int, int], wanted: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """Where reading begins in each partition, and how many offsets that were wanted the log no longer holds."""
    lost = sum(max(0, start - wanted.get(number, start)) for number, start in starts.items())
    if lost:
        _log.error("the log no longer holds what was not read", topic=topic, lost=lost)
    return {number: max(start, wanted.get(number, start)) for number, start in starts.items()}, lost


def check_topic(cluster: Cluster, topic: str, sources: Mapping[int, Source]) -> None:
    """Raise `Conflict` where a topic is another one by now."""
    if cluster.sources(topic) != sources:
        raise Conflict(
            f"topic {topic} was made anew, or its partitions changed, while it was read",
            hint="start again: offsets of the old topic say nothing about the new one",
        )
