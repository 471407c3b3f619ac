"""One operator over 1,000 ContinualModels on a real API server: memory, processor time, calls, and how soon it acts.

The operator is the real one with its own rights, kopf's watches and its rounds, in this process. Logs, runs and traffic
are in memory, and no controllers run: what is measured is what the operator itself takes.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, Report, environment

from tidemill.control.cluster_kinds import DEPLOYMENT, MODEL
from tidemill.core.clock import SystemClock
from tidemill.testing.control_plane import ControlPlane, control_plane
from tidemill.testing.loop import example_resource
from tidemill.testing.operator_plane import RunningOperator, operator_rights
from tidemill.testing.waiting import eventually

__all__ = ["run"]

MODELS = {"small": 100, "full": 1000}
_BUILT = Path(__file__).parents[1] / ".bootstrap" / "cluster"
_ASKED = 20
_SETTLED_S = 3600.0
_IDLE_S = 60.0
_GOAL_S = 2.0


def run(size: str) -> Report:
    """Declare the models, let the operator come to rest, watch it rest, and ask some of them for something."""
    count, packages = MODELS[size], ("kubernetes", "kopf")
    programs = Path(os.environ.get("CLUSTER_PROGRAMS", _BUILT))
    figures = [Figure("an operator and a real API server", "skipped", "", note="`make cluster` builds one")]
    if (programs / "built.json").exists():
        with (
            tempfile.TemporaryDirectory() as folder,
            control_plane(Path(folder), programs, controllers=False) as plane,
        ):
            figures = _measured(plane, count)
    return Report("bench", "operator", size, {"models": count}, figures, environment(packages))


def _measured(plane: ControlPlane, count: int) -> list[Figure]:
    clock, namespace = SystemClock(), plane.namespace("models")
    rights = operator_rights(plane)
    before = _resident_mib()
    names = [f"model-{number:04d}" for number in range(count)]
    for name in names:
        _state(plane, namespace, name, {})
    begun, processor = clock.monotonic(), _processor_s()
    operator = RunningOperator(rights, None)
    try:
        eventually(lambda: _workers(plane, namespace) == 3 * count, _SETTLED_S, every_s=2)
        provided, took_s = clock.monotonic() - begun, _processor_s() - processor
        eventually(lambda: operator.calls_in(10) <= 1, _SETTLED_S)
        processor, calls = _processor_s(), operator.calls_in(_IDLE_S)
        idle = (_processor_s() - processor) / _IDLE_S
        resident = _resident_mib()
        waits = [_wait(plane, namespace, name, clock) for name in names[:: max(1, count // _ASKED)]]
    finally:
        operator.close()
    return [
        Figure("until every model has its objects", round(provided, 1), "s"),
        Figure("processor time of that", round(1000 * took_s / count, 1), "ms/model"),
        Figure("memory of the process, before", round(before), "MiB"),
        Figure("memory of the process, at rest", round(resident), "MiB", "≤ 512", resident <= 512),
        Figure("processor at rest", round(100 * idle, 1), "% of a core", "≤ 25", idle <= 0.25),
        Figure("calls at rest", calls * 60 / _IDLE_S, "calls/min", "≤ 10", calls <= 10),
        Figure("until a request is answered, median", round(sorted(waits)[len(waits) // 2], 2), "s"),
        Figure("until a request is answered, worst", round(max(waits), 2), "s", "≤ 2", max(waits) <= _GOAL_S),
    ]


def _state(plane: ControlPlane, namespace: str, name: str, annotations: dict[str, str]) -> None:
    said = example_resource(name).model_dump(mode="json", by_alias=True, exclude_unset=True)
    said["metadata"] = {"name": name, "namespace": namespace, "annotations": annotations}
    plane.admin.as_manager("kubectl").apply(said, MODEL)


def _wait(plane: ControlPlane, namespace: str, name: str, clock: SystemClock) -> float:
    """Seconds from a request by annotation to its answer in the status."""
    begun = clock.monotonic()
    _state(plane, namespace, name, {"tidemill.dev/retrain": '{"id": "a"}'})

    def answered() -> bool:
        status: dict[str, Any] = (plane.admin.get(MODEL, namespace, name) or {}).get("status", {})
        return "answer" in status.get("requests", {}).get("retrain", {})

    eventually(answered, 120, every_s=0.05)
    return clock.monotonic() - begun


def _workers(plane: ControlPlane, namespace: str) -> int:
    return len(plane.admin.list(DEPLOYMENT, namespace))


def _processor_s() -> float:
    """Of this process so far."""
    times = os.times()
    return times.user + times.system


def _resident_mib() -> float:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
