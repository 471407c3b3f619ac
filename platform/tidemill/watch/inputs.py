"""Records of several topics in the order of their arrival, as far as that can be known.

While a source has not been read up to where its log ended when that was last asked, nothing that arrived later than its
next record is given. So a watch that catches up takes hours of sketches and outcomes in the order in which they came,
not one topic after the other. Once all is read, what comes next is taken as it comes.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidemill.events.kafka import RecordReader, Stamped

__all__ = ["Inputs"]

MOST = 500
"""Records of one poll, and of a source that may wait before no more of it are read: another one may be awaited."""


class Inputs:
    """Reads from all readers at once. One thread; raises as `RecordReader.poll`."""

    def __init__(self, readers: Sequence[RecordReader[Any]]) -> None:
        self._readers = readers
        self._waiting: dict[str, deque[Stamped[Any]]] = {
            str(source): deque() for reader in readers for source in reader.sources.values()
        }
        self._ends: dict[str, int] = {}
        self._ask_for_ends()

    def poll(self, timeout_s: float) -> list[Stamped[Any]]:
        """What can be given now; waits up to `timeout_s` for the last reader where there is nothing."""
        found = [self._fill(reader, 0.0) for reader in self._readers]
        if not any(found) and not any(self._waiting.values()):
            found = [self._fill(self._readers[-1], timeout_s)]
        if any(one >= MOST for one in found):  # there may be much more of it
            self._ask_for_ends()
        return list(self._ready())

    def positions(self) -> Mapping[str, int]:
        """The next offset to read by source: after what was given."""
        read = self._read()
        return {name: kept[0].offset if kept else read[name] for name, kept in self._waiting.items()}

    def _fill(self, reader: RecordReader[Any], timeout_s: float) -> int:
        full = [number for number, source in reader.sources.items() if len(self._waiting[str(source)]) >= MOST]
        if len(full) == len(reader.sources):
            return 0
        reader.pause(full)
        found = reader.poll(MOST, timeout_s)
        for stamped in found:
            self._waiting[str(stamped.source)].append(stamped)
        return len(found)

    def _ready(self) -> Iterator[Stamped[Any]]:
        read = self._read()
        behind = {name for name, end in self._ends.items() if read[name] < end}
        while not any(not self._waiting[name] for name in behind):
            heads = [(kept[0].timestamp_ms, name) for name, kept in self._waiting.items() if kept]
            if not heads:
                return
            yield self._waiting[min(heads)[1]].popleft()

    def _read(self) -> dict[str, int]:
        return {
            str(reader.sources[number]): offset
            for reader in self._readers
            for number, offset in reader.offsets().items()
        }

    def _ask_for_ends(self) -> None:
        self._ends = {
            str(reader.sources[number]): end for reader in self._readers for number, end in reader.ends().items()
        }
