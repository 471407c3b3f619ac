"""Workers as processes: started, killed, held, and what their journals tell."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from benchmarks.faults.site import SESSION_MS, Site

from tidemill.core.clock import Clock
from tidemill.core.settings import environment
from tidemill.stack.launch import Process, signal_group, spawn

__all__ = ["AIMS", "POLLS", "Line", "Worker", "Workers"]

_ROOT = Path(__file__).parents[2]
AIMS = ("taken quarantine", "taken events")
"""Between effects, where a fence that is wrong shows."""
POLLS = (8, 30, 120, 500, 4000)
"""Most records of a poll; each worker that is started has another one of these."""


@dataclass(frozen=True)
class Line:
    """One line of a journal."""

    at: float
    """Seconds of the monotonic clock, which all processes of a machine share."""
    what: str
    partitions: tuple[int, ...] = ()


@dataclass(eq=False)
class Worker:
    """One process."""

    process: Process
    journal: Path
    killed_at: float | None = None

    def lines(self) -> list[Line]:
        """What it noted; a last line that was cut off is left out."""
        text = self.journal.read_text() if self.journal.exists() else ""
        return [_line(line) for line in text.split("\n")[:-1]]

    @property
    def last(self) -> str:
        """What it noted last."""
        lines = self.lines()
        return lines[-1].what if lines else ""

    @property
    def in_batch(self) -> bool:
        """Whether it has begun to commit a batch to Delta, and its offsets not yet to Kafka."""
        return self.last not in {"", "commit"}


@dataclass
class Workers:
    """All workers of a run. Start them from the thread that lives longest: they die with it."""

    site: Site
    rng: random.Random
    clock: Clock
    drop: float
    wrong_fence: bool
    running: list[Worker] = field(default_factory=list)
    gone: list[Worker] = field(default_factory=list)

    def start(self, poll: int | None = None) -> None:
        """One more, which polls up to so many records (default: one of `POLLS`)."""
        number = len(self.running) + len(self.gone)
        journal = self.site.folder / f"worker-{number}.journal"
        argv = [sys.executable, "-m", "benchmarks.faults.worker", "--journal", str(journal)]
        argv += ["--seed", str(self.rng.randrange(1 << 30)), "--poll", str(poll or self.rng.choice(POLLS))]
        argv += ["--session-ms", str(SESSION_MS), "--drop", str(self.drop)]
        argv += ["--resource", str(self.site.resource_file)] + ["--fence-by-batch"] * self.wrong_fence
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        process = spawn(
            argv, log=self.site.folder / "workers.log", env=kept | environment(self.site.settings), folder=_ROOT
        )
        self.running.append(Worker(process, journal))

    def ended(self) -> list[int]:
        """Exit statuses of those that ended by themselves, which no fault should make them do."""
        return [status for worker in self.running if (status := worker.process.poll()) is not None]

    def kill(self) -> Worker:
        """SIGKILL one that has taken something in, and start another in its place.

        Half of the time that is just after it was seen at one of the `AIMS`, else whatever it does.
        """
        victim = self._kill(self.rng.choice((None, None, *AIMS)))
        self.start()
        return victim

    def kill_all(self, aim: str | None = None) -> list[Worker]:
        """SIGKILL all of them, one just after it was seen at `aim`; none is started."""
        first = self._kill(aim)
        return [first, *(self._kill(None) for _ in tuple(self.running))]

    def _kill(self, aim: str | None) -> Worker:
        working = [worker for worker in self.running if worker.lines()] or self.running
        worker = self.rng.choice(working)
        if aim is not None:
            self.until(lambda: worker.last == aim, 10.0)
            self.clock.sleep(self.rng.uniform(0.0, 0.02))
        signal_group(worker.process.pid, SIGKILL)
        worker.killed_at = self.clock.monotonic()
        worker.process.wait(10)
        self.running.remove(worker)
        self.gone.append(worker)
        return worker

    def wait_until_working(self) -> None:
        """Until someone has taken in a batch; the load runs."""
        self.until(lambda: any(line.what == "commit" for worker in self.running for line in worker.lines()), 60.0)

    def until(self, condition: Callable[[], bool], longest_s: float) -> bool:
        """Wait for a moment that may not come; returns whether it did."""
        end = self.clock.monotonic() + longest_s
        while not (came := condition()) and self.clock.monotonic() < end:
            self.clock.sleep(0.002)
        return came

    @contextmanager
    def held(self) -> Iterator[None]:
        """One is stopped, and goes on after the block: the others believe that it is dead, it does not know."""
        worker = self.rng.choice(self.running)
        signal_group(worker.process.pid, SIGSTOP)
        try:
            yield
        finally:
            signal_group(worker.process.pid, SIGCONT)

    def finish(self) -> list[int]:
        """Ask all to end, and return their exit statuses."""
        for worker in self.running:
            signal_group(worker.process.pid, SIGTERM)
        ends = [(worker, worker.process.wait(60)) for worker in self.running]
        self.gone += self.running
        self.running = []
        return [status for worker, status in ends if worker.lines()]  # before that it may not yet listen to signals

    def end(self) -> None:
        """Kill what is left."""
        for worker in self.running:
            signal_group(worker.process.pid, SIGKILL)
            worker.process.wait(10)

    def everyone(self) -> list[Worker]:
        """All that ever ran."""
        return [*self.gone, *self.running]


def _line(text: str) -> Line:
    at, what = text.split(" ", 1)
    if not what.startswith("commit "):
        return Line(float(at), what)
    return Line(float(at), "commit", tuple(map(int, what.removeprefix("commit ").split(","))))
