"""Which answered rows are logged, under which numbers, and which of them are known to be missing.

A row that is numbered holds a slot until the brokers have acknowledged it, or it is given up. So there are never
more than `capacity` rows of which nobody can say whether they are on the log: that is what a hard kill can cost.
"""

import random
import threading
from collections.abc import Callable, Sequence

import msgspec

from tidemill.events.records import Prediction
from tidemill.serving.count_file import CountFile, Counts

__all__ = ["MAX_BYTES", "Tally"]

MAX_BYTES = 64 << 20
"""Most bytes of rows that wait."""

_ROW, _FEATURE = 600, 40
"""Bytes of a record without its texts, and of one of its features."""


class Tally:
    """Counts the rows of one process. Thread-safe; nothing in it waits for anything.

    Args:
        boot: the process's id.
        sample: probability with which a row is logged.
        capacity: most rows that hold a slot.
        max_bytes: most bytes that they have together, by estimate.
        file: where the counts outlive the process; None: nowhere.
        draw: a number in [0, 1) for each row.
    """

    def __init__(
        self,
        boot: str,
        *,
        sample: float = 1.0,
        capacity: int = 10_000,
        max_bytes: int = MAX_BYTES,
        file: CountFile | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.boot, self.capacity = boot, capacity
        self.dropped = 0
        """Rows that are known to be missing from the log."""
        self._sample, self._max_bytes, self._file, self._draw = sample, max_bytes, file, draw
        self._answered = self._logged = self._bytes = 0
        self._held: dict[int, int] = {}
        """Bytes of each row that holds a slot, by its number, in the order of numbers."""
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Rows that hold a slot."""
        return len(self._held)

    def admit(self, rows: Sequence[Prediction]) -> list[Prediction]:
        """Count answered rows; those of them to be logged that found a slot, numbered."""
        taken = []
        with self._lock:
            for row in rows:
                self._answered += 1
                if self._sample < 1.0 and self._draw() >= self._sample:
                    continue
                seq, size = self._logged, _size(row)
                self._logged += 1
                if len(self._held) >= self.capacity or self._bytes + size > self._max_bytes:
                    self.dropped += 1
                    continue
                self._held[seq] = size
                self._bytes += size
                taken.append(
                    msgspec.structs.replace(row, boot=self.boot, seq=seq, answered=self._answered, sample=self._sample)
                )
            if self._file is not None:
                self._file.write(self._answered, self._logged)
        return taken

    def settle(self, seq: int, *, is_written: bool) -> None:
        """Give a slot back: the row is on the log, or it is given up."""
        with self._lock:
            self._bytes -= self._held.pop(seq)
            self.dropped += not is_written

    def counts(self) -> tuple[Counts, int]:
        """The counts now, and the number below which every row is settled."""
        with self._lock:
            settled = next(iter(self._held), self._logged)
            return Counts(self._answered, self._logged, self.capacity), settled

    def close(self, *, told: bool) -> None:
        """Let go of the file; nothing may be admitted afterwards."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close(told=told)


def _size(row: Prediction) -> int:
    """About as many bytes as its record has: what makes one large is texts."""
    size = _ROW + len(row.entity) + len(row.request_id or "") + _FEATURE * (len(row.features) + len(row.output))
    for values in (row.features, row.output):
        for value in values.values():
            if type(value) is str:
                size += len(value)
    return size
