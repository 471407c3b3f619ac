"""What the worker needs of the log: four topics read in one place, predictions read again when they are due.

`kafka.py` implements it on Kafka. The tests run the same worker on a log in memory that crashes at any line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec

from tidemill.events.records import Outcome, ResolvedLabel
from tidemill.events.sources import Source

__all__ = ["Addressed", "Channel", "Offsets", "OutcomeLog", "Position", "Raw"]

Offsets = dict[int, int]
"""Next offset to read, by partition."""


class Channel(Enum):
    """The topics by what is on them."""

    PREDICTIONS = "predictions"
    LABELS = "labels"
    RESOLVED = "resolved"
    OUTCOMES = "outcomes"


class Raw(msgspec.Struct, frozen=True, gc=False):
    """A record as it stands in the log; `arrived_at` in milliseconds since the epoch."""

    partition: int
    offset: int
    arrived_at: int
    key: bytes | None
    value: bytes | None


class Addressed(msgspec.Struct, frozen=True, gc=False):
    """A resolved label on its way; `partition` is where its prediction stands, None where that is the key's to say."""

    label: ResolvedLabel
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """How far one partition is judged.

    All outcomes are written that follow from its predictions before `written` and from its resolved labels before
    `read`; `through` is the newest mark among those. What a missing label means at the horizon was decided for the
    predictions before `final`.
    """

    written: int
    read: int
    through: int = -1
    final: int = 0


class OutcomeLog(Protocol):
    """The log of one model. One thread. Every method raises `Unavailable` where the brokers do not answer."""

    @property
    def sources(self) -> Mapping[Channel, Mapping[int, Source]]:
        """Which incarnation of each topic this is, by partition."""
        ...

    def starts(self, channel: Channel) -> Offsets:
        """The lowest offset that each partition holds."""
        ...

    def ends(self, *channels: Channel) -> dict[tuple[Channel, int], int]:
        """The offset after the last record of each partition, those of open transactions included."""
        ...

    def committed(self, channel: Channel) -> Offsets:
        """Up to where predictions or labels were taken in, for partitions that have a commit."""
        ...

    def judged(self) -> dict[int, Position]:
        """What the last `emit` that succeeded said; a partition without one is missing."""
        ...

    def seek(self, channel: Channel, offsets: Offsets) -> None:
        """Read on from here."""
        ...

    def seek_due(self, offsets: Offsets) -> None:
        """Read predictions for the second time from here."""
        ...

    def poll(self, timeout_s: float) -> Sequence[tuple[Channel, Sequence[Raw]]]:
        """The next records: each entry is of one partition, in offset order. Empty after `timeout_s`."""
        ...

    def poll_due(self, partitions: Sequence[int]) -> Sequence[Sequence[Raw]]:
        """The next predictions for the second time, of these partitions; does not wait."""
        ...

    def positions(self, channel: Channel) -> Offsets:
        """The next offset to read, past whatever is no record."""
        ...

    def send(self, labels: Sequence[Addressed]) -> None:
        """Append to the resolved labels; they are written by the time `flush` or `mark` returns."""
        ...

    def flush(self) -> None:
        """Return when all that was sent is written."""
        ...

    def mark(self, through: int) -> int:
        """After all that was sent, append a mark to each partition; when, in the brokers' time."""
        ...

    def check(self) -> None:
        """Raise `Unavailable` where a topic was made anew: its offsets mean something else now."""
        ...

    def commit(self, channel: Channel, offsets: Offsets) -> None:
        """Note up to where predictions or labels were taken in."""
        ...

    def emit(self, outcomes: Sequence[Outcome], judged: Mapping[int, Position]) -> None:
        """Append outcomes and note how far was judged: both or neither.

        Raises `Conflict` where another worker took over.
        """
        ...

    def replay(self, channel: Channel, until: Offsets) -> Iterator[Sequence[Raw]]:
        """All records before `until`, from the log's start."""
        ...

    def close(self) -> None:
        """Drop the connections; what was sent and not flushed may or may not be written."""
        ...
