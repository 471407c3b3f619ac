"""How far a training is, for people: each epoch when it is over; between them, pace and time that is left."""

from collections.abc import Callable
from dataclasses import dataclass

from tidemill.core.clock import Clock

__all__ = ["CHECKPOINT_S", "Epoch", "Pace", "Progress", "Telling"]

CHECKPOINT_S = 30.0
"""Seconds between two checkpoints of a training: what a kill costs at most."""
_PRINT_S = 30.0
"""Seconds between two lines of the log within an epoch."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one epoch went."""

    number: int
    """From 1."""
    of: int
    loss: float
    """Mean over the epoch's batches."""
    rows: int

    def __str__(self) -> str:
        return f"epoch {self.number}/{self.of}: loss {self.loss:.4f} over {self.rows} rows"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, and how fast."""

    epoch: int
    """From 1."""
    of: int
    rows: int
    """Seen so far, each epoch's counted, those before a kill, too."""
    of_rows: int
    per_s: float
    """Rows a second, since this process began to train."""

    @property
    def left_s(self) -> float:
        """Seconds to the end at this pace."""
        return max(0, self.of_rows - self.rows) / self.per_s if self.per_s > 0 else 0.0

    def __str__(self) -> str:
        return f"epoch {self.epoch}/{self.of}, {self.per_s:,.0f} rows/s, {_duration(self.left_s)} left"


class Pace:
    """Counts rows, and tells of it at most every `every_s` seconds.

    Args:
        tell: whom.
        of: epochs of the training.
        rows: of one epoch.
        seen: rows that an earlier try of this training saw.
        clock: the time.
        every_s: seconds between two words.
    """

    def __init__(
        self, tell: Callable[[Progress], None], *, of: int, rows: int, seen: int, clock: Clock, every_s: float = 1.0
    ) -> None:
        self._tell, self._of, self._rows, self._seen, self._every_s = tell, of, rows, seen, every_s
        self._clock, self._begun, self._count = clock, clock.monotonic(), 0
        self._told = self._begun

    def count(self, rows: int, epoch: int) -> None:
        """Rows that were seen just now, in this epoch."""
        self._count += rows
        now = self._clock.monotonic()
        if now - self._told >= self._every_s:
            self._told = now
            per_s = self._count / (now - self._begun) if now > self._begun else 0.0
            self._tell(Progress(epoch, self._of, self._seen + self._count, self._of * self._rows, per_s))


class Telling:
    """Tells a run's news: each epoch to the log, the pace to `tell`, and now and then to the log, too.

    Args:
        tell: takes the words, at each pace and each epoch.
        clock: the time.
    """

    def __init__(self, tell: Callable[[str], None], clock: Clock) -> None:
        self._tell, self._clock, self._printed = tell, clock, clock.monotonic()

    def __call__(self, news: Epoch | Progress) -> None:
        """Tell it."""
        self._tell(str(news))
        if isinstance(news, Epoch) or self._clock.monotonic() - self._printed >= _PRINT_S:
            self._printed = self._clock.monotonic()
            print(news, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
