"""Apprise behind the seam: each attempt is a child process, which is ended when its time is up.

A service that accepts a connection and then trickles, or a plugin that loops, would hold a thread for ever, and a
thread cannot be ended. A process can, and what it logs goes nowhere.
"""

import subprocess
import sys
from contextlib import suppress

import msgspec

from tidemill.alerts.apprise_child import Errand
from tidemill.alerts.notifier import Answer, Failure
from tidemill.alerts.words import Message
from tidemill.core.clock import Clock

__all__ = ["DEADLINE_S", "AppriseNotifier"]

DEADLINE_S = 30.0
"""Longest that an attempt may take; some 0.3 s of it are the child's start."""
_CHILD = (sys.executable, "-m", "tidemill.alerts.apprise_child")


class AppriseNotifier:
    """Implements `Notifier`. Any number of attempts at a time; one thread."""

    def __init__(self, clock: Clock, *, deadline_s: float = DEADLINE_S) -> None:
        self._clock, self._deadline_s = clock, deadline_s

    def send(self, url: str, message: Message) -> "_Child":
        """Begin to send a message; returns at once."""
        errand = Errand(
            url=url, title=message.title, body=message.body, level=message.level, deadline_s=self._deadline_s
        )
        return _Child(msgspec.json.encode(errand), self._clock, self._deadline_s)


class _Child:
    """One attempt. Messages are some kilobytes, so that neither pipe ever fills."""

    def __init__(self, errand: bytes, clock: Clock, deadline_s: float) -> None:
        self._clock, self._end, self._deadline_s = clock, clock.monotonic() + deadline_s, deadline_s
        self._answer: Answer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                _CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            self._answer = Answer(f"no process could be started to send it: {error.strerror}", Failure.BROKEN)
            return
        assert self._process.stdin is not None  # noqa: S101 -- asked for above
        with suppress(OSError):  # it ended at once: told by its answer
            self._process.stdin.write(errand)
            self._process.stdin.close()
        self._process.stdin = None

    def answer(self) -> Answer | None:
        """What became of it; None while it is under way."""
        if self._answer is None and self._process is not None:
            if self._process.poll() is not None:
                self._answer = self._read(self._process)
            elif self._clock.monotonic() >= self._end:
                self.cancel()
                self._answer = Answer(f"the service did not answer within {self._deadline_s:g} s", Failure.SILENT)
        return self._answer

    def cancel(self) -> None:
        """End the child, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    @staticmethod
    def _read(process: "subprocess.Popen[bytes]") -> Answer:
        out, _ = process.communicate()
        try:
            return msgspec.json.decode(out, type=Answer)
        except msgspec.MsgspecError:
            return Answer(f"the process that sends it ended with status {process.returncode}", Failure.BROKEN)
