"""What is left of a supervisor that was killed outright: a small process that then ends all it had started.

A leash (`tidemill.stack.leash`) ends a child, not what the child started itself. The guard is told of each
process group through a pipe; when the pipe closes, its owner is gone, however that came about, and the groups
that are left are killed. Like the leash it runs without site-packages.
"""

import os
import signal
import subprocess
import sys
from typing import IO

__all__ = ["Guard"]


class Guard:
    """The guard of this process. Call `close` after all groups have ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def watch(self, group: int) -> None:
        """Kill this process group should the owner die."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group is gone."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, and with it whatever it still watches."""
        pipe = self._process.stdin
        if pipe is not None:
            pipe.close()
        self._process.wait(10)

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        if pipe is not None and self._process.poll() is None:
            pipe.write(line.encode())


def _main(pipe: IO[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in pipe:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            continue


if __name__ == "__main__":
    _main(sys.stdin)
