"""Waiting for a condition with a deadline, in place of sleeping."""

from collections.abc import Callable
from typing import TypeVar

from tidemill.core.clock import SystemClock

__all__ = ["eventually"]


T = TypeVar("T")


def eventually(condition: Callable[[], T], deadline_s: float = 10.0, *, every_s: float = 0.02) -> T:
    """The first true value of `condition()`. Raises `AssertionError` with the last value after `deadline_s`."""
    clock = SystemClock()
    end = clock.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if clock.monotonic() > end:
            name = getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{name} did not hold within {deadline_s:g} s; its last value was {value!r}")
        clock.sleep(every_s)
