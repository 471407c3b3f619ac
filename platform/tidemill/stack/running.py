"""The stack that runs in a state folder, seen from outside: found, started apart from this process, ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from tidemill.core.clock import Clock
from tidemill.core.errors import Conflict, DeadlineExceeded, InvalidInput, Unavailable
from tidemill.core.settings import Settings, environment
from tidemill.stack.lock import holder
from tidemill.stack.logs import last_lines

__all__ = ["FILE", "READY_S", "StackFile", "make_folder", "start_detached", "stop", "wait_for_other", "what_runs"]

FILE = "stack.json"
READY_S = 90.0
"""Deadline of Kafka, Redis and Envoy together."""


class StackFile(msgspec.Struct, frozen=True, kw_only=True):
    """`<state>/stack.json`: the stack that runs. It is there only while everything in it answers."""

    pid: int
    started: str
    settings: dict[str, str]
    """The settings that follow from it; `load_settings` takes them from here."""


def what_runs(state: Path) -> StackFile | None:
    """The stack that runs in this state folder and is ready; None if there is none."""
    pid = holder(state)
    try:
        stack = msgspec.json.decode((state / FILE).read_bytes(), type=StackFile)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    return stack if pid == stack.pid else None


def make_folder(folder: Path) -> Path:
    """The folder, made where it is not there yet. Raises `InvalidInput` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"{folder} cannot be made: {error.strerror}", hint="TIDEMILL_STATE=<folder> names another place"
        ) from error
    return folder


def wait_for_other(state: Path, *, clock: Clock) -> StackFile:
    """The stack that another process is bringing up, once it is ready.

    Raises `Unavailable` if that process gives up, `DeadlineExceeded` if it takes too long.
    """
    end = clock.monotonic() + 2 * READY_S
    while clock.monotonic() < end:
        stack = what_runs(state)
        if stack is not None:
            return stack
        if holder(state) is None:
            raise Unavailable("another `tidemill up` was starting, and gave up", hint="run `tidemill up` again")
        clock.sleep(0.05)
    raise DeadlineExceeded(f"another `tidemill up` (pid {holder(state)}) is not ready after {2 * READY_S:g} s")


def start_detached(settings: Settings, *, control: bool = True, clock: Clock) -> StackFile:
    """Bring the stack up in a process of its own that outlives this one; returns it once it is ready.

    Where one runs already, that one is returned. Its output goes to `<state>/logs/up.log`. Raises `Unavailable`
    with the last lines of that output if it fails.
    """
    running = what_runs(settings.state)
    if running is not None:
        return running
    logs = make_folder(settings.state / "logs")
    command = [sys.executable, "-m", "tidemill.cli", "up", *([] if control else ["--no-control"])]
    with (logs / "up.log").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment(settings), "NO_COLOR": "1"},
            start_new_session=True,
        )
    while True:
        stack = what_runs(settings.state)
        if stack is not None and stack.pid == process.pid:
            return stack
        status = process.poll()
        if status == 0 and stack is not None:
            return stack
        if status is not None:
            raise Unavailable(f"the stack did not start (status {status}):\n{last_lines(logs / 'up.log', 30)}")
        clock.sleep(0.05)


def stop(state: Path, *, clock: Clock, deadline_s: float = 60.0) -> bool:
    """End the stack of this state folder; returns once nothing of it runs. False if nothing ran.

    One that does not end in time is killed; what it had started goes with it. Raises `DeadlineExceeded` if even
    that does not help.
    """
    pid = holder(state)
    if pid is None:
        (state / FILE).unlink(missing_ok=True)
        return False
    for number, patience_s in ((signal.SIGTERM, deadline_s), (signal.SIGKILL, 5.0)):
        _signal_holder(state, number)
        if _released(state, clock, patience_s):
            (state / FILE).unlink(missing_ok=True)
            return True
    raise DeadlineExceeded(f"the stack (pid {pid}) does not end", hint="see who holds it: `tidemill doctor`")


def _signal_holder(state: Path, number: signal.Signals) -> None:
    pid = holder(state)
    if not pid:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise Conflict(f"the stack (pid {pid}) belongs to another user") from error


def _released(state: Path, clock: Clock, patience_s: float) -> bool:
    end = clock.monotonic() + patience_s
    while holder(state) is not None:
        if clock.monotonic() > end:
            return False
        clock.sleep(0.05)
    return True
