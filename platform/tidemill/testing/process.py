"""One real process beside a test or a benchmark: there when the block begins, gone when it ends."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.stack.launch import signal_group, spawn
from tidemill.stack.readiness import is_ready
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing.waiting import eventually

__all__ = ["running"]


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
