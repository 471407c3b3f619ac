"""Starting and ending one child process and everything it starts itself."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tidemill.core.errors import NotFound, Unavailable

__all__ = ["signal_group", "spawn"]

_PR_SET_PDEATHSIG = 1


def spawn(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start `argv` as the leader of its own process group, output appended to `log`.

    It dies with the thread that called this (on Linux, even on SIGKILL). `env` is the whole environment.
    Raises `NotFound` where the program does not exist, `Unavailable` where it cannot be started.
    """
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
    except FileNotFoundError as error:
        raise NotFound(f"{argv[0]} does not exist", hint="run `tidemill doctor`") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{argv[0]} could not be started: {error}") from error


def signal_group(pid: int, number: signal.Signals) -> bool:
    """Send a signal to the whole process group that `pid` leads; False if none of it is left."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the line above
            os._exit(1)

    return bind
