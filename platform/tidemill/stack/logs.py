"""Log files of child processes, bounded, and their last lines."""

import os
import shutil
from pathlib import Path

__all__ = ["LIMIT_BYTES", "bound", "last_lines"]

LIMIT_BYTES = 16 * 2**20
"""A log is cut at this size; what was in it is kept once, as `<name>.log.1`."""


def bound(log: Path, limit_bytes: int = LIMIT_BYTES) -> bool:
    """Cut a log that has grown past the limit; True if it was.

    The process goes on writing to the same file, which it opened for appending; what it writes in the moment
    between the copy and the cut is lost.
    """
    try:
        if log.stat().st_size <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def last_lines(log: Path, count: int = 15) -> str:
    """The last lines of a log, at most 8 KiB of them; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-count:])
