"""Files that others may read while they are written, and locks that end with their holder."""

import fcntl
import os
import secrets
from pathlib import Path

__all__ = ["is_locked", "try_lock", "write_atomically"]


def write_atomically(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Replace `path` by rename, so that a reader sees the old content or the new, never a part.

    With `durable` the content is on disk before the call returns. The folder must exist.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, at once or not at all. The system lets go of it when the descriptor or the process ends."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether some process holds an exclusive lock on a file. Looking takes a shared one for a moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
