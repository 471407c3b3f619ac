"""One ingest worker in a process of its own, with a stopwatch on each stage: `python -m benchmarks.ingest.ours`.

Reads what to do as JSON from its first argument and prints what it measured as JSON.
"""

import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.core.clock import SystemClock
from tidemill.ingest import worker
from tidemill.ingest.batch import BatchReader
from tidemill.ingest.columns import ColumnReader
from tidemill.ingest.effects import Effects
from tidemill.ingest.telemetry import EVENTS
from tidemill.spec.model import ContinualModel

__all__ = ["Measured", "Task"]


class Task(msgspec.Struct):
    """What to take in."""

    model: dict[str, Any]
    kafka: str
    redis: str
    lake: str
    events: int
    """How many there are, all good."""


class Measured(msgspec.Struct):
    """How long it took from the first poll that brought something to the commit of the last batch."""

    wall_s: float
    cpu_s: float
    stages: dict[str, tuple[float, float]]
    """Seconds by stage, and those on the processor meanwhile, whichever thread had them: two stages run at a time."""
    batches: int
    peak_mib: float


def _now() -> npt.NDArray[np.float64]:
    """Seconds on the wall and on the processor."""
    return np.array([time.perf_counter(), time.process_time()])


class _Stopwatch:
    def __init__(self) -> None:
        self.spent: dict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
        self.calls: dict[str, int] = defaultdict(int)

    def on(self, owner: Any, name: str, stage: str) -> None:
        """Time each call of a method of a class."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = _now()
            try:
                return inner(*args, **kwargs)
            finally:
                self.spent[stage] += _now() - begun
                self.calls[stage] += 1

        setattr(owner, name, timed)


def main(task: Task) -> Measured:
    """Run the worker until all is taken in and committed."""
    model = ContinualModel.model_validate(task.model)
    watch, stop = _Stopwatch(), threading.Event()
    begun: list[npt.NDArray[np.float64]] = []

    def first(inner: Callable[..., Any]) -> Callable[..., Any]:
        def polled(*args: Any) -> Any:
            started = _now()
            found = inner(*args)
            if found and not begun:
                begun.append(started)
                watch.spent.clear()
            return found

        return polled

    def committed(inner: Callable[..., None]) -> Callable[..., None]:
        def commit(*args: Any) -> None:
            inner(*args)
            if EVENTS.labels(model.id)._value.get() >= task.events:
                ended.append(_now())
                stop.set()

        return commit

    ended: list[npt.NDArray[np.float64]] = []
    loop: Any = worker._Worker
    watch.on(loop, "_commit", "commit")
    loop._poll, loop._commit = first(loop._poll), committed(loop._commit)
    watch.on(loop, "_poll", "poll")
    watch.on(BatchReader, "read", "read")
    watch.on(ColumnReader, "_frame", "frame")
    watch.on(Effects, "_write_rows", "rows")
    watch.on(Effects, "announce", "sketches")
    watch.on(Effects, "take", "effects")
    worker.run(model, kafka=task.kafka, redis=task.redis, lake=task.lake, clock=SystemClock(), stop=stop)
    spent = watch.spent
    stages = {
        "poll": spent["poll"],
        "decode": spent["read"] - spent["frame"],
        "frame": spent["frame"],
        "lake": spent["effects"] - spent["rows"] - spent["sketches"],
        "rows": spent["rows"],
        "sketches": spent["sketches"],
        "commit": spent["commit"],
    }
    wall, cpu = (ended[0] - begun[0]).tolist()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {name: (float(both[0]), float(both[1])) for name, both in stages.items()}
    return Measured(wall, cpu, measured, watch.calls["effects"], peak)


if __name__ == "__main__":
    print(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Task))).decode())
