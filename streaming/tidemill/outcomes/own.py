"""Outcomes that the worker wrote, as they stand in the log: their rows for the lake come from memory.

Reading them back took a seventh of a label's processor time. What stands on `.outcomes` before the first ones of this
life is read (an earlier life wrote it, and the lake may lack it). From then on nobody else writes outcomes, because
Kafka refuses any other worker; where each stands is in the brokers' acknowledgement of its batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tidemill.outcomes.log import Offsets, Raw

__all__ = ["OwnOutcomes", "Written"]


class Written(Protocol):
    """Records of one batch (`tidemill.events.pack.Sent`)."""

    @property
    def records(self) -> Sequence[tuple[bytes, bytes]]:
        """(key, value) of each."""
        ...

    def placed(self) -> tuple[int, int] | None:
        """The first record's offset, which the others follow, and when all arrived; None where nobody said."""
        ...


class OwnOutcomes:
    """Decides of each partition of `.outcomes` whether it is read or known from memory.

    Args:
        reader: the consumer that reads it.
        places: the consumer's name of each partition.
    """

    def __init__(self, reader: Any, places: Mapping[int, Any]) -> None:
        self._reader, self._places = reader, places
        self._ends: Offsets = {}
        """The offset after the last outcome that is known to be there."""
        self._from_memory: set[int] = set()
        self._always_read: set[int] = set()
        self._kept: list[Sequence[Raw]] = []

    def begin(self, ends: Offsets) -> None:
        """Reading begins; the log ends here now."""
        self._ends = dict(ends)

    def wrote(self, sent: Mapping[int, Sequence[Written] | None]) -> None:
        """A transaction is committed, with these records by partition."""
        for part, batches in sent.items():
            placed = [None] if batches is None else [batch.placed() for batch in batches]
            if batches is None or None in placed:
                self._read_from_here(part)
            elif part not in self._always_read:
                self._keep(part, batches, [place for place in placed if place is not None])

    def take(self) -> list[Sequence[Raw]]:
        """What was written since: each entry is of one partition, in offset order."""
        for part, place in self._places.items():
            if part not in self._from_memory | self._always_read and self._reader.position(place) >= self._ends[part]:
                self._reader.pause(place)
                self._from_memory.add(part)
        kept, self._kept = self._kept, []
        return kept

    def _keep(self, part: int, batches: Sequence[Written], placed: Sequence[tuple[int, int]]) -> None:
        # Those of a transaction that was under way when reading ended may have been read already.
        unread = int(self._reader.position(self._places[part]))
        for batch, (first, arrived_at) in zip(batches, placed, strict=True):
            self._ends[part] = first + len(batch.records)
            if part in self._from_memory:
                numbered = enumerate(batch.records, first)
                self._kept.append([Raw(part, at, arrived_at, *record) for at, record in numbered if at >= unread])

    def _read_from_here(self, part: int) -> None:
        """Where the brokers did not say where records stand."""
        self._always_read.add(part)
        if part in self._from_memory:
            self._from_memory.remove(part)
            place = self._places[part]
            self._reader.seek(place, max(self._ends[part], self._reader.position(place)))
            self._reader.resume(place)
