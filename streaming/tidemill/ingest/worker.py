"""The worker: poll → validate → lake → online rows → sketches → commit.

A batch is what a short while of polling brought; it has all its effects before the group's offsets move, or none that
matters: after a rebalance what was gathered is dropped whole, because whoever has the partition now reads it again.
While a batch has its effects, on a thread of their own, the next one is read; there it waits until they are done.
Where to begin in a partition is worked out on assignment (`tidemill.ingest.start`), never by Kafka's reset. While a
broker or store does not answer the worker waits, tries again and loses nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.clock import Clock
from tidemill.core.collecting import rare_collections
from tidemill.core.errors import NotFound, Transient
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import Cluster, ensure_topics, kafka_failures
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Topics
from tidemill.events.sources import Source
from tidemill.events.upkeep import Policy
from tidemill.events.waiting import Stopped, Waiting
from tidemill.features.freshness import Freshness
from tidemill.features.layout import layout_of
from tidemill.features.online import OnlineRows
from tidemill.ingest.batch import Batch, BatchReader, Raw
from tidemill.ingest.consumer import FENCED, Listener, connect
from tidemill.ingest.effects import Effects, Passed
from tidemill.ingest.gather import PAUSE_S, Gatherer, most_records
from tidemill.ingest.guard import Guard
from tidemill.ingest.halts import Halts
from tidemill.ingest.lag import LagMeter
from tidemill.ingest.start import start_of
from tidemill.ingest.tables import picture_store
from tidemill.ingest.telemetry import LOST
from tidemill.spec.model import ContinualModel

__all__ = ["run"]

_log = get_logger(__name__)

_IDLE_S = 5.0
"""After so much silence the stores are asked whether they are there, and whether the rows still are."""
_ANSWER_S = 5.0
_ALIVE_S = 1.0
"""How often the group is told that this member lives while something takes long."""


def run(
    resource: ContinualModel,
    *,
    kafka: str,
    redis: str,
    lake: str,
    clock: Clock,
    stop: Event,
    linger_s: float = 0.15,
    batch_records: int = 20_000,
    policy: Policy | None = None,
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
        linger_s: how long a batch gathers: five commits a second at most keep the lake's files few, sketches fresh.
        batch_records: most records of a batch; as many come only while there is a backlog.
        policy: what the lake keeps, and for how long (default: everything).
        passed: told after each effect (`Stage`); what it raises ends the worker there.

    Raises:
        Permanent: what waiting cannot heal, such as a Redis that evicts rows or a column of another type.
    """
    try:
        waiting = Waiting(f"{resource.id}.ingest", stop)
        worker = _Worker(resource, kafka, redis, lake, clock, waiting, passed, linger_s, batch_records)
        with rare_collections():
            worker.run(policy or Policy())
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
        linger_s: float,
        batch_records: int,
    ) -> None:
        self._resource = resource
        self._topic = resource.events_topic
        self._kafka = kafka
        self._redis = redis
        self._lake = lake
        self._clock = clock
        self._waiting = waiting
        self._passed = passed
        self._reader = BatchReader(resource, picture_store(lake, resource))
        self._guard = Guard(resource.spec.events.quarantine.stop_above)
        self._gatherer = Gatherer(self._poll, clock, waiting, linger_s, most_records(resource, batch_records))
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._unplaced: set[TopicPartition] = set()
        """Partitions that were assigned; where to begin in them is still to be worked out."""
        self._moved = False
        """Partitions were taken or given since the batch at hand was begun."""
        self._unfinished = False
        """A batch had some of its effects, and not all."""
        self._sources: dict[TopicPartition, Source] = {}
        self._next: dict[TopicPartition, int] = {}
        """Offset to read next; what lies below it has had its effects, or is about to."""
        self._done: dict[TopicPartition, int] = {}
        """Offset below which everything has had its effects."""
        self._pending: tuple[Future[bool], dict[TopicPartition, int]] | None = None
        """The batch that is having its effects while the next one is read, and what to commit after that."""

    def run(self, policy: Policy) -> None:
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
                    clock=self._clock,
                    passed=self._passed,
                    gone=self._cluster.gone,
                    freshness=Freshness(
                        self._resource.id, "events", self._resource.spec.features.freshness, self._clock
                    ),
                )
                self._upkeep = self._effects.upkeep(policy)
                self._consumer = until_done(lambda: connect(self._kafka, f"{self._resource.id}.ingest"))
                self._halts = Halts(self._consumer, self._resource.id, self._clock)
                try:
                    with (
                        LagMeter(self._cluster, self._resource.id, self._topic, self._positions),
                        ThreadPoolExecutor(1, f"{self._resource.id}.effects") as self._thread,
                    ):
                        self._loop()
                finally:
                    self._upkeep.close()
                    self._halts.end()
                    self._consumer.close(autocommit=False, timeout_ms=round(_ANSWER_S * 1000))
                    rows.close()
        finally:
            self._cluster.close()

    def _loop(self) -> None:
        self._consumer.subscribe([self._topic], listener=Listener(self.given))
        heard = self._clock.monotonic()
        try:
            while not self._waiting.stop.is_set():
                self._halts.keep_only(self._assigned)
                self._halts.try_again()
                if any(tp.partition == 0 for tp in self._sources):  # of several workers, the one that has it
                    self._upkeep.begin_if_due()
                self._moved = False
                # What had its effects is committed soon, also where nothing follows it.
                records = self._gatherer.gather(0.5 if self._pending is None else PAUSE_S)
                if records:
                    self._take(records)
                else:
                    self._finish()
                if self._unplaced:
                    self._finish()
                    self._waiting.until_done(self._place, (Transient, NotFound))
                elif not records and self._clock.monotonic() - heard < _IDLE_S:
                    continue
                elif not records:
                    self._waiting.until_done(self._look)
                heard = self._clock.monotonic()
            self._finish()
        except BaseException:
            self._waiting.stop.set()  # else the effects might wait for a store for ever
            raise

    def _poll(self, wait_s: float, max_records: int) -> dict[TopicPartition, list[Any]] | None:
        """Records by partition; None if partitions were taken or given since the batch at hand was begun."""
        with kafka_failures(f"reading {self._topic}"):
            try:
                found = self._consumer.poll(timeout_ms=round(wait_s * 1000), max_records=max_records)
            except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
                _log.warning("the log moved under the reader", topic=self._topic, reason=str(error))
                self.given(self._consumer.assignment())
            return None if self._moved else dict(found)

    def _take(self, records: dict[TopicPartition, list[Raw]]) -> None:
        by_source = {self._sources[tp]: raws for tp, raws in records.items()}
        begin = {self._sources[tp]: self._next[tp] for tp in records}
        # Pictures may have to be fetched: a store that does not answer is waited for, never taken for a bad event.
        batch = self._waiting.until_done(lambda: self._reader.read(by_source, begin))
        stops = self._guard.judge(batch)
        partitions = {source: tp for tp, source in self._sources.items() if source in batch.upto}
        for source, stop in stops.items():
            tp = partitions.pop(source)
            self._halts.stop(tp, self._next[tp], stop)
        if not partitions:
            return
        batch = batch.without(stops) if stops else batch
        self._finish()
        if self._moved:
            return
        self._guard.took(batch)
        self._next |= {tp: batch.upto[source] + 1 for source, tp in partitions.items()}
        self._halts.end(partitions.values())
        offsets = {tp: self._next[tp] for tp in partitions.values()}
        self._pending = self._thread.submit(self._waiting.until_done, lambda: self._attempt(batch)), offsets

    def _attempt(self, batch: Batch) -> bool:
        """All effects of a batch, unless its topic is gone: asked each time, as rows may have no fence of it then."""
        if not self._waiting.until_done(self._still_the_same, (Transient, NotFound)):
            return False
        self._unfinished = True
        self._effects.take(batch)
        self._unfinished = False
        return True

    def _finish(self) -> None:
        """Wait until the batch before has had its effects, and commit it; what ended them ends the worker."""
        if self._pending is not None:
            (effects, offsets), self._pending = self._pending, None
            if effects.result():
                self._done |= offsets
                self._commit(offsets)
            else:
                _log.warning("the topic was made anew; reading the new one", topic=self._topic)
                self.given(self._consumer.assignment())

    def _positions(self) -> dict[int, int]:
        return {tp.partition: at for tp, at in self._done.copy().items() if tp in self._assigned}

    def _still_the_same(self) -> bool:
        """Whether the topic that was polled is the one the offsets belong to: ids are never given twice."""
        now = self._cluster.sources(self._topic)
        return all(now.get(tp.partition) == source for tp, source in self._sources.items())

    def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        # The source goes along: a commit of a topic that is gone must not be taken for one of its successor.
        committed = {tp: OffsetAndMetadata(at, str(self._sources[tp]), -1) for tp, at in offsets.items()}
        try:
            self._consumer.commit(committed, timeout_ms=round(_ANSWER_S * 1000))
        except FENCED as error:
            _log.info("another worker has the partitions now", model=self._resource.id, reason=str(error))
        except kafka_errors.KafkaError as error:
            # All effects are there; the next commit covers this one, and a restart reads again what it leaves out.
            _log.warning("offsets were not committed", model=self._resource.id, reason=str(error))

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are this worker's now, and no others; where to begin in them is worked out next."""
        self._moved = True
        self._unplaced = set(partitions)
        self._assigned = frozenset(self._unplaced)
        for tp in self._unplaced:
            self._consumer.seek(tp, 0)  # any position does: without one Kafka's reset would be asked
            self._consumer.pause(tp)

    def _place(self) -> None:
        """Work out where to begin in each partition that was given, and begin there.

        A partition of which the brokers do not tell yet which source it is stays held still, and the others go on.
        """
        known = self._cluster.sources(self._topic)
        sources = {tp: known[tp.partition] for tp in sorted(self._assigned) if tp.partition in known}
        if self._unplaced < self._assigned:
            if not self._unplaced & sources.keys():
                return
            self.given(self._assigned)  # one that was new is known now: all are placed once more
        self._moved, numbers = False, [tp.partition for tp in sources]
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
        self._halts.end()
        # The topic is new to the lake, or a batch had some of its effects only: whatever the lake has is finished.
        recover = has_table and (self._unfinished or all(events.version_of(one) is None for one in known.values()))
        rebuild = any(start.rebuild for start in starts.values())
        self._while_alive(lambda: self._effects.settle(sources.values(), recover=recover, rebuild=rebuild))
        self._unfinished &= not recover
        if self._moved:  # what was given meanwhile is placed next
            return
        for tp, start in starts.items():
            if start.alarm:
                _log.error(start.alarm, topic=self._topic, partition=tp.partition, begins_at=start.offset)
            LOST.labels(self._resource.id).inc(start.lost)
            self._consumer.seek(tp, start.offset)
            self._consumer.resume(tp)
        self._sources = sources
        self._next = {tp: start.offset for tp, start in starts.items()}
        self._done = dict(self._next)
        self._unplaced -= sources.keys()

    def _while_alive(self, action: Callable[[], None]) -> None:
        """The action, however long it takes. All partitions are held still, so polls bring nothing.

        Without polls the group would take this member for dead, and the next one would begin the same from the start.
        """
        done = self._thread.submit(action)
        while not wait((done,), _ALIVE_S).done:
            self._waiting.until_done(partial(self._poll, 0.1, 1))
        done.result()

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
        # Behind the last record there may be a transaction's marker, which is no lag.
        self._next |= {tp: self._consumer.position(tp) for tp in self._next if tp in self._assigned}
        self._done = dict(self._next)
