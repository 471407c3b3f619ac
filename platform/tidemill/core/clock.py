"""Time as an argument. This is the only module that reads the machine's clock.

Everything that needs the time takes a `Clock`, or a `datetime` that its caller took from one, so that a
test, a replay or a backtest decides what time it is.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock", "from_ms", "to_ms"]


class Clock(Protocol):
    """Tells the time, and waits."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; for durations and deadlines."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        time.sleep(seconds)


def to_ms(of: datetime | timedelta) -> int:
    """Whole milliseconds, as Kafka and our records write time: of a moment, since the epoch; of a duration, its length.

    Refuses a naive `datetime`.
    """
    if isinstance(of, timedelta):
        return round(of.total_seconds() * 1000)
    if of.tzinfo is None:
        raise ValueError(f"{of.isoformat()} has no time zone")
    return round(of.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """The aware UTC `datetime` of milliseconds since the epoch."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
