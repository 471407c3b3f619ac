"""One stack per state folder: a lock that the system lets go of, however its holder ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from tidemill.core.clock import Clock
from tidemill.core.errors import Conflict

__all__ = ["StackLock", "holder"]

_FILE = "up.lock"
_PATIENCE_S = 0.3
"""A look at the lock (`holder`) takes it for a moment; whoever wants it waits that out."""


class StackLock:
    """The lock of a state folder, held from creation until `release` or the end of this process.

    Raises `Conflict` where another process holds it.
    """

    def __init__(self, state: Path, clock: Clock) -> None:
        self._file: IO[str] = (state / _FILE).open("a+")
        end = clock.monotonic() + _PATIENCE_S
        while not _try(self._file, fcntl.LOCK_EX):
            if clock.monotonic() > end:
                self._file.close()
                raise Conflict(f"another `tidemill up` holds {state / _FILE}")
            clock.sleep(0.02)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let go of it."""
        self._file.close()


def holder(state: Path) -> int | None:
    """The pid of the process that holds the lock; 0 if it has not told yet; None if nobody does."""
    try:
        with (state / _FILE).open() as file:
            if _try(file, fcntl.LOCK_SH):
                return None
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        return None


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
