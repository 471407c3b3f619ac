"""Which predictions are to be looked at at their horizon, in the order of the log: read from the lake.

The topic need not hold them any more, and no third reader of it is needed.
"""

from collections import deque
from collections.abc import Iterable

from tidemill.outcomes.archive import Archive, Waiting
from tidemill.outcomes.log import Position

__all__ = ["Horizon"]

_MOST = 20_000
"""Predictions of one partition that are held: some megabytes, and one query of the lake for each."""


class Horizon:
    """What waits for its horizon, by partition.

    Args:
        archive: the lake.
        partitions: of the predictions.
    """

    def __init__(self, archive: Archive, partitions: Iterable[int]) -> None:
        self._archive = archive
        self._waiting: dict[int, deque[Waiting]] = {partition: deque() for partition in partitions}
        self._upto: dict[int, int] = {}

    def due(self, partition: int, at: Position) -> list[Waiting]:
        """Those judged already whose horizon the marks have reached, from the position on."""
        waiting = self._waiting[partition]
        if not waiting:
            begin = max(at.final, self._upto.get(partition, 0))
            found, self._upto[partition] = self._archive.waiting(partition, begin, _MOST)
            waiting.extend(found)
        due = []
        for prediction in waiting:
            if prediction.due_at > at.through or prediction.offset >= at.written:
                break
            due.append(prediction)
        return due

    def drop(self, partition: int, count: int) -> None:
        """The first so many are done."""
        for _ in range(count):
            self._waiting[partition].popleft()

    def before(self, partition: int) -> int:
        """The offset before which nothing waits."""
        waiting = self._waiting[partition]
        return waiting[0].offset if waiting else self._upto.get(partition, 0)
