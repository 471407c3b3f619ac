"""Real processes beside a test or a benchmark: there when a block begins, gone when it ends."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tidemill.core.clock import SystemClock
from tidemill.stack.launch import signal_group, spawn
from tidemill.stack.readiness import is_ready
from tidemill.stack.runner import Runner
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing.waiting import eventually

__all__ = ["running", "supervise"]


@contextmanager
def running(wanted: ProcessWanted, folder: Path) -> Iterator[None]:
    """Run one process from when it is ready until the block ends; its output is part of a failure's message.

    Raises `AssertionError` where it ends instead, or is not ready within two minutes.
    """
    log = folder / f"{wanted.name}.log"
    process = spawn(wanted.argv, log=log, env=os.environ | wanted.env)
    try:

        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{wanted.name} ended: {log.read_text()[-2000:]}")
            return wanted.ready is None or is_ready(wanted.ready)

        eventually(answers, deadline_s=120)
        yield
    finally:
        # Nothing here outlives the block, so nothing is gained by a slow, orderly end.
        signal_group(process.pid, signal.SIGKILL)
        process.wait(10)


def supervise(state: Path, stop: threading.Event, *, env: Mapping[str, str], folder: Path) -> None:
    """Hold the processes that are wanted in `state` until `stop` is set, as `tidemill up` does.

    To be run in a thread: the processes die with the one that starts them, so that this one holds them all.
    """
    runner = Runner(state, env=env, folder=folder, clock=SystemClock())
    runner.follow_files(True)
    while not stop.is_set():
        runner.step()
        runner.sleep()
    runner.close()
