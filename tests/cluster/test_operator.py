"""The operator with the chart's own rights, on a real API server with KServe's controller; a gateway is played."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.cluster.kubernetes_api import KubernetesCluster, connect
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, MODEL
from tidemill.control.cluster_provision import FINALIZER, ORPHAN, owner_of
from tidemill.control.protocols import StoredModel
from tidemill.core.clock import SystemClock
from tidemill.rollout.driver import TrafficDriver
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import Gateway
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.knative import PlayedKnative
from tidemill.testing.kserve import PlayedGateway, Servers
from tidemill.testing.kserve_controller import RUNTIME, serving_runtime
from tidemill.testing.loop import example_resource
from tidemill.testing.operator import OperatorBench, OperatorLoopBench

pytestmark = [
    pytest.mark.slow,
    # kopf leaves connections of watches that were cancelled to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
VERSION = "tidemill.dev/version"


@pytest.fixture(scope="module")
def rights(kserve: ControlPlane) -> Path:
    """A kubeconfig of the operator's service account, bound to the chart's rules and to nothing else."""
    kserve.kubectl("apply", "--server-side", "--filename", str(ROOT / "helm/tidemill/files/crd.yaml"))
    kserve.kubectl("wait", "--for=condition=Established", "crd/continualmodels.tidemill.dev", "--timeout=60s")
    home = kserve.namespace("operator")
    rules = yaml.safe_load((ROOT / "helm/tidemill/files/operator-rules.yaml").read_text())
    group = "rbac.authorization.k8s.io"
    made = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": home}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": home}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": home},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": home},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": home}],
        },
    ]
    for one in made:
        kserve.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(one))
    token = kserve.kubectl("create", "token", "operator", "--namespace", home, "--duration=1h").strip()
    return kserve.kubeconfig_for(token, "operator")


@pytest.fixture
def open_namespace(kserve: ControlPlane, cluster: KubernetesCluster) -> Iterator[str]:
    """One in which KServe's own storage initializer may run: the restricted standard forbids it."""
    name = kserve.namespace("models")
    cluster.apply(serving_runtime(name), RUNTIME)
    yield name
    cluster.delete(NAMESPACE, None, name)


@pytest.fixture
def namespace(kserve: ControlPlane, cluster: KubernetesCluster) -> Iterator[str]:
    """One in which the restricted standard is enforced."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = kserve.namespace("models", **labels)
    cluster.apply(serving_runtime(name), RUNTIME)
    yield name
    cluster.delete(NAMESPACE, None, name)


class Running:
    """The operator as it runs: kopf's watches, its own rounds, real time. Logs, runs and versions are in memory."""

    def __init__(self, rights: Path, namespace: str) -> None:
        self.api = connect(kubeconfig=str(rights))
        self.calls: list[str] = []
        counted: Any = _Counted(self.api, self.calls)
        self.bench = OperatorBench(counted, clock=SystemClock(), login=self.api.access, namespace=namespace)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.bench.operator.run, args=(self.stop,))
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


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


@pytest.fixture
def running(rights: Path, namespace: str) -> Iterator[Running]:
    found = Running(rights, namespace)
    yield found
    found.close()


def resource_in(namespace: str, name: str = "phones", **spec: Any) -> ContinualModel:
    resource = example_resource(name, **spec)
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})


def declare(cluster: KubernetesCluster, resource: ContinualModel) -> None:
    said = resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
    said["metadata"]["namespace"] = resource.metadata.namespace
    cluster.as_manager("kubectl").apply(said, MODEL)


def names(cluster: KubernetesCluster, kind: Kind, namespace: str) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.list(kind, namespace)]


def test_what_is_applied_becomes_objects_and_a_status_and_is_then_left_in_peace(
    running: Running, cluster: KubernetesCluster, kserve: ControlPlane, namespace: str
) -> None:
    declare(cluster, resource_in(namespace))
    status = eventually(lambda: _status(cluster, namespace), 30)
    assert status["phase"] == "Bootstrapping"
    workers = eventually(lambda: _all(names(cluster, DEPLOYMENT, namespace), 3), 30)
    assert workers == ["phones-ingest", "phones-outcomes", "phones-watch"]
    assert len(names(cluster, JOB, namespace)) == 1
    # The restricted standard lets their pods be.
    eventually(lambda: len(kserve.kubectl("get", "pods", "-n", namespace, "-o", "name").split()) >= 4, 30)
    told = kserve.kubectl("get", "ctm", "phones", "--namespace", namespace)
    assert "Bootstrapping" in told
    running.calls.clear()
    threading.Event().wait(20)
    assert len(running.calls) <= 2, running.calls


def test_a_request_by_annotation_is_answered_and_told(
    running: Running, cluster: KubernetesCluster, kserve: ControlPlane, namespace: str
) -> None:
    declare(cluster, resource_in(namespace))
    eventually(lambda: _status(cluster, namespace), 30)
    kserve.kubectl(
        "annotate",
        "ctm",
        "phones",
        "--namespace",
        namespace,
        'tidemill.dev/retrain={"id": "a", "reason": "new camera"}',
    )
    answer = eventually(
        lambda: (found := _status(cluster, namespace).get("requests", {}).get("retrain", {})).get("answer") and found,
        30,
    )
    assert (answer["id"], answer["state"]) == ("a", "answered")
    events = eventually(lambda: kserve.kubectl("get", "events", "--namespace", namespace, "-o", "name"), 30)
    assert "phones" in events


def test_a_deleted_worker_is_back_and_an_edit_is_told_until_it_is_taken_back(
    running: Running, cluster: KubernetesCluster, kserve: ControlPlane, namespace: str
) -> None:
    declare(cluster, resource_in(namespace))
    eventually(lambda: _all(names(cluster, DEPLOYMENT, namespace), 3), 30)
    before = cluster.get(DEPLOYMENT, namespace, "phones-watch")
    assert before is not None
    kserve.kubectl("delete", "deployment", "phones-watch", "--namespace", namespace)
    made = eventually(lambda: cluster.get(DEPLOYMENT, namespace, "phones-watch"), 10)
    assert made is not None
    assert made["metadata"]["uid"] != before["metadata"]["uid"]
    _edit(kserve, namespace, "somebody-elses:1")
    told = eventually(lambda: _condition(cluster, namespace, "Provisioned", "ForeignEdit"), 20)
    assert "kubectl" in told["message"]
    _edit(kserve, namespace, "tidemill-outcomes:latest")
    eventually(lambda: _condition(cluster, namespace, "Provisioned", "AsWanted"), 20)


def _edit(kserve: ControlPlane, namespace: str, image: str) -> None:
    kserve.kubectl("set", "image", "deployment/phones-outcomes", f"outcomes={image}", "--namespace", namespace)


def test_an_invalid_resource_is_told_its_path(running: Running, cluster: KubernetesCluster, namespace: str) -> None:
    # The CRD's rules cannot know every time zone.
    wrong = resource_in(namespace).model_dump(mode="json", by_alias=True, exclude_unset=True)
    wrong["metadata"]["namespace"] = namespace
    wrong["spec"]["triggers"] = {"schedule": {"cron": "61 * * * *"}}
    cluster.as_manager("kubectl").apply(wrong, MODEL)
    told = eventually(lambda: _condition(cluster, namespace, "Valid", "Refused"), 20)
    assert "triggers.schedule" in told["message"]


@pytest.mark.parametrize("orphaned", [False, True])
def test_a_deleted_model_takes_all_with_it_unless_it_is_to_be_left(
    running: Running, cluster: KubernetesCluster, kserve: ControlPlane, namespace: str, orphaned: bool
) -> None:
    declare(cluster, resource_in(namespace))
    eventually(lambda: _all(names(cluster, DEPLOYMENT, namespace), 3), 30)
    assert (_object(cluster, namespace) or {})["metadata"]["finalizers"] == [FINALIZER]
    if orphaned:
        kserve.kubectl("annotate", "ctm", "phones", f"{ORPHAN}=true", "--namespace", namespace)
    kserve.kubectl("delete", "ctm", "phones", "--namespace", namespace, "--timeout=60s")
    if orphaned:
        assert names(cluster, DEPLOYMENT, namespace) == ["phones-ingest", "phones-outcomes", "phones-watch"]
        assert all("ownerReferences" not in one["metadata"] for one in cluster.list(DEPLOYMENT, namespace))
    else:
        eventually(lambda: not names(cluster, DEPLOYMENT, namespace) + names(cluster, JOB, namespace), 60)
        left = set(names(cluster, CONFIG_MAP, namespace)) - {"kube-root-ca.crt", "tidemill-settings"}
        eventually(lambda: not left & set(names(cluster, CONFIG_MAP, namespace)), 60)


def test_the_operator_goes_on_after_the_api_server_was_started_again(
    running: Running, cluster: KubernetesCluster, kserve: ControlPlane, namespace: str
) -> None:
    declare(cluster, resource_in(namespace))
    eventually(lambda: _all(names(cluster, DEPLOYMENT, namespace), 3), 30)
    kserve.restart_api_server()
    kserve.kubectl("delete", "deployment", "phones-watch", "--namespace", namespace)
    eventually(lambda: "phones-watch" in names(cluster, DEPLOYMENT, namespace), 90, every_s=0.5)


@pytest.fixture(params=["gateway", "knative"])
def story(
    request: pytest.FixtureRequest, rights: Path, cluster: KubernetesCluster, open_namespace: str
) -> OperatorLoopBench:
    """A model whose rollouts go through the driver of this name; KServe is real."""
    namespace = open_namespace
    played, servers = cluster.as_manager("played"), Servers()
    player = (
        PlayedGateway(played, namespace) if request.param == "gateway" else PlayedKnative(played, servers, namespace)
    )

    def play() -> None:
        for one in cluster.list(INFERENCE_SERVICE, namespace):
            servers.become_ready(one["metadata"]["labels"][VERSION])
        player.play()

    def driver(stored: StoredModel, api: Cluster) -> TrafficDriver:
        owner = owner_of(stored.resource, api)
        if request.param == "knative":
            return KnativeTrafficDriver(api, resource=stored.resource, owner=owner)
        gateway = Gateway("gateways", "public")
        return GatewayTrafficDriver(api, resource=stored.resource, gateway=gateway, clock=bench.clock, owner=owner)

    api = connect(kubeconfig=str(rights))
    bench = OperatorLoopBench(cluster.as_manager("kubectl"), api, resource_in(namespace), driver=driver, play=play)
    return bench


def test_versions_come_step_by_step_and_one_that_does_harm_is_taken_back(
    story: OperatorLoopBench, cluster: KubernetesCluster
) -> None:
    namespace = story.resource.metadata.namespace
    first = story.bootstrap()
    second = _candidate(story)
    seen = set()
    while (status := story.status).rollout is not None or status.champion.version != second:  # type: ignore[union-attr]
        story.judge({first: 0.4, second: 0.05})
        seen.add(_status(cluster, namespace)["traffic"])
    # It may be promoted from any step, where the evidence is strong: how many are seen is chance.
    assert f"{first} 95 %, {second} 5 %" in seen
    third = _candidate(story)
    story.until(lambda status: bool(status.rollout and status.rollout.weight == 5))
    while story.status.rollout is not None:
        story.judge({second: 0.05, third: 0.9}, per_second=60)
    story.until(lambda status: _status(cluster, namespace)["traffic"] == f"{second} 100 %")
    assert _status(cluster, namespace)["champion"] == second


def _candidate(story: OperatorLoopBench) -> str:
    story.ask("retrain", reason="a test's", force=True)
    story.until(lambda status: status.run is not None)
    run = story.started()
    story.propose(story.claim(run))
    story.until(lambda status: status.rollout is not None)
    return run


def _object(cluster: KubernetesCluster, namespace: str) -> Manifest | None:
    return cluster.get(MODEL, namespace, "phones")


def _status(cluster: KubernetesCluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (_object(cluster, namespace) or {}).get("status", {})
    return found


def _answer(cluster: KubernetesCluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = _status(cluster, namespace).get("requests", {}).get("retrain", {})
    return found if "answer" in found else {}


def _condition(cluster: KubernetesCluster, namespace: str, kind: str, reason: str) -> dict[str, Any]:
    conditions = _status(cluster, namespace).get("conditions", [])
    return next((one for one in conditions if (one["type"], one["reason"]) == (kind, reason)), {})


def _all(found: list[str], count: int) -> list[str]:
    return found if len(found) == count else []
