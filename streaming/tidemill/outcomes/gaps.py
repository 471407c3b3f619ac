"""What is missing from the prediction log: each serving process counts its rows, and gaps in the count are loss.

Two figures. `lost` is known: numbers below the largest that were never seen, and those that a process itself says
are settled. `maybe_lost` is a bound on the rest: a process that went silent without a word of its end may have had
that many rows under way. It says every few seconds how far it is (`ServingCount`), so its silence tells.

Silence is measured in the brokers' time alone, from when its last record arrived to a moment up to which everything
was read (a mark): a worker that lags behind, or reads the log again, finds the same processes silent at that moment.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import msgspec

from tidemill.events.records import ServingCount, decode

__all__ = ["Gaps", "read_count"]

PATIENCE = 3
"""Intervals without a word after which a process counts as silent: two words may be late."""


@dataclass(slots=True)
class _Boot:
    """One serving process: the next number expected, and the ranges (first, last) that were passed over."""

    next: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)
    answered: int = 0
    heard_at: int = 0
    """When its last record arrived, in milliseconds of the brokers' time."""
    may_lose: int = 0
    """How many rows may be missing once it is silent; 0 for one that has ended, or never said a word."""
    patience_ms: int = 0
    ended: bool = False


class Gaps:
    """Numbers (boot, seq) seen so far, kept as what is missing below the largest; a repeated number counts once.

    All of it grows by maxima and sets: what is seen or heard twice, or in another order, changes nothing.
    """

    def __init__(self) -> None:
        self._boots: dict[str, _Boot] = {}
        self.lost = 0
        """Predictions known to be missing."""

    @property
    def answered(self) -> int:
        """Rows that all processes have answered, logged or not, as far as they have said."""
        return sum(known.answered for known in self._boots.values())

    def see(self, boot: str, first: int, last: int | None = None, *, at_ms: int = 0, answered: int = 0) -> None:
        """Take note of `first`, or of all numbers from `first` to `last`, of which the last arrived at `at_ms`."""
        last = first if last is None else last
        known = self._known(boot, at_ms, answered)
        if first > known.next:
            self._pass_over(known, first)
        elif first < known.next:
            self._fill(known, first, last)
        known.next = max(known.next, last + 1)

    def hear(self, word: ServingCount, at_ms: int) -> None:
        """Take note of what a process says of itself, which arrived at `at_ms`."""
        known = self._known(word.boot, at_ms, word.answered)
        self._pass_over(known, word.settled)
        known.ended = known.ended or word.ended
        known.may_lose = 0 if known.ended else word.capacity
        known.patience_ms = PATIENCE * word.every_ms

    def maybe_lost(self, at_ms: int) -> int:
        """How many predictions may be missing besides `lost`, at most, by the processes that are silent at `at_ms`.

        All that arrived by `at_ms` must have been taken in. The bound is on rows that waited: what a process had no
        room for since it was last heard is not in it, and shows once its own count is told.
        """
        return sum(known.may_lose for known in self._boots.values() if known.heard_at + known.patience_ms < at_ms)

    def _known(self, boot: str, at_ms: int, answered: int) -> _Boot:
        known = self._boots.setdefault(boot, _Boot())
        known.heard_at = max(known.heard_at, at_ms)
        known.answered = max(known.answered, answered)
        return known

    def _pass_over(self, known: _Boot, upto: int) -> None:
        """All numbers below `upto` that were not seen are missing."""
        if upto > known.next:
            known.holes.append((known.next, upto - 1))
            self.lost += upto - known.next
            known.next = upto

    def _fill(self, known: _Boot, first: int, last: int) -> None:
        """Numbers that come after larger ones: log partitions are read in no common order."""
        start = max(0, bisect_right(known.holes, (first, first)) - 1)
        left: list[tuple[int, int]] = []
        end = start
        for low, high in known.holes[start:]:
            if low > last:
                break
            end += 1
            if high < first:
                left.append((low, high))
                continue
            self.lost -= min(high, last) - max(low, first) + 1
            left += [part for part in ((low, first - 1), (last + 1, high)) if part[0] <= part[1]]
        known.holes[start:end] = left


def read_count(value: bytes | None) -> ServingCount | None:
    """The `ServingCount` in a record of the predictions topic; None for anything else."""
    try:
        return decode(ServingCount, value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
