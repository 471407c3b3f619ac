"""What outcomes stands on, in memory: the log of one model, the index, a lake table. Each can fail at any call.

The real worker runs on them unchanged. A `Faults` that is shared raises where a test wants it: before an effect,
which is then not done, or after it, which then is done and not known to be.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

import msgspec
import polars as pl

from tidemill.core.errors import Conflict, Unavailable
from tidemill.events.lake import LakeTable, Span
from tidemill.events.records import Outcome, Record, Resolved, ResolvedLabel, encode
from tidemill.events.sources import Source
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed
from tidemill.outcomes.late import Hot
from tidemill.outcomes.log import Addressed, Channel, Offsets, Position, Raw
from tidemill.outcomes.state import Recalled, StateLost

__all__ = ["Faults", "MemoryIndex", "MemoryLog", "MemoryTable", "MemoryTopics"]


_MS = timedelta(milliseconds=1)


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


class MemoryIndex:
    """Implements `OutcomeState` in memory; survives a worker, and `lose` empties it.

    Args:
        faults: where to fail.
        now: the time in milliseconds.
        hot: for how long entries are kept; None: for ever.
    """

    def __init__(
        self, faults: Faults | None = None, now: Callable[[], int] = lambda: 0, hot: Hot | None = None
    ) -> None:
        self._faults = faults or Faults()
        self._now, self._hot, self._asked = now, hot, now()
        self.lose()

    def lose(self) -> None:
        """Forget everything, as a server that was restarted."""
        self._whole = False
        self._rebuilding = False
        self._predictions: dict[str, dict[int, Indexed]] = {}
        self._heard: dict[str, dict[tuple[int, int], Heard]] = {}
        self._of_event: dict[str, dict[str, int]] = {}
        self._known: dict[str, dict[str, KnownLabel]] = {}
        self._touched: dict[tuple[str, str], int] = {}

    def is_whole(self) -> bool:
        """Whether everything written since the last `finish_rebuild` is there."""
        self._expire()
        return self._whole

    def begin_rebuild(self) -> None:
        """Say that what is there may be incomplete."""
        self._expire()
        self._whole, self._rebuilding = False, True

    def finish_rebuild(self) -> None:
        """Say that it is complete."""
        self._check()
        self._whole, self._rebuilding = True, False

    def index(self, predictions: Sequence[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        found = []
        self._expire()
        for prediction in predictions:
            self._faults.at("index")
            self._touch("prediction", prediction.prediction_id)
            self._predictions.setdefault(prediction.prediction_id, {})[prediction.offset] = prediction
            known: dict[str, KnownLabel] = {}
            if prediction.event_id is not None:
                key = event_key(prediction.entity, prediction.event_id)
                self._touch("event", key)
                self._of_event.setdefault(key, {}).setdefault(prediction.prediction_id, prediction.partition)
                known = self._known.get(key, {})
            found.append(sorted(known.values(), key=lambda label: label.order))
        self._check()
        return found

    def know(self, labels: Sequence[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        self._expire()
        for event, label in labels:
            self._faults.at("know")
            self._touch("event", event)
            self._known.setdefault(event, {}).setdefault(label.label_id, label)
        self._check()
        return [list(self._of_event.get(event, {}).items()) for event, _ in labels]

    def hear(self, heard: Sequence[tuple[str, Heard]], judged: int) -> dict[str, Recalled]:
        """Keep resolved labels by prediction id; what is known then of those that may be judged."""
        self._expire()
        for prediction, label in heard:
            self._faults.at("hear")
            self._touch("prediction", prediction)
            self._heard.setdefault(prediction, {})[label.offset, label.place] = label
        ids = [prediction for prediction, _ in heard]
        known = dict(zip(ids, self.recall(ids), strict=True))
        return {of: recalled for of, recalled in known.items() if recalled[0] is None or recalled[0].offset < judged}

    def restore(self, predictions: Sequence[Indexed]) -> None:
        """Keep predictions that had left the index."""
        for prediction in predictions:
            self._faults.at("restore")
            self._touch("prediction", prediction.prediction_id)
            self._predictions.setdefault(prediction.prediction_id, {})[prediction.offset] = prediction

    def recall(self, predictions: Sequence[str]) -> list[Recalled]:
        """What is known of each prediction."""
        self._expire()
        self._check()
        return [
            (
                min(self._predictions.get(of, {}).values(), key=lambda found: found.offset, default=None),
                list(self._heard.get(of, {}).values()),
            )
            for of in predictions
        ]

    def _touch(self, kind: str, key: str) -> None:
        if self._hot is not None:
            self._touched.pop((kind, key), None)
            self._touched[kind, key] = self._now()  # the longest untouched stand first

    def _expire(self) -> None:
        if self._hot is None:
            return
        now, asked, self._asked = self._now(), self._asked, self._now()
        if now - asked >= self._hot.away / _MS:
            self._whole = self._rebuilding = False
        while self._touched and now - next(iter(self._touched.values())) >= self._hot.kept / _MS:
            kind, key = next(iter(self._touched))
            del self._touched[kind, key]
            for entries in (self._predictions, self._heard) if kind == "prediction" else (self._of_event, self._known):
                entries.pop(key, None)

    def _check(self) -> None:
        if not self._whole and not self._rebuilding:
            raise StateLost("the index in memory was lost")


class MemoryTable(LakeTable):
    """A lake table in memory with the same rule for appending; `kept` survives a worker.

    Make one class per test with `MemoryTable.shared(faults)`.
    """

    kept: dict[str, pl.DataFrame]
    upto: dict[tuple[str, str], int]
    faults: Faults

    @classmethod
    def shared(cls, faults: Faults) -> type["MemoryTable"]:
        """A kind of table with a store of its own."""
        return type("MemoryTable", (cls,), {"kept": {}, "upto": {}, "faults": faults})

    @property
    def exists(self) -> bool:
        """Whether anything was appended."""
        return self.uri in self.kept

    def version_of(self, source: Source | str) -> int | None:
        """The last offset that the table has of a source."""
        return self.upto.get((self.uri, str(source)))

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows."""
        return self.kept[self.uri].lazy()

    def append(
        self, rows: pl.DataFrame, upto: Mapping[Source, int], *, before_commit: Callable[[], None] | None = None
    ) -> dict[Source, Span]:
        """Append the rows that are new, and note how far each source was read."""
        self.faults.at("lake")
        known = {str(source): self.upto.get((self.uri, str(source)), -1) for source in upto}
        new = rows.filter(pl.col("offset") > pl.col("source").replace_strict(known, return_dtype=pl.Int64))
        self.kept[self.uri] = pl.concat([self.kept[self.uri], new]) if self.exists else new
        spans = {source: Span(known[str(source)], end) for source, end in upto.items() if end > known[str(source)]}
        self.upto |= {(self.uri, str(source)): span.upto for source, span in spans.items()}
        self.faults.at("lake")
        return spans


def _end(log: Sequence[Raw]) -> int:
    return log[-1].offset + 1 if log else 0


def _from(log: Sequence[Raw], offset: int, most: int) -> Sequence[Raw]:
    start = bisect_left(log, offset, key=lambda raw: raw.offset)
    return log[start : start + most]
