"""One stack per state folder: a lock that the system lets go of, however its holder ends."""

import os
from pathlib import Path

from tidemill.core.clock import Clock
from tidemill.core.errors import Conflict
from tidemill.core.files import is_locked, try_lock

__all__ = ["hold", "holder"]

_FILE = "up.lock"  # `tidemill.core.settings` looks at it too
_PATIENCE_S = 0.3
"""A look at the lock (`holder`) takes it for a moment; whoever wants it waits that out."""


def hold(state: Path, clock: Clock) -> None:
    """Take the lock of a state folder until the end of this process. Raises `Conflict` where another holds it.

    It is never given back before, so that whoever sees it free knows that the process is gone too.
    """
    descriptor = os.open(state / _FILE, os.O_RDWR | os.O_CREAT, 0o644)
    end = clock.monotonic() + _PATIENCE_S
    while not try_lock(descriptor):
        if clock.monotonic() > end:
            os.close(descriptor)
            raise Conflict(f"another `tidemill up` holds {state / _FILE}")
        clock.sleep(0.02)
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())


def holder(state: Path) -> int | None:
    """The pid of the process that holds the lock; 0 if it has not told yet; None if nobody does."""
    if not is_locked(state / _FILE):
        return None
    text = (state / _FILE).read_text().strip()
    return int(text) if text.isdigit() else 0
