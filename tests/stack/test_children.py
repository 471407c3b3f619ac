"""What the holder of the processes tells of each."""

import os

from prometheus_client import CollectorRegistry

from tidemill.stack.children import ChildrenMetrics
from tidemill.stack.supervisor import ProcessSeen

SEEN = {
    "kafka": ProcessSeen(name="kafka", state="ready", pid=os.getpid(), restarts=2),
    "redis": ProcessSeen(name="redis", state="failing", restarts=7),
    "gone": ProcessSeen(name="gone", state="ready", pid=2**22 + 1),
    "a.run": ProcessSeen(name="a.run", state="ended", exit_status=0),
}


def test_each_process_is_told_with_its_cost_and_tasks_that_are_over_are_not() -> None:
    registry = CollectorRegistry()
    registry.register(ChildrenMetrics(lambda: SEEN))

    def told(name: str, process: str) -> float | None:
        return registry.get_sample_value(f"tidemill_child_{name}", {"process": process})

    assert [told("ready", name) for name in SEEN] == [1, 0, 1, None]
    assert [told("restarts_total", name) for name in SEEN] == [2, 7, 0, None]
    assert (told("cpu_seconds_total", "kafka") or 0) > 0
    assert (told("resident_memory_bytes", "kafka") or 0) > 1e6
    assert [told("resident_memory_bytes", name) for name in ("redis", "gone")] == [None, None]
