"""What the holder of the processes sees of each: whether it is ready, how often it was started again, what it costs.

Kafka, Redis and Envoy tell nothing of themselves in our names, and a process that cannot start tells nothing at all.
"""

from collections.abc import Callable, Iterator, Mapping

import psutil
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tidemill.stack.supervisor import ProcessSeen

__all__ = ["ChildrenMetrics"]

_LABELS = ["process"]


class ChildrenMetrics(Collector):
    """A collector for the registry of `tidemill up`.

    Args:
        seen: the processes by name; asked from another thread, so it must not change what it gave.
    """

    def __init__(self, seen: Callable[[], Mapping[str, ProcessSeen]]) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        """Four metrics by process. Tasks that are over are left out."""
        ready = GaugeMetricFamily("tidemill_child_ready", "1 while a process is up and answers.", labels=_LABELS)
        restarts = CounterMetricFamily(
            "tidemill_child_restarts", "Times that a process was started again after it had ended.", labels=_LABELS
        )
        cpu = CounterMetricFamily("tidemill_child_cpu_seconds", "Processor time of a running process.", labels=_LABELS)
        memory = GaugeMetricFamily(
            "tidemill_child_resident_memory_bytes", "Resident memory of a running process.", labels=_LABELS
        )
        for name, one in self._seen().items():
            if one.state == "ended":
                continue
            ready.add_metric([name], float(one.state == "ready"))
            restarts.add_metric([name], one.restarts)
            cost = _cost(one.pid)
            if cost is not None:
                cpu.add_metric([name], cost[0])
                memory.add_metric([name], cost[1])
        yield from (ready, restarts, cpu, memory)


def _cost(pid: int | None) -> tuple[float, float] | None:
    """Processor seconds and resident bytes; None of a process that is not there."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return None
