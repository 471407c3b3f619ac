"""Quality as a mergeable accumulator: error and accuracy per version and window, with the share labelled.

An accumulator is three sums, so that parts of a stream may be added in any order, and a correction takes the
old outcome out and puts the new one in. What it says is the quality of the *labelled* outcomes; whether that
is the model's depends on how labels were chosen (STATISTICS.md 3), so the share labelled is always beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Quality", "QualityTable"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Sums over outcomes: how many, how many labelled, and the loss of those."""

    outcomes: int = 0
    labelled: int = 0
    loss: float = 0.0

    @classmethod
    def of(cls, loss: float | None) -> "Quality":
        """One outcome; its bounded loss, or None while it has no label."""
        return cls(1, 0, 0.0) if loss is None else cls(1, 1, loss)

    def __add__(self, other: "Quality") -> "Quality":
        """Both together."""
        return Quality(self.outcomes + other.outcomes, self.labelled + other.labelled, self.loss + other.loss)

    def __sub__(self, other: "Quality") -> "Quality":
        """This without `other`, which must have been added before."""
        return Quality(self.outcomes - other.outcomes, self.labelled - other.labelled, self.loss - other.loss)

    @property
    def error(self) -> float | None:
        """Mean loss of the labelled outcomes; None where there is none."""
        return self.loss / self.labelled if self.labelled else None

    @property
    def accuracy(self) -> float | None:
        """1 - error."""
        error = self.error
        return None if error is None else 1.0 - error

    @property
    def share_labelled(self) -> float | None:
        """Labelled share of all outcomes; None where there is none."""
        return self.labelled / self.outcomes if self.outcomes else None


@dataclass(slots=True)
class QualityTable:
    """Quality by (version, window); a window is `at_ms // window_ms`.

    Args:
        window_ms: length of a window in milliseconds.
    """

    window_ms: int
    cells: dict[tuple[str, int], Quality] = field(default_factory=dict)

    def add(self, version: str, at_ms: int, loss: float | None) -> None:
        """Take in one outcome of `version` whose prediction was made at `at_ms`."""
        self._move(version, at_ms, Quality.of(loss))

    def correct(self, version: str, at_ms: int, before: float | None, after: float | None) -> None:
        """Replace the loss of an outcome taken in earlier: a correction counts once, with its newest label."""
        self._move(version, at_ms, Quality.of(after) - Quality.of(before))

    def merge(self, other: "QualityTable") -> None:
        """Take in another table of the same window; raises ValueError for a different one."""
        if other.window_ms != self.window_ms:
            raise ValueError(f"windows of {other.window_ms} ms do not merge into windows of {self.window_ms} ms")
        for key, quality in other.cells.items():
            self.cells[key] = self.cells.get(key, Quality()) + quality

    def total(self, version: str | None = None, since_ms: int | None = None, until_ms: int | None = None) -> Quality:
        """All windows that begin in [since, until) together, of one version or of all."""
        return sum(
            (
                quality
                for (of, window), quality in self.cells.items()
                if (version is None or of == version)
                and (since_ms is None or window * self.window_ms >= since_ms)
                and (until_ms is None or window * self.window_ms < until_ms)
            ),
            Quality(),
        )

    def series(self, version: str) -> Iterator[tuple[int, Quality]]:
        """(begin of window in ms, quality) of one version, oldest first."""
        for (of, window), quality in sorted(self.cells.items()):
            if of == version:
                yield window * self.window_ms, quality

    def _move(self, version: str, at_ms: int, change: Quality) -> None:
        key = (version, at_ms // self.window_ms)
        self.cells[key] = self.cells.get(key, Quality()) + change
