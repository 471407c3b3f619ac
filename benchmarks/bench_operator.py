"""One operator over 1,000 ContinualModels on a real API server: memory, processor time, calls, and how soon it acts.

The operator is the real one with its own rights, kopf's watches and its rounds, in this process. Logs, runs and traffic
are in memory, and no controllers run: what is measured is what the operator itself takes.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Figure, Report, environment

from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, MODEL
from tidemill.core.clock import Clock, SystemClock
from tidemill.rollout.kserve import resource_config
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
_OF_A_CHANGE = 1
"""Writes that a changed cooldown takes: that of the ConfigMap."""


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
    clock, rights = SystemClock(), operator_rights(plane)
    people = _People(plane, plane.namespace("models"), clock)
    before = _resident_mib()
    names = [f"model-{number:04d}" for number in range(count)]
    for name in names:
        people.state(name)
    begun, processor = clock.monotonic(), _processor_s()
    with closing(RunningOperator(rights, None)) as operator:
        eventually(lambda: people.workers() == 3 * count, _SETTLED_S, every_s=2)
        provided, took_s = clock.monotonic() - begun, _processor_s() - processor
        eventually(lambda: operator.calls_in(10) <= 1, _SETTLED_S)
        processor, calls = _processor_s(), operator.calls_in(_IDLE_S)
        idle = (_processor_s() - processor) / _IDLE_S
        resident = _resident_mib()
        chosen = names[:: max(1, count // _ASKED)]
        changes = [people.change(name, "11m") for name in chosen]
    begun = clock.monotonic()
    with closing(RunningOperator(rights, None)) as operator:
        people.change(names[-1], "12m")
        again_s = clock.monotonic() - begun
        eventually(lambda: operator.calls_in(10) <= 1, _SETTLED_S)
        writes = operator.calls.count("apply") - _OF_A_CHANGE
        answers = [people.ask(name) for name in chosen]
    return [
        Figure("until every model has its objects", round(provided, 1), "s"),
        Figure("processor time of that", round(1000 * took_s / count, 1), "ms/model"),
        Figure("memory of the process, before", round(before), "MiB"),
        Figure("memory of the process, at rest", round(resident), "MiB", "≤ 512", resident <= 512),
        Figure("processor at rest", round(100 * idle, 1), "% of a core", "≤ 25", idle <= 0.25),
        Figure("calls at rest", calls * 60 / _IDLE_S, "calls/min", "≤ 10", calls <= 10),
        *_waits("until a changed resource is in its ConfigMap", changes),
        Figure("started again, until the last model's change is acted on", round(again_s, 1), "s"),
        Figure("writes of that start, but for those of the change", writes, "calls"),
        *_waits("until a request is answered", answers),
    ]


def _waits(what: str, waits: list[float]) -> list[Figure]:
    worst = max(waits)
    return [
        Figure(f"{what}, median of {len(waits)}", round(median(waits), 2), "s"),
        Figure(f"{what}, worst", round(worst, 2), "s", f"≤ {_GOAL_S:g}", worst <= _GOAL_S),
    ]


@dataclass(frozen=True)
class _People:
    """Who declares models, changes them and asks for something; each waits in seconds for what comes of it."""

    plane: ControlPlane
    namespace: str
    clock: Clock

    def state(self, name: str, cooldown: str = "5m", **annotations: str) -> None:
        said = example_resource(name).model_dump(mode="json", by_alias=True, exclude_unset=True)
        said["metadata"] = {"name": name, "namespace": self.namespace, "annotations": annotations}
        said["spec"]["triggers"]["cooldown"] = cooldown
        self.plane.admin.as_manager("kubectl").apply(said, MODEL)

    def change(self, name: str, cooldown: str) -> float:
        """Until the ConfigMap in which a model's pods find the resource has it in another form."""

        def told() -> bool:
            found = self.plane.admin.get(CONFIG_MAP, self.namespace, resource_config(name)) or {}
            return f"cooldown: {cooldown}" in found["data"]["resource.yaml"]

        self.state(name, cooldown)
        return self._wait(told)

    def ask(self, name: str) -> float:
        """Until a request by annotation has its answer in the status."""

        def answered() -> bool:
            status: dict[str, Any] = (self.plane.admin.get(MODEL, self.namespace, name) or {}).get("status", {})
            return "answer" in status.get("requests", {}).get("retrain", {})

        self.state(name, "11m", **{"tidemill.dev/retrain": '{"id": "a"}'})
        return self._wait(answered)

    def workers(self) -> int:
        """How many Deployments there are; the server counts them, as to read them all would be this process's work."""
        found = json.loads(self.plane.kubectl("get", "--raw", f"{DEPLOYMENT.path(self.namespace)}?limit=1"))
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))

    def _wait(self, condition: Callable[[], bool]) -> float:
        begun = self.clock.monotonic()
        eventually(condition, _SETTLED_S, every_s=0.05)
        return self.clock.monotonic() - begun


def _processor_s() -> float:
    """Of this process so far."""
    times = os.times()
    return times.user + times.system


def _resident_mib() -> float:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
