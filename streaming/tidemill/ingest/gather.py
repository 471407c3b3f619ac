"""Gathering: what a short while of polling brings becomes one batch, and how large that may get."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tidemill.core.clock import Clock
from tidemill.events.waiting import Waiting
from tidemill.ingest.batch import Raw, size_of
from tidemill.spec.model import ContinualModel

__all__ = ["PAUSE_S", "Gatherer", "most_records"]

PAUSE_S = 0.05
"""A pause that costs nobody anything."""
_BUSY, _LONGEST_S = 1000, 1.0
"""While polls bring so many records there is a backlog: a batch may gather for longer, until it is full."""
_TRICKLE = 20
"""While so few records come, they are left to gather: each poll costs a millisecond whatever it brings."""
_MAX_VOTES = 80_000
"""Records times watched features of a batch: each may be a cell of its sketch."""
_MAX_FETCHED = 500
"""Records of a batch where pictures may have to be fetched, each in 10 to 50 ms: it is to be there in a few seconds."""
_MAX_BYTES = 32 << 20
"""Keys, values and headers of a batch; with what the consumer holds ready this bounds the worker's memory."""

Poll = Callable[[float, int], Mapping[Any, list[Raw]] | None]
"""Seconds to wait and most records, to records by partition; None: partitions were taken or given meanwhile."""


def most_records(resource: ContinualModel, wanted: int) -> int:
    """How many records a batch may have, of those that are wanted at most."""
    features = (*resource.watched_features, *resource.watched_categories)
    watched = 0 if resource.spec.triggers.drift is None else len(features)
    image = resource.image_field
    fetched = _MAX_FETCHED if image is not None and image.uris else wanted
    return max(1, min(wanted, fetched, _MAX_VOTES // max(1, watched)))


class Gatherer:
    """Gathers records of some partitions.

    Args:
        poll: brings records; `Transient` errors are waited out.
        clock: measures how long it gathers.
        waiting: how it waits, and when it is to stop.
        linger_s: how long it gathers after the first record.
        max_records: most records at a time.
    """

    def __init__(self, poll: Poll, clock: Clock, waiting: Waiting, linger_s: float, max_records: int) -> None:
        self._poll = poll
        self._clock = clock
        self._waiting = waiting
        self._linger_s = linger_s
        self._max_records = max_records

    def gather(self, wait_s: float) -> dict[Any, list[Raw]]:
        """What comes, the first of it within `wait_s`; nothing if partitions were taken or given meanwhile."""
        gathered: dict[Any, list[Raw]] = defaultdict(list)
        count = size = 0
        deadline, latest = None, 0.0
        while wait_s > 0 and count < self._max_records and size < _MAX_BYTES and not self._waiting.stop.is_set():
            found = self._waiting.until_done(partial(self._poll, wait_s, self._max_records - count))
            if found is None:
                return {}
            for partition, records in found.items():
                gathered[partition] += records
                count += len(records)
                size += sum(map(size_of, records))
            now = self._clock.monotonic()
            if deadline is None:
                if not gathered:
                    break
                deadline, latest = now + self._linger_s, now + _LONGEST_S
            if sum(map(len, found.values())) >= _BUSY:
                deadline = min(now + self._linger_s, latest)
            if count < _TRICKLE:
                self._waiting.stop.wait(PAUSE_S)
            wait_s = deadline - self._clock.monotonic()
        return gathered
