"""How far a serving process is, in a file that outlives it: what kill -9 cannot take back.

The counts are stored in mapped memory, which costs an answer nothing: the pages are the system's, and stay when the
process is killed (not when the machine fails before they are written). The process holds a lock on its file, so that
another one can tell those of the dead, and say on the log what they can no longer say.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tidemill.core.errors import Unavailable
from tidemill.core.files import try_lock

__all__ = ["CountFile", "Counts", "left_behind"]

_SUFFIX = ".counts"
_WORDS = 3


class Counts(NamedTuple):
    """What a process had counted: rows answered, rows numbered for the log, and how many of these might wait."""

    answered: int
    logged: int
    capacity: int


class CountFile:
    """The counts of this process. Used by one thread at a time.

    Args:
        folder: where files of this model's servers are; made if it is missing.
        boot: the process's id.
        capacity: rows that may wait.

    Raises:
        Unavailable: the folder cannot be written.
    """

    def __init__(self, folder: Path, boot: str, capacity: int) -> None:
        self._path = folder / f"{boot}{_SUFFIX}"
        made = folder / f".{boot}.made"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Locked before it has its name: another process takes an unlocked file for one of the dead.
            self._file = os.open(made, os.O_RDWR | os.O_CREAT, 0o644)
            os.posix_fallocate(self._file, 0, 8 * _WORDS)  # a hole that a full disk cannot fill kills by a signal
            try_lock(self._file)
            self._map = mmap.mmap(self._file, 8 * _WORDS)
            made.rename(self._path)
        except OSError as error:
            raise Unavailable(f"{folder}: {error.strerror}") from error
        # Words of the machine, each written by one store: no kill leaves half of one.
        self._words = memoryview(self._map).cast("Q")
        self._words[2] = capacity

    def write(self, answered: int, logged: int) -> None:
        """Note both."""
        words = self._words
        words[0], words[1] = answered, logged

    def close(self, *, told: bool) -> None:
        """Let go of the file. Where its end was `told` on the log, it is removed."""
        if told:
            self._path.unlink(missing_ok=True)
        self._words.release()
        self._map.close()
        os.close(self._file)


@contextmanager
def left_behind(folder: Path) -> Iterator[dict[str, Counts]]:
    """The counts of dead processes by boot, held for the block, in which nobody else sees them.

    Those still in the dict at the block's end were told, and are removed; take out what was not.
    """
    held: dict[str, int] = {}
    found: dict[str, Counts] = {}
    try:
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            descriptor = _taken(path)
            if descriptor is not None:
                boot = path.name.removesuffix(_SUFFIX)
                held[boot] = descriptor
                words = memoryview(os.pread(descriptor, 8 * _WORDS, 0)).cast("Q")
                found[boot] = Counts(words[0], words[1], words[2])
        yield found
        for boot in found:
            (folder / f"{boot}{_SUFFIX}").unlink(missing_ok=True)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The open file of a dead process, locked; None where its process lives, or someone else has taken it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # it was just told by another, or is not ours to read
        return None
    if try_lock(descriptor) and os.fstat(descriptor).st_nlink and os.fstat(descriptor).st_size == 8 * _WORDS:
        return descriptor
    os.close(descriptor)
    return None
