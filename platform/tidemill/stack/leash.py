"""A program that dies with the process that started it, even when that is killed outright.

Run as a script, this file binds itself to its parent (Linux: PR_SET_PDEATHSIG) and becomes the program. It is
a program of its own, and not code run between fork and exec, because that is unsafe beside threads. It
imports the standard library alone: it runs without site-packages, so that it costs a few milliseconds.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["leashed"]

_PR_SET_PDEATHSIG = 1


def leashed(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` on a leash held by this process (by the thread that starts it)."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _main(parent: str, *argv: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the line above
            sys.exit(1)
    # Python ignores these, and a program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a fixed argument list, no shell
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
