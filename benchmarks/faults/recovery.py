"""What the workers' journals tell: where kills met them, and how long others took to go on."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.faults.workers import Worker

__all__ = ["answers_dropped", "in_mid_batch", "longest_recovery"]


def in_mid_batch(killed: Iterable[Worker]) -> int:
    """How many died between the first commit of a batch to Delta and the group's commit that ends it."""
    return sum(worker.in_batch for worker in killed)


def answers_dropped(workers: Iterable[Worker]) -> int:
    """How many answers of successful Delta commits were lost."""
    return sum(line.what.startswith("dropped") for worker in workers for line in worker.lines())


def longest_recovery(killed: Iterable[Worker], everyone: Iterable[Worker]) -> float:
    """Longest time (s) from a kill until someone committed a partition that the victim had committed last.

    It includes whatever other faults came meanwhile.
    """
    commits: dict[int, list[float]] = defaultdict(list)
    for worker in everyone:
        for line in worker.lines():
            for partition in line.partitions:
                commits[partition].append(line.at)
    for times in commits.values():
        times.sort()
    waits = [
        wait
        for worker in killed
        for partition in _last_partitions(worker)
        if (wait := _wait(commits[partition], worker.killed_at or 0.0)) is not None
    ]
    return max(waits, default=0.0)


def _last_partitions(worker: Worker) -> tuple[int, ...]:
    return next((line.partitions for line in reversed(worker.lines()) if line.what == "commit"), ())


def _wait(times: Sequence[float], since: float) -> float | None:
    at = bisect_right(times, since)
    return None if at == len(times) else times[at] - since
