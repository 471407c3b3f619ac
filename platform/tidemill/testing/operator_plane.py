"""The operator with the chart's own rights on a real control plane with KServe's controller; a gateway is played."""

import json
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from tidemill.cluster import Cluster
from tidemill.cluster.kubernetes_api import connect
from tidemill.cluster.watched import WatchedCluster
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.cluster_objects import OPTIONAL
from tidemill.control.cluster_provision import owner_of
from tidemill.control.operator import WATCHED
from tidemill.control.protocols import StoredModel
from tidemill.core.clock import SystemClock
from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings
from tidemill.rollout.driver import TrafficDriver
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.spec.model import ContinualModel
from tidemill.testing.control_plane import DEFINITION, NAMESPACE, ControlPlane
from tidemill.testing.knative import PlayedKnative
from tidemill.testing.kserve import PlayedGateway
from tidemill.testing.loop import Crashing, example_resource
from tidemill.testing.operator import OperatorBench, OperatorLoopBench
from tidemill.testing.operator_world import WRITES, World
from tidemill.testing.waiting import eventually

__all__ = ["PlaneWorld", "Rights", "RunningOperator", "in_namespace", "install_optional", "operator_rights"]

_CHART = Path(__file__).parents[3] / "helm/tidemill"
_GROUP = "rbac.authorization.k8s.io"


class Rights(NamedTuple):
    """An operator's service account."""

    kubeconfig: Path
    user: str
    """Its name, as the API server writes it down."""


def operator_rights(plane: ControlPlane, namespace: str | None = None) -> Rights:
    """The operator's service account, bound to the chart's rules alone, in one namespace or (None) in all.

    The definition of ContinualModels is installed with it.
    """
    plane.install(_CHART / "files/crd.yaml")
    home, scope = plane.namespace("operator"), "Cluster" if namespace is None else ""
    rules = yaml.safe_load((_CHART / "files/operator-rules.yaml").read_text())
    where = {"name": home} | ({} if namespace is None else {"namespace": namespace})
    made = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": home}},
        {"apiVersion": f"{_GROUP}/v1", "kind": f"{scope}Role", "metadata": where, "rules": rules},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": f"{scope}RoleBinding",
            "metadata": where,
            "roleRef": {"apiGroup": _GROUP, "kind": f"{scope}Role", "name": home},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": home}],
        },
    ]
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    plane.kubectl("apply", "--server-side", "--filename", "-", stdin=everything)
    token = plane.kubectl("create", "token", "operator", "--namespace", home, "--duration=4h").strip()
    return Rights(plane.kubeconfig_for(token, home), f"system:serviceaccount:{home}:operator")


def install_optional(plane: ControlPlane) -> None:
    """Definitions of what a platform may do without (Strimzi, KEDA), which take whatever is stated."""
    for kind in OPTIONAL:
        group, _, version = kind.api_version.partition("/")
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {
            "group": group,
            "names": {"kind": kind.kind, "plural": kind.plural},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        }
        meta = {"name": f"{kind.plural}.{group}"}
        plane.admin.apply(
            {"apiVersion": DEFINITION.api_version, "kind": DEFINITION.kind, "metadata": meta, "spec": spec}, DEFINITION
        )
    plane.wait_until_served(*(f"{kind.plural}.{kind.api_version.partition('/')[0]}" for kind in OPTIONAL))


def in_namespace(resource: ContinualModel, namespace: str) -> ContinualModel:
    """The same resource in another namespace."""
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})


class PlaneWorld(World):
    """One model in a namespace of its own, in which KServe's storage initializer may run.

    The operator reads as it does in its process, from memory; what the watches would have shown is read each round.

    Args:
        plane: with KServe's controller at work.
        rights: what `operator_rights` gave.
        by: the traffic driver.
        deadline_s: for whatever real controllers are waited for.
    """

    def __init__(
        self,
        plane: ControlPlane,
        rights: Rights,
        *,
        by: Literal["gateway", "knative"] = "gateway",
        deadline_s: float = 240.0,  # on a busy machine KServe's controller needs a minute for what takes two seconds
    ) -> None:
        super().__init__()
        self._deadline_s = deadline_s
        self.cluster, self.namespace = plane.admin, plane.namespace("models")
        others = plane.admin.as_manager("played")
        self._player = (
            PlayedGateway(others, self.namespace)
            if by == "gateway"
            else PlayedKnative(others, self.servers, self.namespace)
        )
        operator: Any = Crashing(connect(kubeconfig=str(rights.kubeconfig)), self.fuse, WRITES)
        self.bench = OperatorLoopBench(
            plane.admin.as_manager("kubectl"),
            operator,
            in_namespace(example_resource("phones"), self.namespace),
            driver=self.by_gateway if by == "gateway" else _by_knative,
            play=self._play,
            memory=self._remember,
            deadline_s=deadline_s,
        )

    def delete(self) -> None:
        """Delete the model, and wait until it is gone."""
        self.cluster.delete(MODEL, self.namespace, "phones")

        def gone() -> bool:
            self.bench.turn(1)
            return self.cluster.get(MODEL, self.namespace, "phones") is None

        eventually(gone, self._deadline_s, every_s=0.2)

    def close(self) -> None:
        """Take the namespace away."""
        self.cluster.delete(NAMESPACE, None, self.namespace)

    def _remember(self, cluster: Cluster) -> Cluster:
        self._memory = WatchedCluster(cluster, [kind for kind in WATCHED if cluster.serves(kind)], whole=(MODEL,))
        self._memory.fill(self.namespace)
        return self._memory

    def _play(self) -> None:
        self.light_fuse()
        self.servers_start()
        self._player.play()
        self._memory.fill(self.namespace)


def _by_knative(stored: StoredModel, cluster: Cluster) -> TrafficDriver:
    return KnativeTrafficDriver(cluster, resource=stored.resource, owner=owner_of(stored.resource, cluster))


class RunningOperator:
    """The operator as it runs: kopf's watches, its own rounds, real time. Logs, runs and versions are in memory.

    Args:
        rights: who it is.
        namespace: whose models it runs; None: those of all.
        settings: its own; default: those of `OperatorBench`.
        api: the API server as it is to see it; default: as it is.
    """

    def __init__(
        self, rights: Rights, namespace: str | None, *, settings: Settings | None = None, api: Cluster | None = None
    ) -> None:
        reached = connect(kubeconfig=str(rights.kubeconfig))
        self.calls: list[str] = []
        """The calls to the API server so far, but for those of the watches."""
        counted: Any = _Counted(api or reached, self.calls)
        self.bench = OperatorBench(counted, settings, clock=SystemClock(), login=reached.access, namespace=namespace)
        self.ended: TidemillError | None = None
        """What it ended with before it was to."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def calls_in(self, seconds: float) -> int:
        """How many there are in so long from now."""
        before = len(self.calls)
        self._stop.wait(seconds)
        return len(self.calls) - before

    def _run(self) -> None:
        try:
            self.bench.operator.run(self._stop)
        except TidemillError as error:
            self.ended = error

    def close(self) -> None:
        """Let it end."""
        self._stop.set()
        self._thread.join(30)
        if self._thread.is_alive():
            raise AssertionError("the operator does not end")


class _Counted:
    """Passes calls on, and notes each."""

    def __init__(self, inner: Cluster, calls: list[str]) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls.append(name)
            return found(*args, **kwargs)

        return call
