"""One value for all who look: read at most once in a while, in a thread, however many pages show it."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tidemill.core.clock import Clock
from tidemill.core.errors import TidemillError
from tidemill.core.telemetry import get_logger

__all__ = ["Seen", "Shared", "SharedByKey"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_MOST_KEYS = 200
_OLD = 10
"""Times as old as it may be: nobody has looked for long, and what was read then would mislead who comes now."""
_log = get_logger(__name__)


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What was read last, and what went wrong since: a page goes on showing the one beside the other."""

    value: T | None
    error: TidemillError | None = None

    @property
    def loaded(self) -> T:
        """The value; raises the error where there is none."""
        if self.value is None:
            raise self.error or ValueError("there is neither a value nor an error")
        return self.value


class Shared(Generic[T]):
    """A value that is read again once it is `keep_s` old and somebody asks. One event loop.

    Args:
        read: reads it, on a thread; a `TidemillError` becomes part of what is seen.
        clock: the time.
        keep_s: how old it may be.
    """

    def __init__(self, read: Callable[[], T], clock: Clock, keep_s: float) -> None:
        self._read, self._clock, self._keep_s = read, clock, keep_s
        self._seen: Seen[T] | None = None
        self._read_at = 0.0
        self._reading: asyncio.Task[Seen[T]] | None = None

    async def get(self, *, patient: bool = False) -> Seen[T]:
        """What is known now. Who comes first, or after long, waits for a reading; others see the last one meanwhile.

        Who is patient waits for any reading.
        """
        age_s = self._clock.monotonic() - self._read_at
        if self._seen is not None and age_s < self._keep_s:
            return self._seen
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh())
        if self._seen is None or patient or _OLD * self._keep_s < age_s < float("inf"):
            return await asyncio.shield(self._reading)
        return self._seen

    def forget(self) -> None:
        """What was read is out of date: the next who asks starts a reading."""
        self._read_at = float("-inf")

    async def _refresh(self) -> Seen[T]:
        before = self._seen
        try:
            now = Seen(await asyncio.to_thread(self._read))
        except TidemillError as error:
            now = Seen(None, error) if before is None else replace(before, error=error)
        except Exception as error:  # a page that ends for good helps nobody; the log has the traceback
            _log.exception("a page's figures cannot be read")
            now = Seen(before.value if before else None, TidemillError(f"{type(error).__name__}: {error}"))
        self._seen, self._read_at = now, self._clock.monotonic()
        return now


class SharedByKey(Generic[K, T]):
    """Shared values by what they are of; of very many the ones asked for first are forgotten."""

    def __init__(self, read: Callable[[K], T], clock: Clock, keep_s: float) -> None:
        self._read, self._clock, self._keep_s = read, clock, keep_s
        self._values: dict[K, Shared[T]] = {}

    def of(self, key: K) -> Shared[T]:
        """The value of a key."""
        if key not in self._values:
            while len(self._values) >= _MOST_KEYS:
                del self._values[next(iter(self._values))]
            self._values[key] = Shared(lambda: self._read(key), self._clock, self._keep_s)
        return self._values[key]
