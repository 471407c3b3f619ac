"""The operator under faults on a real API server with KServe's controller: a part of `faults_control`.

Kills are met on the bench, where time is turned by hand and only a gateway is played. All else meets the operator as it
runs: its own rounds, kopf's watches, real time. Between two faults it must come to rest again.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults.life import differs, life
from benchmarks.report import Figure

from tidemill.cluster.kubernetes_api import connect
from tidemill.control.cluster_kinds import DEPLOYMENT, MODEL
from tidemill.control.cluster_provision import FINALIZER
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Conflict, TidemillError, Unavailable
from tidemill.testing.control_plane import ControlPlane, control_plane
from tidemill.testing.kserve_controller import kserve_controller
from tidemill.testing.loop import example_resource
from tidemill.testing.operator_plane import PlaneWorld, Rights, RunningOperator, in_namespace, operator_rights
from tidemill.testing.operator_world import WRITES
from tidemill.testing.waiting import eventually

__all__ = ["on_a_real_server"]

_BUILT = Path(__file__).parents[2] / ".bootstrap" / "cluster"
_AGAIN = 6
"""In size small: writes between two kills in one life."""
_WITHIN_S = 120.0
_WATCH = "phones-watch"


def on_a_real_server(size: str) -> list[Figure]:
    """The figures; one that says so where there is no control plane."""
    programs = Path(os.environ.get("CLUSTER_PROGRAMS", _BUILT))
    if not (programs / "built.json").exists():
        note = "no control plane: `make cluster` builds one"
        return [Figure("on a real API server", "skipped", "", note=note)]
    with (
        tempfile.TemporaryDirectory() as folder,
        control_plane(Path(folder), programs) as plane,
        kserve_controller(plane),
    ):
        rights = operator_rights(plane)
        kills = _each_write_in_turn(plane, rights) if size == "full" else _kills_in_one_life(plane, rights)
        return [*kills, *_Faults(plane, rights).figures(whole=size == "full")]


def _kills_in_one_life(plane: ControlPlane, rights: Rights) -> list[Figure]:
    with _world(plane, rights) as world:
        wanted = life(world)
    with _world(plane, rights) as world:
        world.fuse[0] = world.again = _AGAIN
        end = life(world)
        deaths = world.deaths
    return _kills(deaths, [differs(wanted, end)] if end != wanted else [])


def _each_write_in_turn(plane: ControlPlane, rights: Rights) -> list[Figure]:
    with _world(plane, rights) as world:
        wanted = life(world)
        writes = -world.fuse[0]
    others = []
    for number in range(1, writes + 1):
        with _world(plane, rights) as world:
            world.fuse[0] = number
            if (end := life(world)) != wanted:
                others.append(f"{number}: {differs(wanted, end)}")
    return _kills(writes, others)


def _kills(deaths: int, others: Sequence[str]) -> list[Figure]:
    note = "; ".join(others[:3])
    return [
        Figure("real: kills, each after a write", deaths, "kills", "≥ 3", deaths >= 3),
        Figure("real: ends that differ from one without a kill", len(others), "ends", "0", not others, note),
    ]


@contextmanager
def _world(plane: ControlPlane, rights: Rights) -> Iterator[PlaneWorld]:
    world = PlaneWorld(plane, rights)
    try:
        yield world
    finally:
        world.close()


class _Faulty:
    """The API server, which answers each write with an error while there is one."""

    def __init__(self, rights: Rights) -> None:
        self._inner = connect(kubeconfig=str(rights.kubeconfig))
        self.error: TidemillError | None = None

    def __getattr__(self, name: str) -> Any:
        return self._fail if self.error is not None and name in WRITES else getattr(self._inner, name)

    def _fail(self, *_: Any, **__: Any) -> None:
        if self.error is not None:
            raise self.error


class _Faults:
    """One model under an operator that runs, and faults that come one after the other."""

    def __init__(self, plane: ControlPlane, rights: Rights) -> None:
        self.plane, self.rights, self.clock = plane, rights, SystemClock()
        self.namespace = plane.namespace("models")
        self.resource = in_namespace(example_resource("phones"), self.namespace)
        self.api: Any = _Faulty(rights)

    def figures(self, *, whole: bool) -> list[Figure]:
        """Each fault's seconds until all is as before, and the calls of the hot moments and of rest."""
        said = self.resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
        said["metadata"]["namespace"] = self.namespace  # the default one is not said
        self.plane.admin.as_manager("kubectl").apply(said, MODEL)
        operator = RunningOperator(self.rights, self.namespace, api=self.api)
        try:
            self._provided()
            found = [self._idle(operator, 60 if whole else 20)]
            found += [self._deleted_child(), self._foreign_edit(), self._restarted()]
            refusals = {"409": Conflict("it has been changed meanwhile"), "429": Unavailable("too many requests")}
            if whole:
                refusals["401"] = Unavailable("the API server does not know who asks", hint="has the token expired?")
            found += [self._refused(operator, name, error) for name, error in refusals.items()]
        finally:
            operator.close()
        return [*found, self._no_definition()]

    def _idle(self, operator: RunningOperator, seconds: float) -> Figure:
        eventually(lambda: operator.calls_in(6) == 0, _WITHIN_S)
        calls = operator.calls_in(seconds) * 60 / seconds
        return Figure("real: calls a minute of an idle model", calls, "calls/min", "≤ 3", calls <= 3)

    def _deleted_child(self) -> Figure:
        before = self._uid()
        self.plane.admin.delete(DEPLOYMENT, self.namespace, _WATCH)
        return self._took("a deleted Deployment is there again", lambda: self._uid() not in {None, before}, 10)

    def _foreign_edit(self) -> Figure:
        found = self.plane.admin.get(DEPLOYMENT, self.namespace, _WATCH) or {}
        edit = {name: found[name] for name in ("apiVersion", "kind")} | {
            "metadata": {"name": _WATCH, "namespace": self.namespace},
            "spec": {"replicas": 3},
        }
        somebody = self.plane.admin.as_manager("somebody")
        somebody.apply(edit, DEPLOYMENT, force=True)
        told = self._took("a foreign edit is told by name", lambda: "somebody" in self._condition("ForeignEdit"), 10)
        somebody.apply(edit | {"spec": {"replicas": 1}}, DEPLOYMENT, force=True)
        eventually(self._provided, _WITHIN_S)
        return told

    def _restarted(self) -> Figure:
        with self.plane.without_api_server():
            self.clock.sleep(5)
        before = self._uid()
        self.plane.admin.delete(DEPLOYMENT, self.namespace, _WATCH)
        name = "a Deployment deleted after the API server was away is there again"
        return self._took(name, lambda: self._uid() not in {None, before}, 60)

    def _refused(self, operator: RunningOperator, name: str, error: TidemillError) -> Figure:
        """Calls a minute while each write is refused so; then what was deleted meanwhile must come back."""
        seconds = 20.0
        self.api.error = error
        self.plane.admin.delete(DEPLOYMENT, self.namespace, _WATCH)
        calls = operator.calls_in(seconds) * 60 / seconds
        told = self._condition()
        self.api.error = None
        eventually(lambda: self._uid() is not None, _WITHIN_S)
        said = f"real: calls a minute while each write is answered {name}"
        return Figure(said, calls, "calls/min", "≤ 60", calls <= 60, told)

    def _no_definition(self) -> Figure:
        """Without the CRD the operator ends with what helps; it does not go round in vain."""
        absent: Any = _Faulty(self.rights)
        absent.serves = lambda kind: kind != MODEL
        operator = RunningOperator(self.rights, self.namespace, api=absent)
        said = eventually(lambda: operator.ended, _WITHIN_S)
        text = said.message if said else ""
        good = "knows no ContinualModel" in text
        return Figure("real: without the CRD the operator ends", "yes" if good else "no", "", "yes", good, text)

    def _provided(self) -> bool:
        meta = (self.plane.admin.get(MODEL, self.namespace, "phones") or {}).get("metadata", {})
        return FINALIZER in meta.get("finalizers", []) and bool(self._uid())

    def _uid(self) -> str | None:
        found = self.plane.admin.get(DEPLOYMENT, self.namespace, _WATCH)
        return None if found is None else str(found["metadata"]["uid"])

    def _condition(self, reason: str | None = None) -> str:
        """The message of what holds up the model's provision or its turns."""
        status = (self.plane.admin.get(MODEL, self.namespace, "phones") or {}).get("status", {})
        found = [
            one["message"]
            for one in status.get("conditions", [])
            if one["type"] in {"Provisioned", "Operating"}
            and one["status"] == "False"
            and reason in {None, one["reason"]}
        ]
        return "; ".join(found)

    def _took(self, name: str, condition: Callable[[], bool], goal_s: float) -> Figure:
        begun = self.clock.monotonic()
        eventually(condition, _WITHIN_S, every_s=0.1)
        took = round(self.clock.monotonic() - begun, 1)
        return Figure(f"real: {name}", took, "s", f"≤ {goal_s:g}", took <= goal_s)
