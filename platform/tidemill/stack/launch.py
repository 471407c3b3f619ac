"""Starting and ending one child process and everything it starts itself."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidemill.core.errors import Unavailable
from tidemill.stack.leash import leashed

__all__ = ["Process", "signal_group", "spawn"]

Process = subprocess.Popen[bytes]
"""A child process as the standard library sees it."""


def spawn(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> Process:
    """Start `argv` as the leader of its own process group, output appended to `log`.

    It dies with the thread that called this (on Linux, even on SIGKILL). `env` is the whole environment
    (None: this process's). A program that does not exist ends with status 1 and a line in its log. Raises
    `Unavailable` where the machine cannot start a process at all.
    """
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                leashed(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=folder,
                start_new_session=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{argv[0]} could not be started: {error}") from error


def signal_group(pid: int, number: signal.Signals) -> bool:
    """Send a signal to the whole process group that `pid` leads; False if none of it is left."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True
