"""The log of one model in memory, and its time. It can fail at any call.

The real worker runs on it unchanged, with the index and the lake of `tidemill.testing.outcome_stores`. A `Faults` that
is shared raises where a test wants it: before an effect, which is then not done, or after it, which then is done and
not known to be.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from tidemill.core.clock import from_ms
from tidemill.core.errors import Conflict, Unavailable
from tidemill.events.records import Outcome, Record, Resolved, ResolvedLabel, encode
from tidemill.events.sources import Source
from tidemill.outcomes.log import Addressed, Channel, Offsets, Position, Raw

__all__ = ["Faults", "MemoryClock", "MemoryLog", "MemoryTopics"]


class Faults:
    """Decides at which effect to fail. `at(name)` is asked twice for each: before it and after it."""

    def __init__(self, fails: Callable[[str], bool] = lambda _: False) -> None:
        self.fails = fails

    def at(self, name: str) -> None:
        """Raise `Unavailable` if it is time."""
        if self.fails(name):
            raise Unavailable(f"failure at {name}")


class MemoryTopics:
    """What survives a worker: the topics' records, the commits, and who may write outcomes.

    Args:
        partitions: of predictions and resolved labels; labels and outcomes have one.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.now = 1
        """The brokers' time in milliseconds; a test moves it."""
        self.records: dict[tuple[Channel, int], list[Raw]] = {
            (channel, part): []
            for channel in Channel
            for part in range(partitions if channel in {Channel.PREDICTIONS, Channel.RESOLVED} else 1)
        }
        self.commits: dict[Channel, Offsets] = {}
        self.judged: dict[int, Position] = {}
        self.writer = 0

    def append(self, channel: Channel, record: Record | bytes, part: int = 0, key: str | None = None) -> int:
        """Append a record now; returns its offset. Offsets have gaps, as Kafka's do."""
        log = self.records[channel, part]
        offset = log[-1].offset + (2 if len(log) % 3 == 0 else 1) if log else 0
        value = record if isinstance(record, bytes) else encode(record)
        log.append(Raw(part, offset, self.now, None if key is None else key.encode(), value))
        return offset

    def outcomes(self) -> list[Outcome]:
        """All outcomes written; a record without a key is none."""
        written = (raw for raw in self.records[Channel.OUTCOMES, 0] if raw.key is not None)
        return [msgspec.json.decode(raw.value or b"", type=Outcome) for raw in written]


class MemoryClock:
    """Implements `Clock`: the brokers' time of some topics, which passes when somebody sleeps or moves it."""

    def __init__(self, topics: MemoryTopics) -> None:
        self._topics = topics

    def now(self) -> datetime:
        """The brokers' time."""
        return from_ms(self._topics.now)

    def monotonic(self) -> float:
        """The same, in seconds."""
        return self._topics.now / 1000

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self._topics.now += round(seconds * 1000)


class MemoryLog:
    """Implements `OutcomeLog` over `MemoryTopics`; one per life of a worker.

    Args:
        topics: what survives.
        faults: where to fail.
        batch: how many records the next poll returns at most.
    """

    def __init__(self, topics: MemoryTopics, faults: Faults, batch: Callable[[], int] = lambda: 100) -> None:
        self._topics, self._faults, self._batch = topics, faults, batch
        self._at: dict[tuple[Channel, int], int] = {}
        self._due: Offsets = {}
        self._unflushed: list[tuple[int, Resolved]] = []
        topics.writer += 1
        self._writer = topics.writer

    @property
    def sources(self) -> Mapping[Channel, Mapping[int, Source]]:
        """Which incarnation of each topic this is, by partition."""
        made: dict[Channel, dict[int, Source]] = {channel: {} for channel in Channel}
        for channel, part in self._topics.records:
            made[channel][part] = Source("memory", channel.value, part)
        return made

    @staticmethod
    def partition_of(key: str, partitions: int) -> int:
        """Where a record with this key stands; predictions are keyed by their ids."""
        return sum(key.encode()) % partitions

    def starts(self, channel: Channel) -> Offsets:
        """The lowest offset that each partition holds."""
        return dict.fromkeys(self.sources[channel], 0)

    def ends(self, *channels: Channel) -> dict[tuple[Channel, int], int]:
        """The offset after the last record of each partition."""
        self._faults.at("ends")
        return {place: _end(log) for place, log in self._topics.records.items() if place[0] in channels}

    def committed(self, channel: Channel) -> Offsets:
        """Up to where predictions or labels were taken in."""
        return dict(self._topics.commits.get(channel, {}))

    def judged(self) -> dict[int, Position]:
        """What the last `emit` that succeeded said."""
        return dict(self._topics.judged)

    def seek(self, channel: Channel, offsets: Offsets) -> None:
        """Read on from here."""
        self._at.update({(channel, part): offset for part, offset in offsets.items()})

    def seek_due(self, offsets: Offsets) -> None:
        """Read predictions for the second time from here."""
        self._due.update(offsets)

    def poll(self, timeout_s: float) -> Sequence[tuple[Channel, Sequence[Raw]]]:
        """The next records of some partitions."""
        found = []
        for place, log in self._topics.records.items():
            records = _from(log, self._at[place], self._batch())
            if records:
                self._at[place] = records[-1].offset + 1
                found.append((place[0], records))
        return found

    def poll_due(self, partitions: Sequence[int]) -> Sequence[Sequence[Raw]]:
        """The next predictions for the second time, of these partitions."""
        found = []
        for part in partitions:
            log = self._topics.records[Channel.PREDICTIONS, part]
            records = _from(log, self._due[part], self._batch())
            if records:
                self._due[part] = records[-1].offset + 1
                found.append(records)
        return found

    def positions(self, channel: Channel) -> Offsets:
        """The next offset to read."""
        return {part: at for (of, part), at in self._at.items() if of is channel}

    def send(self, labels: Sequence[Addressed]) -> None:
        """Buffer; written at the next flush, two labels of a partition in a record at most."""
        parts = len(self.sources[Channel.RESOLVED])
        together: dict[int, list[ResolvedLabel]] = {}
        for to in labels:
            part = self.partition_of(to.label.prediction_id, parts) if to.partition is None else to.partition
            together.setdefault(part, []).append(to.label)
        for part, said in together.items():
            self._unflushed += [(part, Resolved(labels=said[at : at + 2])) for at in range(0, len(said), 2)]

    def flush(self) -> None:
        """Write what was sent; a failure on the way leaves the first part of it written."""
        while self._unflushed:
            self._faults.at("send")
            part, said = self._unflushed.pop(0)
            self._topics.append(Channel.RESOLVED, said, part)

    def mark(self, through: int) -> int:
        """Append a mark to each partition."""
        self.flush()
        for part in self.sources[Channel.RESOLVED]:
            self._faults.at("mark")
            self._topics.append(Channel.RESOLVED, Resolved(through=through), part)
        return self._topics.now

    def check(self) -> None:
        """Topics in memory are never made anew."""

    def commit(self, channel: Channel, offsets: Offsets) -> None:
        """Note up to where predictions or labels were taken in."""
        self._faults.at("commit")
        self._topics.commits[channel] = dict(offsets)
        self._faults.at("commit")

    def emit(self, outcomes: Sequence[Outcome], judged: Mapping[int, Position]) -> None:
        """Append outcomes and note how far was judged: both or neither."""
        self._faults.at("emit")
        if self._writer != self._topics.writer:
            raise Conflict("another outcomes worker took over")
        for outcome in outcomes:
            self._topics.append(Channel.OUTCOMES, outcome, key=outcome.prediction_id)
        self._topics.judged = dict(judged)
        self._faults.at("emit")

    def replay(self, channel: Channel, until: Offsets) -> Iterator[Sequence[Raw]]:
        """All records before `until`, from the log's start."""
        for part, end in until.items():
            records = [raw for raw in self._topics.records[channel, part] if raw.offset < end]
            for start in range(0, len(records), 3):
                yield records[start : start + 3]

    def close(self) -> None:
        """Nothing is held."""


def _end(log: Sequence[Raw]) -> int:
    return log[-1].offset + 1 if log else 0


def _from(log: Sequence[Raw], offset: int, most: int) -> Sequence[Raw]:
    start = bisect_left(log, offset, key=lambda raw: raw.offset)
    return log[start : start + most]
