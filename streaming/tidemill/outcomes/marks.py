"""Marks in the log of resolved labels: how far they are resolved, said in the brokers' own time.

A worker's clock cannot say that every label of a moment was read: the brokers stamp arrivals with theirs. So
the time of one mark, as the brokers acknowledged it, is where the next one may reach: whatever arrived before
that stands below the ends of predictions and labels that were asked for after it. Once the worker has taken in
everything up to these ends, the next mark says so.
"""

from tidemill.core.clock import Clock
from tidemill.outcomes.log import Channel, OutcomeLog

__all__ = ["EVERY_S", "Marks"]

EVERY_S = 0.1
"""Least time between marks: an outcome waits for about one and a half of them."""

_INPUTS = (Channel.PREDICTIONS, Channel.LABELS)


class Marks:
    """Writes the marks of one worker that reads all partitions."""

    def __init__(self, log: OutcomeLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._marked_at: int | None = None
        self._ends: dict[tuple[Channel, int], int] = {}
        self._last = 0.0

    def advance(self, every_s: float = EVERY_S) -> None:
        """Mark, if that says anything new; all that was polled must have been taken in.

        Args:
            every_s: least time between marks.
        """
        if self._marked_at is None:
            self._mark(-1)
        elif self._clock.monotonic() - self._last >= every_s and self._reached():
            self._mark(self._marked_at - 1)  # arrivals of that very millisecond may have come after it

    def _reached(self) -> bool:
        at = {(channel, part): offset for channel in _INPUTS for part, offset in self._log.positions(channel).items()}
        return all(at[place] >= end for place, end in self._ends.items())

    def _mark(self, through: int) -> None:
        self._marked_at = self._log.mark(through)
        self._ends = self._log.ends(*_INPUTS)
        self._last = self._clock.monotonic()
