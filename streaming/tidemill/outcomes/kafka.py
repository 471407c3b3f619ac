"""The log of one model on Kafka, as the outcomes worker reads and writes it.

Two consumers without membership: the first reads all four topics, committed records only; the second reads the
predictions again when they are due, and asks for ends. Two producers: one for resolved labels, where a repeated
record does no harm; one whose transactions carry outcomes and positions together, named after the model, so that
a second worker fences the first.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.partitioner.default import murmur2

from tidemill.core.errors import Unavailable
from tidemill.events.pack import Sent, send_together
from tidemill.events.records import Outcome, Resolved, ResolvedLabel, Topics, encode
from tidemill.events.sources import Source
from tidemill.outcomes.brokers import TIMEOUT_S, Brokers
from tidemill.outcomes.log import Addressed, Channel, Offsets, Position, Raw
from tidemill.outcomes.own import OwnOutcomes

__all__ = ["KafkaLog"]

_BATCH = 10_000
"""Records of one poll: at some hundred bytes each, some megabytes."""

_AHEAD = 5000
"""Predictions held that wait for their time; as many become outcomes in one transaction at most."""

_RECORD_BYTES = 256 << 10
"""Size up to which resolved labels share a record: some thousand of them."""

_JUDGED = re.compile(r"(-?\d+)(?:,(\d+))? (\S+)")


class KafkaLog:
    """Implements `OutcomeLog`; makes the topics that are missing.

    Args:
        bootstrap: Kafka's address.
        topics: the model's topics.
        keep_ms: how long topics that are made here keep predictions, resolved labels and outcomes.

    Raises:
        Unavailable: the brokers do not answer.
        InvalidInput: predictions and resolved labels have different numbers of partitions.
    """

    def __init__(self, bootstrap: str, topics: Topics, *, keep_ms: int) -> None:
        self._brokers = Brokers(bootstrap, topics)
        self._names, self._model = self._brokers.names, topics.model
        self._channels = {name: channel for channel, name in self._names.items()}
        self._group = f"{topics.model}.outcomes"
        self._failed: list[BaseException] = []
        self._failures = self._brokers.failures
        try:
            self._brokers.make_topics(keep_ms)
            self.sources: Mapping[Channel, Mapping[int, Source]] = self._brokers.sources()
            # First of all: it ends what a dead worker left open, so that the commits read below are the last ones.
            self._writer = self._brokers.producer(
                transactional_id=f"{topics.model}.outcomes", transaction_timeout_ms=30_000
            )
            with self._failures("taking over from an earlier worker"):
                self._writer.init_transactions()
            self._resolved = self._brokers.producer()
            self._reader = self._brokers.consumer(self._group, "read_committed")
            self._due = self._brokers.consumer(f"{self._group}.join", "read_uncommitted")
        except BaseException:
            self.close()
            raise
        self._reader.assign([tp for channel in Channel for tp in self._partitions(channel)])
        self._own = OwnOutcomes(self._reader, {tp.partition: tp for tp in self._partitions(Channel.OUTCOMES)})
        # It reads predictions alone, but kafka-python finds ends only of partitions that are assigned.
        others = [tp for channel in Channel if channel is not Channel.PREDICTIONS for tp in self._partitions(channel)]
        self._due.assign([*self._partitions(Channel.PREDICTIONS), *others])
        for tp in others:
            self._due.seek(tp, 0)
        self._due.pause(*others)

    def starts(self, channel: Channel) -> Offsets:
        """The lowest offset that each partition holds."""
        return self._brokers.cluster.starts(self._names[channel], self.sources[channel])

    def ends(self, *channels: Channel) -> dict[tuple[Channel, int], int]:
        """The offset after the last record of each partition, those of open transactions included."""
        wanted = [tp for channel in channels for tp in self._partitions(channel)]
        with self._failures("asking for the ends of the log"):
            try:
                found = self._due.end_offsets(wanted)
            except KeyError as error:  # what it raises for a partition that no broker leads at the moment
                raise Unavailable(f"{self._model}: the end of {error} is not known") from error
        return {(self._channels[tp.topic], tp.partition): offset for tp, offset in found.items()}

    def committed(self, channel: Channel) -> Offsets:
        """Up to where predictions or labels were taken in, for partitions that have a commit."""
        commits = {part: self._commit(self._reader, channel, part) for part in self.sources[channel]}
        return {
            part: commit.offset
            for part, commit in commits.items()
            if commit is not None and commit.metadata == str(self.sources[channel][part])
        }

    def judged(self) -> dict[int, Position]:
        """What the last `emit` that succeeded said; a partition without one is missing."""
        positions = {}
        for part, source in self.sources[Channel.RESOLVED].items():
            written = self._commit(self._due, Channel.PREDICTIONS, part)
            read = self._commit(self._due, Channel.RESOLVED, part)
            if written is None or read is None or written.metadata != str(self.sources[Channel.PREDICTIONS][part]):
                continue
            said = _JUDGED.fullmatch(read.metadata)
            if said is not None and said[3] == str(source):
                positions[part] = Position(written.offset, read.offset, int(said[1]), int(said[2] or 0))
        return positions

    def seek(self, channel: Channel, offsets: Offsets) -> None:
        """Read on from here."""
        for part, offset in offsets.items():
            self._reader.seek(self._tp(channel, part), offset)
        if channel is Channel.OUTCOMES:
            self._own.begin({part: end for (_, part), end in self.ends(channel).items()})

    def seek_due(self, offsets: Offsets) -> None:
        """Read predictions for the second time from here."""
        for part, offset in offsets.items():
            self._due.seek(self._tp(Channel.PREDICTIONS, part), offset)

    def poll(self, timeout_s: float) -> Sequence[tuple[Channel, Sequence[Raw]]]:
        """The next records: each entry is of one partition, in offset order. Empty after `timeout_s`."""
        with self._failures("reading"):
            own = self._own.take()
            found = self._reader.poll(timeout_ms=0 if own else round(timeout_s * 1000), max_records=_BATCH)
        read = [(self._channels[tp.topic], _raw(tp, records)) for tp, records in found.items()]
        return [*((Channel.OUTCOMES, records) for records in own if records), *read]

    def poll_due(self, partitions: Sequence[int]) -> Sequence[Sequence[Raw]]:
        """The next predictions for the second time, of these partitions; does not wait."""
        if not partitions:
            return []
        paused = [tp for tp in self._partitions(Channel.PREDICTIONS) if tp.partition not in partitions]
        with self._failures("reading predictions again"):
            self._due.pause(*paused)
            found = self._due.poll(timeout_ms=0, max_records=_AHEAD)
            self._due.resume(*paused)
        return [_raw(tp, records) for tp, records in found.items()]

    def positions(self, channel: Channel) -> Offsets:
        """The next offset to read, past whatever is no record."""
        with self._failures("asking for a position"):
            return {part: int(self._reader.position(self._tp(channel, part))) for part in self.sources[channel]}

    def send(self, labels: Sequence[Addressed]) -> None:
        """Append to the resolved labels; they are written by the time `flush` or `mark` returns."""
        only = self._only(Channel.RESOLVED)
        together: dict[int, list[ResolvedLabel]] = defaultdict(list)
        for to in labels:
            part = to.partition
            if part is None:
                part = self._partition_of(Channel.RESOLVED, to.label.prediction_id.encode()) if only is None else only
            together[part].append(to.label)
        topic = self._names[Channel.RESOLVED]
        with self._failures(f"writing to {topic}"):
            for part, said in together.items():
                for value in _values(said):
                    self._resolved.send(topic, value, partition=part).add_errback(self._failed.append)

    def flush(self) -> None:
        """Return when all that was sent is written."""
        with self._failures("resolved labels were not written"):
            self._resolved.flush(timeout=TIMEOUT_S)
            if self._failed:
                raise self._failed[0]

    def mark(self, through: int) -> int:
        """After all that was sent, append a mark to each partition; when, in the brokers' time."""
        self.flush()
        topic, value = self._names[Channel.RESOLVED], encode(Resolved(through=through))
        with self._failures(f"marking {topic}"):
            futures = [self._resolved.send(topic, value, partition=part) for part in self.sources[Channel.RESOLVED]]
            self._resolved.flush(timeout=TIMEOUT_S)
            return min(int(future.get(timeout=TIMEOUT_S).timestamp) for future in futures)

    def check(self) -> None:
        """Raise `Unavailable` where a topic was made anew: its offsets mean something else now."""
        if self._brokers.sources() != self.sources:
            raise Unavailable(f"a topic of {self._model} was made anew, or has more partitions: reading starts again")

    def commit(self, channel: Channel, offsets: Offsets) -> None:
        """Note up to where predictions or labels were taken in."""
        commits = {
            self._tp(channel, part): OffsetAndMetadata(offset, str(self.sources[channel][part]), -1)
            for part, offset in offsets.items()
        }
        with self._failures("committing"):
            self._reader.commit(commits, timeout_ms=round(TIMEOUT_S * 1000))

    def emit(self, outcomes: Sequence[Outcome], judged: Mapping[int, Position]) -> None:
        """Append outcomes and note how far was judged: both or neither.

        Raises `Conflict` where another worker took over.
        """
        commits = {}
        for part, at in judged.items():
            predictions, resolved = self.sources[Channel.PREDICTIONS][part], self.sources[Channel.RESOLVED][part]
            commits[self._tp(Channel.PREDICTIONS, part)] = OffsetAndMetadata(at.written, str(predictions), -1)
            commits[self._tp(Channel.RESOLVED, part)] = OffsetAndMetadata(
                at.read, f"{at.through},{at.final} {resolved}", -1
            )
        records = self._by_partition(Channel.OUTCOMES, _keyed(outcomes))
        self._own.wrote(self._transact(records, commits))

    def replay(self, channel: Channel, until: Offsets) -> Iterator[Sequence[Raw]]:
        """All records before `until`, from the log's start."""
        starts = self.starts(channel)
        reader = self._brokers.consumer(None, "read_committed")
        try:
            reader.assign([self._tp(channel, part) for part, end in until.items() if starts[part] < end])
            for tp in reader.assignment():
                reader.seek(tp, starts[tp.partition])
            silent = 0
            while any(reader.position(tp) < until[tp.partition] for tp in reader.assignment()):
                with self._failures("reading the log again"):
                    found = reader.poll(timeout_ms=1000, max_records=_BATCH)
                silent = 0 if found else silent + 1
                if silent > TIMEOUT_S:
                    raise Unavailable(f"{self._names[channel]} ended before what was read of it, or cannot be read")
                for tp, records in found.items():
                    wanted = _raw(tp, [record for record in records if record.offset < until[tp.partition]])
                    if wanted:
                        yield wanted
        finally:
            self._brokers.drop(reader)

    def close(self) -> None:
        """Drop the connections; what was sent and not flushed may or may not be written."""
        self._brokers.close()

    def _transact(
        self, records: Mapping[int, Sequence[tuple[bytes, bytes]]], commits: Mapping[Any, Any]
    ) -> Mapping[int, Sequence[Sent] | None]:
        topic = self._names[Channel.OUTCOMES]
        with self._failures(f"writing to {topic}"):
            self._writer.begin_transaction()
            sent = {part: send_together(self._writer, topic, part, said) for part, said in records.items()}
            self._writer.send_offsets_to_transaction(commits, f"{self._group}.join")
            self._writer.commit_transaction()
        return sent

    def _commit(self, consumer: Any, channel: Channel, part: int) -> Any:
        with self._failures("asking for commits"):
            return consumer.committed(self._tp(channel, part), metadata=True, timeout_ms=round(TIMEOUT_S * 1000))

    def _only(self, channel: Channel) -> int | None:
        """The one partition, so that no key is hashed (in Python, a fifth of a send); None where there are more."""
        return 0 if len(self.sources[channel]) == 1 else None

    def _by_partition(
        self, channel: Channel, records: list[tuple[bytes, bytes]]
    ) -> dict[int, list[tuple[bytes, bytes]]]:
        only = self._only(channel)
        if only is not None:
            return {only: records} if records else {}
        parts: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        for record in records:
            parts[self._partition_of(channel, record[0])].append(record)
        return parts

    def _partition_of(self, channel: Channel, key: bytes) -> int:
        """Where every producer puts a record with this key."""
        return int(murmur2(key) & 0x7FFFFFFF) % len(self.sources[channel])

    def _partitions(self, channel: Channel) -> list[Any]:
        return [self._tp(channel, part) for part in self.sources[channel]]

    def _tp(self, channel: Channel, part: int) -> Any:
        return TopicPartition(self._names[channel], part)


def _keyed(outcomes: Sequence[Outcome]) -> list[tuple[bytes, bytes]]:
    return [(outcome.prediction_id.encode(), encode(outcome)) for outcome in outcomes]


def _values(labels: Sequence[ResolvedLabel]) -> Iterator[bytes]:
    """Records of these labels: one, or as many as they need to be of a size that Kafka takes."""
    value = encode(Resolved(labels=list(labels)))
    if len(value) <= _RECORD_BYTES or len(labels) == 1:
        yield value
    else:
        half = len(labels) // 2
        yield from _values(labels[:half])
        yield from _values(labels[half:])


def _raw(tp: Any, records: Sequence[Any]) -> list[Raw]:
    part = tp.partition
    return [Raw(part, record.offset, record.timestamp, record.key, record.value) for record in records]
