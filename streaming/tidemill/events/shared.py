"""One connection to Kafka for all logs that a process follows: its threads and files do not grow with their number.

Where the followed logs end is asked for all of them at once, now and then; only a log that has grown is read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from kafka import TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.clock import Clock, SystemClock
from tidemill.core.errors import TidemillError, Unavailable
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import Cluster, kafka_failures
from tidemill.events.kafka import Decoding, RecordWriter, Stamped, check_topic, connect, first_offsets
from tidemill.events.records import Record
from tidemill.events.sources import Source

__all__ = ["FollowedTopic", "SharedKafka"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_log = get_logger(__name__)

_FRESH_S = 0.2
"""How old an answer may be to where the logs end."""
_SPARING = 9
"""The next question waits for so many times as long as the last answer took: a tenth of the time at most, ..."""
_OLD_S = 2.0
"""... but never longer than this."""
_PROBE_S = 30.0
"""Between two looks at whether the followed topics are still the same."""
_WAIT_S = 0.5
"""Longest wait for records that are known to be there."""
_STEP_MS = 5
_FLUSH_S = 10.0


class SharedKafka:
    """A process's connection to the brokers at one address. One thread.

    It is made when it is needed first, and anew after a failure, so that what follows topics need not know of either.

    Args:
        bootstrap: Kafka's address.
        client_id: how this process shows in the brokers' logs and metrics.
        clock: measures the age of answers.
    """

    def __init__(self, bootstrap: str, *, client_id: str = "tidemill-control", clock: Clock | None = None) -> None:
        self.bootstrap = bootstrap
        self._client_id = client_id
        self._clock = clock or SystemClock()
        self._cluster: Cluster | None = None
        self._consumer: Any = None
        self._known: set[TopicPartition] = set()
        self._writer: RecordWriter | None = None
        self._followed: set[FollowedTopic[Any]] = set()
        self._ends: dict[str, dict[int, int]] = {}
        self._ask_at = 0.0
        self._probe_at = 0.0

    def ask(self, question: Callable[[Cluster], T]) -> T:
        """The answer to a question to the brokers; raises what it raises."""
        with self._anew_after_failure():
            if self._cluster is None:
                self._cluster = Cluster(self.bootstrap)
            return question(self._cluster)

    def write(self, topic: str, records: Iterable[tuple[str, Record]]) -> None:
        """Write records with their keys; returns when they are safe. Raises as `RecordWriter.send` and `flush`."""
        with self._anew_after_failure():
            if self._writer is None:
                self._writer = RecordWriter(self.bootstrap, client_id=self._client_id)
            try:
                for key, record in records:
                    self._writer.send(topic, record, key=key)
                self._writer.flush(_FLUSH_S)
            except BaseException:
                writer, self._writer = self._writer, None
                writer.close()  # what is left in it must not fail the next one's records
                raise
        self._ends.pop(topic, None)  # who follows it is to see them at once

    def follow(
        self,
        topic: str,
        kind: type[R],
        offsets: Mapping[int, int] | None = None,
        *,
        keyed: bool = False,
        unkeyed: type[R] | None = None,
    ) -> "FollowedTopic[R]":
        """Follow a topic from these offsets on, each as `RecordReader` takes it; close what is returned."""
        followed = FollowedTopic(self, Decoding(topic, kind, keyed=keyed, unkeyed=unkeyed), topic, offsets or {})
        self._followed.add(followed)
        return followed

    def forget(self, followed: "FollowedTopic[Any]") -> None:
        """Ask for it no more."""
        self._followed.discard(followed)

    def ends(self, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """Where a topic's partitions ended a moment ago (read_committed)."""
        if self._clock.monotonic() >= self._ask_at:
            self._ask_all()
        if topic not in self._ends:
            try:
                self._ends[topic] = self.ask(lambda cluster: cluster.ends(topic, partitions))
            except TidemillError:
                for one in self._followed:  # until the next look it is asked for alone
                    one.doubtful = one.doubtful or one.topic == topic
                raise
        return self._ends[topic]

    def ends_now(self, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """Where they end now."""
        self._ends.pop(topic, None)
        return self.ends(topic, partitions)

    def fetch(
        self, topic: str, at: Mapping[int, int], max_records: int
    ) -> tuple[Mapping[int, list[Any]], Mapping[int, int]] | None:
        """Messages by partition from these offsets on, where some are known to be, and the next offsets.

        None where the log no longer holds one of the offsets. Raises `Unavailable`.
        """
        parts = {TopicPartition(topic, number): offset for number, offset in at.items()}
        with self._anew_after_failure(), kafka_failures(f"reading {topic}"):
            consumer = self._placed(parts)
            until = self._clock.monotonic() + _WAIT_S
            while True:
                try:
                    found = consumer.poll(timeout_ms=_STEP_MS, max_records=max_records)
                except kafka_errors.OffsetOutOfRangeError:
                    return None
                now = {part.partition: int(consumer.position(part, timeout_ms=0)) for part in parts}
                # Offsets without a record (marks of transactions, what was compacted) are read, too.
                if now != at or self._clock.monotonic() >= until:
                    return {part.partition: raw for part, raw in found.items()}, now

    def close(self) -> None:
        """Drop the connections; whatever is asked next makes them anew."""
        parts = (self._consumer, self._cluster, self._writer)
        self._consumer, self._cluster, self._writer = None, None, None
        self._ends, self._ask_at = {}, 0.0
        for part in parts:
            if part is not None:
                part.close()

    def _ask_all(self) -> None:
        began = self._clock.monotonic()
        try:
            self._probe(began)
            # One topic that is gone is nothing to the others: it is asked for alone, and fails alone.
            wanted = {one.topic: tuple(one.sources) for one in self._followed if not one.doubtful}
            self._ends = self.ask(lambda cluster: cluster.ends_of(wanted))
        except TidemillError as error:
            _log.info("where the followed logs end is not told", error=error.message, hint="their topics are looked at")
            self._ends, self._probe_at = {}, began
        now = self._clock.monotonic()
        self._ask_at = now + min(_OLD_S, max(_FRESH_S, _SPARING * (now - began)))

    def _probe(self, now: float) -> None:
        """Take note of topics that were made anew, or have more partitions: their offsets alone would not tell."""
        if now < self._probe_at:
            return
        found = self.ask(lambda cluster: cluster.sources_of({one.topic for one in self._followed}))
        for one in self._followed:
            one.doubtful = found.get(one.topic) != one.sources
            if one.doubtful:
                _log.info("a followed topic is gone, or another one", topic=one.topic)
        self._probe_at = now + _PROBE_S

    def _placed(self, parts: Mapping[TopicPartition, int]) -> Any:
        """The consumer, where these are its partitions and offsets."""
        if self._consumer is None:
            # One that waited at the brokers for more records would keep the next topic waiting.
            self._consumer = connect(self.bootstrap, fetch_max_wait_ms=_STEP_MS, retry_backoff_ms=_STEP_MS)
            self._known = set()
        is_new = self._consumer.assignment() != parts.keys()
        if is_new:
            if not self._known.issuperset(parts):
                # Where a partition is, is asked for once for all that are followed; the consumer remembers it.
                self._known = {part for one in self._followed for part in one.parts} | parts.keys()
                self._consumer.assign(list(self._known))
            self._consumer.assign(list(parts))
        for part, offset in parts.items():
            # What was fetched beyond the last answer stays with a position that stays.
            if is_new or self._consumer.position(part, timeout_ms=0) != offset:
                self._consumer.seek(part, offset)
        return self._consumer

    @contextmanager
    def _anew_after_failure(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self.close()
            raise


class FollowedTopic(Generic[R]):
    """Reads all partitions of a topic from given offsets over a shared connection. Made by `SharedKafka.follow`.

    Attributes:
        sources: the topic's sources by partition.
        lost: how many offsets the log no longer held when they were to be read.
        doubtful: whether the topic may be another one by now.

    Raises as `RecordReader`.
    """

    def __init__(self, kafka: SharedKafka, decoding: Decoding[R], topic: str, offsets: Mapping[int, int]) -> None:
        self.topic = topic
        self.lost = 0
        self.doubtful = False
        self._kafka = kafka
        self._decoding = decoding
        self.sources: dict[int, Source] = kafka.ask(lambda cluster: cluster.sources(topic))
        self._seek(offsets)

    @property
    def parts(self) -> list[TopicPartition]:
        """Its partitions, as the consumer names them."""
        return [TopicPartition(self.topic, number) for number in self.sources]

    def poll(self, max_records: int = 500) -> list[Stamped[R]]:
        """The next records in offset order by partition; none where there were none a moment ago.

        Raises `Unavailable`, and `Conflict` where the topic was made anew.
        """
        if self.doubtful:
            self._check()
        ends = self._kafka.ends(self.topic, self.sources)
        # A log that is shorter than what was read of it was made anew, if it was not asked before that was written.
        if self.doubtful or any(at > ends.get(number, at) for number, at in self._at.items()):
            self._check()
        return self._read(ends, max_records)

    def rest(self) -> Iterator[Stamped[R]]:
        """As `RecordReader.rest`: all that was acknowledged to its writer before this call; then it ends."""
        wanted = self._kafka.ask(lambda cluster: cluster.acknowledged(self.topic, self.sources))
        while any(at < wanted[number] for number, at in self._at.items()):
            yield from self._read(wanted, 500)

    def offsets(self) -> dict[int, int]:
        """The next offset to read by partition."""
        return dict(self._at)

    def ends(self) -> dict[int, int]:
        """Where each partition's log ends now: the offset after its last committed record."""
        return dict(self._kafka.ends_now(self.topic, self.sources))

    def close(self) -> None:
        """Follow it no longer."""
        self._kafka.forget(self)

    def _read(self, ends: Mapping[int, int], max_records: int) -> list[Stamped[R]]:
        behind = {number: at for number, at in self._at.items() if at < ends.get(number, 0)}
        if not behind:
            return []
        fetched = self._kafka.fetch(self.topic, behind, max_records)
        # Ids are never given twice: the same id before and after the fetch means the same topic during it.
        self._check()
        if fetched is None:
            self._seek(self._at)
            return []
        found, now = fetched
        self._at.update(now)
        return [one for number, raw in found.items() for one in self._decoding.records(self.sources[number], raw)]

    def _seek(self, offsets: Mapping[int, int]) -> None:
        starts = self._kafka.ask(lambda cluster: cluster.starts(self.topic, self.sources))
        self._at, lost = first_offsets(self.topic, starts, offsets)
        self.lost += lost

    def _check(self) -> None:
        self._kafka.ask(lambda cluster: check_topic(cluster, self.topic, self.sources))
        self.doubtful = False
