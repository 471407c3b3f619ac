"""The worker: poll → validate → lake → online rows → sketches → commit.

One thread. A batch is what a short while of polling brought; it has all its effects before the group's offsets move,
or none that matters: after a rebalance what was gathered is dropped whole, because whoever has the partition now
reads it again. Where to begin in a partition is worked out on assignment (`tidemill.ingest.start`), never by Kafka's
reset. While a broker or store does not answer the worker waits, tries again and loses nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from threading import Event
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.clock import Clock
from tidemill.core.errors import NotFound, Transient
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import Cluster, ensure_topics, kafka_failures
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Topics
from tidemill.events.sources import Source
from tidemill.events.waiting import Stopped, Waiting
from tidemill.features.layout import layout_of
from tidemill.features.online import OnlineRows
from tidemill.ingest.batch import Batch, Raw, make_batch
from tidemill.ingest.effects import Effects, Passed
from tidemill.ingest.parse import EventParser
from tidemill.ingest.start import start_of
from tidemill.ingest.tables import events_schema
from tidemill.ingest.telemetry import LAG, LOST
from tidemill.spec.model import ContinualModel

__all__ = ["run"]

_log = get_logger(__name__)

_LINGER_S = 0.15
"""How long a batch gathers: five commits a second at most keep the lake's files few, and sketches fresh."""
_TRICKLE, _PAUSE_S = 20, 0.05
"""While so few records come, they are left to gather: each poll costs a millisecond whatever it brings."""
_MAX_RECORDS = 4000
_MAX_VOTES = 80_000
"""Records times features of a batch: each may be a cell of its sketch (80 bytes), which must fit into a record."""
_MAX_BYTES = 32 << 20
"""Values of a batch; with what the consumer holds ready this bounds the worker's memory."""
_IDLE_S = 5.0
"""After so much silence the stores are asked whether they are there, and whether the rows still are."""
_ANSWER_S = 5.0

_FENCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
)


def run(
    resource: ContinualModel,
    *,
    kafka: str,
    redis: str,
    lake: str,
    clock: Clock,
    stop: Event,
    passed: Passed = lambda stage: None,
) -> None:
    """Take in a model's events until `stop` is set; the batch at hand is finished or dropped whole.

    Args:
        resource: the model.
        kafka: Kafka's address.
        redis: URL of the online rows' Redis.
        lake: folder or URI of the Delta tables.
        clock: measures how long a batch gathers and how long it is quiet.
        stop: set by whoever wants the end.
        passed: told after each effect (`Stage`); what it raises ends the worker there.

    Raises:
        Permanent: what waiting cannot heal, such as a Redis that evicts rows or a column of another type.
    """
    try:
        _Worker(resource, kafka, redis, lake, clock, Waiting(f"{resource.id}.ingest", stop), passed).run()
    except Stopped:
        _log.info("stopped while waiting; the batch at hand was dropped whole", model=resource.id)


class _Worker:
    def __init__(
        self,
        resource: ContinualModel,
        kafka: str,
        redis: str,
        lake: str,
        clock: Clock,
        waiting: Waiting,
        passed: Passed,
    ) -> None:
        self._resource = resource
        self._topic = resource.events_topic
        self._kafka = kafka
        self._redis = redis
        self._lake = lake
        self._clock = clock
        self._waiting = waiting
        self._passed = passed
        self._parser = EventParser(resource)
        self._schema = events_schema(resource)
        self._max_records = max(1, min(_MAX_RECORDS, _MAX_VOTES // max(1, len(resource.watched_features))))
        self._unplaced: set[TopicPartition] = set()
        """Partitions that were assigned; where to begin in them is still to be worked out."""
        self._moved = False
        """Partitions were taken or given since the batch at hand was begun."""
        self._unfinished = False
        """A batch had some of its effects, and not all."""
        self._sources: dict[TopicPartition, Source] = {}
        self._next: dict[TopicPartition, int] = {}

    def run(self) -> None:
        until_done = self._waiting.until_done
        self._cluster = until_done(lambda: Cluster(self._kafka, timeout_s=_ANSWER_S))
        try:
            topics = Topics(self._resource.id, self._topic, self._resource.labels_topic)
            until_done(lambda: ensure_topics(self._kafka, {topics.sketches: 1, topics.quarantine: 1}))
            until_done(lambda: self._cluster.sources(self._topic), (Transient, NotFound))
            rows = OnlineRows(self._redis, self._resource.id, layout_of(self._resource))
            warning = until_done(rows.check)
            if warning:
                _log.warning(warning, model=self._resource.id)
            client = f"{self._resource.id}.ingest"
            with until_done(lambda: RecordWriter(self._kafka, client_id=client, max_block_s=_ANSWER_S)) as writer:
                self._effects = Effects(
                    self._resource,
                    rows=rows,
                    lake=self._lake,
                    writer=writer,
                    passed=self._passed,
                    gone=self._cluster.gone,
                )
                self._consumer = until_done(self._connect)
                try:
                    self._loop()
                finally:
                    self._consumer.close(autocommit=False, timeout_ms=round(_ANSWER_S * 1000))
                    rows.close()
        finally:
            self._cluster.close()

    def _loop(self) -> None:
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        heard = self._clock.monotonic()
        while not self._waiting.stop.is_set():
            records = self._gather()
            if self._unplaced:
                self._waiting.until_done(self._place, (Transient, NotFound))
            elif records:
                self._take(records)
            elif self._clock.monotonic() - heard < _IDLE_S:
                continue
            else:
                self._waiting.until_done(self._look)
            heard = self._clock.monotonic()

    def _gather(self) -> dict[TopicPartition, list[Raw]]:
        """What a short while of polling brings; nothing if partitions were taken or given meanwhile."""
        self._moved = False
        gathered: dict[TopicPartition, list[Raw]] = defaultdict(list)
        count = size = 0
        wait_s, deadline = 0.5, None
        while wait_s > 0 and count < self._max_records and size < _MAX_BYTES and not self._waiting.stop.is_set():
            found = self._waiting.until_done(partial(self._poll, wait_s, self._max_records - count))
            if self._moved:
                return {}
            for partition, records in found.items():
                gathered[partition] += records
                count += len(records)
                size += sum(len(record.value or b"") for record in records)
            if deadline is None:
                if not gathered:
                    break
                deadline = self._clock.monotonic() + _LINGER_S
            if count < _TRICKLE:
                self._waiting.stop.wait(_PAUSE_S)
            wait_s = deadline - self._clock.monotonic()
        return gathered

    def _poll(self, wait_s: float, max_records: int) -> dict[TopicPartition, list[Any]]:
        with kafka_failures(f"reading {self._topic}"):
            try:
                found = self._consumer.poll(timeout_ms=round(wait_s * 1000), max_records=max_records)
            except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
                _log.warning("the log moved under the reader", topic=self._topic, reason=str(error))
                self.given(self._consumer.assignment())
                return {}
            return dict(found)

    def _take(self, records: dict[TopicPartition, list[Raw]]) -> None:
        batch = make_batch(
            {self._sources[tp]: raws for tp, raws in records.items()},
            {self._sources[tp]: self._next[tp] for tp in records},
            self._parser,
            self._schema,
        )
        if not self._waiting.until_done(partial(self._attempt, batch)):
            return
        for tp, raws in records.items():
            self._next[tp] = raws[-1].offset + 1
            end = self._consumer.highwater(tp)
            if end is not None:
                LAG.labels(self._resource.id, str(tp.partition)).set(max(0, end - self._next[tp]))
        self._commit(records)

    def _attempt(self, batch: Batch) -> bool:
        """All effects of a batch, unless its topic is gone: asked each time, as rows may have no fence of it then."""
        if not self._waiting.until_done(self._still_the_same, (Transient, NotFound)):
            return False
        self._unfinished = True
        self._effects.take(batch)
        self._unfinished = False
        return True

    def _still_the_same(self) -> bool:
        """Whether the topic that was polled is the one the offsets belong to: ids are never given twice."""
        now = self._cluster.sources(self._topic)
        same = all(now.get(tp.partition) == source for tp, source in self._sources.items())
        if not same:
            _log.warning("the topic was made anew; reading the new one", topic=self._topic)
            self.given(self._consumer.assignment())
        return same

    def _commit(self, partitions: Iterable[TopicPartition]) -> None:
        # The source goes along: a commit of a topic that is gone must not be taken for one of its successor.
        offsets = {tp: OffsetAndMetadata(self._next[tp], str(self._sources[tp]), -1) for tp in partitions}
        try:
            self._consumer.commit(offsets, timeout_ms=round(_ANSWER_S * 1000))
        except _FENCED as error:
            _log.info("another worker has the partitions now", model=self._resource.id, reason=str(error))
        except kafka_errors.KafkaError as error:
            # All effects are there; the next commit covers this one, and a restart reads again what it leaves out.
            _log.warning("offsets were not committed", model=self._resource.id, reason=str(error))

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are this worker's now, and no others; where to begin in them is worked out next."""
        self._moved = True
        self._unplaced = set(partitions)
        for tp in self._unplaced:
            self._consumer.seek(tp, 0)  # any position does: without one Kafka's reset would be asked
            self._consumer.pause(tp)

    def _place(self) -> None:
        """Work out where to begin in each partition that was given, and begin there."""
        known = self._cluster.sources(self._topic)
        sources = {tp: known[tp.partition] for tp in sorted(self._unplaced) if tp.partition in known}
        numbers = [tp.partition for tp in sources]
        log_starts, log_ends = self._cluster.starts(self._topic, numbers), self._cluster.ends(self._topic, numbers)
        events = self._effects.events
        events.refresh()
        has_table = events.exists
        starts = {
            tp: start_of(
                committed=self._committed(tp, source),
                taken=events.version_of(source),
                log_start=log_starts[tp.partition],
                log_end=log_ends[tp.partition],
                has_table=has_table,
            )
            for tp, source in sources.items()
        }
        if has_table and (self._unfinished or all(events.version_of(source) is None for source in known.values())):
            # The topic is new to the lake. Of one before it that is gone no one reads the last records again: rows
            # and sketches may lack what the lake took of them.
            self._effects.recover()
            self._unfinished = False
        self._effects.fill_rows(force=any(start.rebuild for start in starts.values()))
        self._effects.announce(sources.values())
        for tp, start in starts.items():
            if start.alarm:
                _log.error(start.alarm, topic=self._topic, partition=tp.partition, begins_at=start.offset)
            LOST.labels(self._resource.id).inc(start.lost)
            self._consumer.seek(tp, start.offset)
            self._consumer.resume(tp)
        self._sources = sources
        self._next = {tp: start.offset for tp, start in starts.items()}
        self._unplaced = set()

    def _committed(self, tp: TopicPartition, source: Source) -> int | None:
        with kafka_failures("committed offsets"):
            found = self._consumer.committed(tp, metadata=True, timeout_ms=round(_ANSWER_S * 1000))
        if found is None or found.metadata not in {"", str(source)}:
            return None
        return int(found.offset)

    def _look(self) -> None:
        """In silence: are the brokers there, and do the online rows still stand?"""
        self._cluster.sources(self._topic)
        self._effects.fill_rows()

    def _connect(self) -> Any:
        with kafka_failures(f"Kafka at {self._kafka}"):
            return KafkaConsumer(
                bootstrap_servers=self._kafka.split(","),
                client_id=f"{self._resource.id}.ingest",
                group_id=f"{self._resource.id}.ingest",
                isolation_level="read_committed",
                auto_offset_reset="none",
                enable_auto_commit=False,
                allow_auto_create_topics=False,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=2_000,
                # A commit waits behind a fetch on the same connection, so the fetch must not wait long.
                fetch_max_wait_ms=100,
                fetch_max_bytes=16 << 20,
                max_partition_fetch_bytes=8 << 20,
                metadata_max_age_ms=30_000,
                reconnect_backoff_max_ms=1000,
                bootstrap_timeout_ms=round(_ANSWER_S * 1000),
            )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called on the consumer's IO thread, where nothing may block: what was assigned waits until it is placed."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to finish: batches end between polls, and what is being gathered is dropped."""
        self._worker.given(())

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold the partitions still until they are placed."""
        self._worker.given(assigned)
