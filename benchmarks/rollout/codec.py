"""The code of the versions that roll out: a good one, and such as fail at load or at work."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import benchmarks.serving.codec

__all__ = ["Crash", "Good", "Hang", "HangAtLoad", "NoNumber", "Raise", "Slow", "Steady"]

STEADY_S = 0.01


class Good(benchmarks.serving.codec.Codec):
    """Answers at once."""


class Raise(Good):
    """Raises at load."""

    def __init__(self) -> None:
        raise RuntimeError("no weights")


class Crash(Good):
    """Takes its process with it at load."""

    def __init__(self) -> None:
        os.abort()


class HangAtLoad(Good):
    """Is never loaded."""

    def __init__(self) -> None:
        threading.Event().wait()


class Hang(Good):
    """Answers the request that warms it up, and no other."""

    def __init__(self) -> None:
        self._answered = 0

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Wait without end."""
        if self._answered:
            threading.Event().wait()
        self._answered += 1
        return super().encode(rows)


class NoNumber(Good):
    """Is sure of nothing."""

    def decode(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Confidences that are no numbers."""
        return [answer | {"confidence": float("nan")} for answer in super().decode(outputs)]


class Steady(Good):
    """Takes 10 ms for each request."""

    pause_s = STEADY_S

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Wait first."""
        threading.Event().wait(self.pause_s)
        return super().encode(rows)


class Slow(Steady):
    """Takes ten times as long."""

    pause_s = 10 * STEADY_S
