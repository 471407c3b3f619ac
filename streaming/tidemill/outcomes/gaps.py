"""What is missing from the prediction log: each serving process counts its rows, and gaps in the count are loss."""

from bisect import bisect_right
from dataclasses import dataclass, field

__all__ = ["Gaps"]


@dataclass(slots=True)
class _Boot:
    """One serving process: the next number expected, and the ranges (first, last) that were passed over."""

    next: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)


class Gaps:
    """Numbers (boot, seq) seen so far, kept as what is missing below the largest; a repeated number counts once.

    What a killed process had not sent yet has no number above it and does not show here; the predictor's own
    bound covers it (DATAPLANE.md).
    """

    def __init__(self) -> None:
        self._boots: dict[str, _Boot] = {}
        self.lost = 0
        """Predictions known to be missing."""

    def see(self, boot: str, first: int, last: int | None = None) -> None:
        """Take note of `first`, or of all numbers from `first` to `last`."""
        last = first if last is None else last
        known = self._boots.setdefault(boot, _Boot())
        if first > known.next:
            known.holes.append((known.next, first - 1))
            self.lost += first - known.next
        elif first < known.next:
            self._fill(known, first, last)
        known.next = max(known.next, last + 1)

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
