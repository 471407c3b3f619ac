"""What the workers' journals tell: where kills met them, and how long others took to go on."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.faults.workers import Worker

__all__ = ["Recovery", "answers_dropped", "in_mid_batch", "recovery"]

_SHORTLY_S = 10.0
"""What was done so long before may still be felt: a broker that was started again elects, loads and rebalances."""


def in_mid_batch(killed: Iterable[Worker]) -> int:
    """How many died between the first commit of a batch to Delta and the group's commit that ends it."""
    return sum(worker.in_batch for worker in killed)


def answers_dropped(workers: Iterable[Worker]) -> int:
    """How many answers of successful Delta commits were lost."""
    return sum(line.what.startswith("dropped") for worker in workers for line in worker.lines())


@dataclass(frozen=True)
class Recovery:
    """Longest times (s) from a kill until someone committed one of the partitions that the victim had."""

    alone: float
    """After kills that nothing but other kills came shortly before, or before it was over."""
    at_all: float


def recovery(killed: Iterable[Worker], everyone: Iterable[Worker], others: Sequence[float]) -> Recovery:
    """How long partitions stood still after kills; `others` is when something else was done (monotonic seconds)."""
    commits: dict[int, list[float]] = defaultdict(list)
    for worker in everyone:
        for line in worker.lines():
            for partition in line.partitions:
                commits[partition].append(line.at)
    for times in commits.values():
        times.sort()
    waits = []
    for worker in killed:
        since = worker.killed_at or 0.0
        next_at = [at for partition in _last_partitions(worker) if (at := _after(commits[partition], since))]
        if next_at:
            waits.append((since, min(next_at) - since))
    alone = [wait for since, wait in waits if not any(since - _SHORTLY_S < at < since + wait for at in others)]
    return Recovery(max(alone, default=0.0), max((wait for _, wait in waits), default=0.0))


def _last_partitions(worker: Worker) -> tuple[int, ...]:
    return next((line.partitions for line in reversed(worker.lines()) if line.what == "commit"), ())


def _after(times: Sequence[float], since: float) -> float | None:
    at = bisect_right(times, since)
    return None if at == len(times) else times[at]
