"""One outcomes worker in a process of its own, with a stopwatch on each stage: `python -m benchmarks.outcomes.ours`.

Reads what to do as JSON from its first argument and prints what it measured as JSON.
"""

import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.core.clock import SystemClock
from tidemill.outcomes import worker
from tidemill.outcomes.intake import Intake
from tidemill.outcomes.judge import Judge
from tidemill.outcomes.kafka import KafkaLog
from tidemill.outcomes.log import Channel
from tidemill.outcomes.marks import Marks
from tidemill.outcomes.session import Session
from tidemill.outcomes.state import RedisState
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel

__all__ = ["Measured", "Task"]

Time = npt.NDArray[np.float64]


class Task(msgspec.Struct):
    """What to do: a worker is run until it has written so many outcomes and read them for the lake."""

    model: dict[str, Any]
    kafka: str
    redis: str
    lake: str
    outcomes: int


class Measured(msgspec.Struct):
    """From the beginning of the first poll that brought a record until all is written, in the lake and committed."""

    wall_s: float
    cpu_s: float
    """Of the process, all its threads."""
    emitted_s: float
    """Until the transaction of the last outcome was committed."""
    stages: dict[str, tuple[float, float]]
    """Seconds by stage, and those on the processor meanwhile, whichever thread had them; what a stage calls of another
    counts there alone."""
    transactions: int
    peak_mib: float


_STAGES: dict[str, Sequence[tuple[type, str]]] = {
    "read from Kafka": [(KafkaLog, "poll"), (KafkaLog, "poll_due")],
    "check predictions": [(Intake, "predictions")],
    "check labels": [(Intake, "labels")],
    "index (Redis)": [(RedisState, name) for name in ("index", "know", "hear", "recall", "restore")],
    "resolved labels to Kafka": [(KafkaLog, "send"), (KafkaLog, "flush")],
    "resolved labels read": [(Session, "_hear"), (Intake, "resolved")],
    "judge": [(Judge, name) for name in ("hear", "take", "ripe", "final")],
    "outcomes to Kafka": [(Session, "_emit"), (KafkaLog, "emit")],
    "rows of outcomes": [(Intake, "outcomes")],
    "lake": [(Tables, "flush")],
    "marks": [(Marks, "advance")],
    "commit": [(Session, "flush"), (KafkaLog, "commit")],
}


def _now() -> Time:
    """Seconds on the wall and on the processor."""
    return np.array([time.perf_counter(), time.process_time()])


class _Stopwatch:
    """Time by stage on the worker's own thread."""

    def __init__(self) -> None:
        self.spent: dict[str, Time] = defaultdict(lambda: np.zeros(2))
        self._inner: list[Time] = []
        self._thread = threading.current_thread()

    def on(self, owner: Any, name: str, stage: str) -> None:
        """Time each call of a method of a class, without what it spends in other methods that are timed."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not self._thread:
                return method(*args, **kwargs)
            self._inner.append(np.zeros(2))
            begun = _now()
            try:
                return method(*args, **kwargs)
            finally:
                took = _now() - begun
                self.spent[stage] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, name, timed)


def main(task: Task) -> Measured:
    """Run the worker until all is done."""
    watch, stop = _Stopwatch(), threading.Event()
    begun: list[Time] = []
    emitted: list[Time] = []
    ended: list[Time] = []
    written = followed = 0
    poll, transact, follow, flush = KafkaLog.poll, KafkaLog._transact, Intake.outcomes, Session.flush

    def polled(log: KafkaLog, timeout_s: float) -> Any:
        started = _now()
        found = poll(log, timeout_s)
        if not begun and any(channel in {Channel.LABELS, Channel.PREDICTIONS} for channel, _ in found):
            begun.append(started)
            watch.spent.clear()
        return found

    def transacting(log: KafkaLog, records: Any, commits: Any) -> Any:
        nonlocal written
        sent = transact(log, records, commits)
        many = sum(map(len, records.values()))
        written += many
        if many:
            emitted.append(_now())
        return sent

    def following(intake: Intake, records: Any) -> None:
        nonlocal followed
        follow(intake, records)
        followed += len(records)
        if written >= task.outcomes and followed >= task.outcomes:
            stop.set()

    def flushing(session: Session) -> None:
        flush(session)
        ended[:] = [_now()]

    ours: Any = KafkaLog
    ours.poll, ours._transact = polled, transacting
    ours = Intake
    ours.outcomes = following
    ours = Session
    ours.flush = flushing
    for stage, timed in _STAGES.items():
        for owner, name in timed:
            watch.on(owner, name, stage)
    model = ContinualModel.model_validate(task.model)
    worker.run(model, kafka=task.kafka, redis=task.redis, lake=task.lake, clock=SystemClock(), stop=stop)
    wall, cpu = (ended[0] - begun[0]).tolist()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages = {name: (float(both[0]), float(both[1])) for name, both in watch.spent.items()}
    return Measured(wall, cpu, float((emitted[-1] - begun[0])[0]), stages, len(emitted), peak)


if __name__ == "__main__":
    print(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Task))).decode())
