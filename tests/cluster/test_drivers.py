"""The drivers of a cluster on a real API server with KServe's real controller; a gateway and Knative are played."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.cluster.kubernetes_api import KubernetesCluster
from tidemill.rollout.driver import Sticky, TrafficDriver, TrafficSeen, TrafficWanted
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import HTTP_ROUTE, Gateway, route_name
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.rollout.kserve import CONFIG_MAP, INFERENCE_SERVICE, REVISION, VERSION
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock
from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.knative import PlayedKnative
from tidemill.testing.kserve import PlayedGateway, Servers
from tidemill.testing.kserve_controller import RUNTIME, serving_runtime
from tidemill.testing.loop import Crash, Crashing, example_resource
from tidemill.testing.traffic import wanted_shares

pytestmark = pytest.mark.slow

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SERVICE = Kind("v1", "Service", "services")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
LEFT = (INFERENCE_SERVICE, HTTP_ROUTE, DEPLOYMENT, SERVICE, REVISION)


class Site:
    """A namespace of its own, a driver in it that can be killed, and who plays the parts that are not there."""

    def __init__(self, plane: ControlPlane, cluster: KubernetesCluster, namespace: str, kind: str) -> None:
        self.plane, self.cluster, self.namespace, self.kind = plane, cluster, namespace, kind
        self.servers, self.fuse, self.clock = Servers(), [0], ManualClock()
        self.resource = _resource(namespace)
        others = KubernetesCluster(cluster._api, manager="played")
        self.player = (
            PlayedGateway(others, namespace) if kind == "gateway" else PlayedKnative(others, self.servers, namespace)
        )
        cluster.apply(_named(NAMESPACE, namespace, None), NAMESPACE)
        self.restart()

    def restart(self) -> None:
        cluster: Cluster = Crashing(self.cluster, self.fuse, ("apply", "delete"))
        self.driver: TrafficDriver = (
            GatewayTrafficDriver(
                cluster, resource=self.resource, gateway=Gateway("gateways", "public"), clock=self.clock
            )
            if self.kind == "gateway"
            else KnativeTrafficDriver(cluster, resource=self.resource)
        )

    def step(self, shares: dict[str, int]) -> TrafficSeen:
        try:
            self.driver.apply(wanted_shares(shares))
        except Crash:
            self.restart()
        self.player.play()
        self.clock.advance(4)
        return self.driver.observe()

    def until(self, shares: dict[str, int], told: Callable[[TrafficSeen], Any] | None = None) -> TrafficSeen:
        for version in shares:
            self.servers.become_ready(version)

        def observed() -> TrafficSeen | None:
            seen = self.step(shares)
            holds = told(seen) if told else {one.version: one.share for one in seen.revisions} == shares
            return seen if holds else None

        seen = eventually(observed, 60, every_s=0.2)
        assert seen is not None
        return seen

    def versions(self) -> dict[str, str]:
        """The resource version of each object that the driver has a hand in."""
        kinds = (INFERENCE_SERVICE, HTTP_ROUTE, CONFIG_MAP)
        return {
            f"{kind.kind} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for kind in kinds
            for one in self.cluster.list(kind, self.namespace)
        }

    def left(self) -> list[str]:
        return [
            f"{kind.kind} {one['metadata']['name']}" for kind in LEFT for one in self.cluster.list(kind, self.namespace)
        ]


def _resource(namespace: str) -> ContinualModel:
    resource = example_resource()
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})


def _named(kind: Kind, name: str, namespace: str | None) -> Manifest:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


@pytest.fixture(params=["gateway", "knative"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kserve: ControlPlane, cluster: KubernetesCluster) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def site(kind: str) -> Site:
        made.append(Site(kserve, cluster, f"drivers-{next(_NUMBERS)}", kind))
        return made[-1]

    yield site
    for one in made:
        cluster.delete(NAMESPACE, None, one.namespace)


_NUMBERS = itertools.count()


def test_a_rollout_its_rollback_and_the_end(make: Callable[..., Site], kind: str) -> None:
    site = make(kind)
    site.until({"v1": 100})
    site.until({"v1": 100, "v2": 0}, lambda seen: (found := seen.revision("v2")) and found.ready)
    for share in (5, 25):
        site.until({"v1": 100 - share, "v2": share})
    site.until({"v2": 100}, lambda seen: [(one.version, one.share) for one in seen.revisions] == [("v2", 100)])
    site.until({"v2": 100, "v3": 0}, lambda seen: (found := seen.revision("v3")) and found.ready)
    site.until({"v2": 75, "v3": 25})
    site.until({"v2": 100, "v3": 0})
    site.until({"v2": 100})
    site.until({})
    eventually(lambda: site.step({}) and not site.left(), 60, every_s=0.2)


def test_asking_again_changes_no_object(make: Callable[..., Site], kind: str) -> None:
    site = make(kind)
    site.until({"v1": 100})
    site.until({"v1": 75, "v2": 25})
    eventually(lambda: _is_at_rest(site), 30, every_s=0.5)
    before = site.versions()
    for _ in range(5):
        site.driver.apply(wanted_shares({"v1": 75, "v2": 25}))
    assert site.versions() == before


def _is_at_rest(site: Site) -> bool:
    before = site.versions()
    site.step({"v1": 75, "v2": 25})
    return site.versions() == before


def test_a_driver_that_dies_on_every_way_ends_where_it_would_have_ended(make: Callable[..., Site], kind: str) -> None:
    """That it may die after any call is shown in memory (tests/contract); here the rest is KServe's own."""
    site, deaths = make(kind), 0
    for number, shares in enumerate(({"v1": 100}, {"v1": 75, "v2": 25}, {"v1": 100}, {})):
        site.fuse[0] = 1 + number % 2
        site.until(shares)
        deaths += site.fuse[0] <= 0
    eventually(lambda: site.step({}) and not site.left(), 60, every_s=0.2)
    assert deaths >= 3


def test_a_persons_edit_is_reported_by_name_and_stands_until_the_next_decision(make: Callable[..., Site]) -> None:
    site = make("gateway")
    site.until({"v1": 100})
    site.until({"v1": 75, "v2": 25})
    path = "/spec/rules/0/backendRefs/0/weight"
    patch = json.dumps([{"op": "replace", "path": path, "value": 1}])
    name = route_name(site.resource)
    site.plane.kubectl("patch", "httproute", name, "--namespace", site.namespace, "--type=json", "--patch", patch)
    seen = site.until({"v1": 75, "v2": 25}, lambda seen: seen.foreign)
    assert "kubectl" in (seen.foreign or "")
    site.until({"v1": 75, "v2": 25}, lambda seen: {one.share for one in seen.revisions} == {4, 96})
    assert site.until({"v1": 100, "v2": 0}).foreign is None


def test_buckets_and_copies_are_stored_as_they_were_stated(make: Callable[..., Site]) -> None:
    site = make("gateway")
    site.until({"v1": 100})
    site.until({"v1": 100, "v2": 0}, lambda seen: (found := seen.revision("v2")) and found.ready)
    driver = GatewayTrafficDriver(
        site.cluster,
        resource=site.resource,
        gateway=Gateway("gateways", "public", ("models.example.com",)),
        clock=site.clock,
        bucket_header="x-bucket",
    )
    revisions, sticky = wanted_shares({"v1": 75, "v2": 25}).revisions, Sticky(header="user", salt="s", first="v2")
    for wanted in (
        TrafficWanted(wanted_shares({"v1": 100, "v2": 0}).revisions, mirror="v2"),
        TrafficWanted(revisions, sticky=sticky),
    ):
        driver.apply(wanted)
        site.player.play()
        seen = driver.observe()
        assert (seen.foreign, seen.mirror) == (None, wanted.mirror)
        assert {one.version: one.share for one in seen.revisions} == {
            one.version: one.share for one in wanted.revisions
        }


@pytest.fixture
def no_runtime(kserve: ControlPlane, cluster: KubernetesCluster) -> Iterator[None]:
    cluster.delete(RUNTIME, None, "tidemill")
    yield
    cluster.apply(serving_runtime(kserve), RUNTIME)


def test_a_version_that_no_runtime_can_serve_says_why(no_runtime: None, make: Callable[..., Site]) -> None:
    site = make("gateway")
    seen = site.until({"v1": 100}, lambda seen: (found := seen.revision("v1")) and found.failed)
    found = seen.revision("v1")
    assert found is not None
    assert (found.failed or "").startswith("RuntimeNotRecognized")
    assert not found.ready


def test_what_a_version_needs_reaches_its_pods(make: Callable[..., Site]) -> None:
    site = make("gateway")
    site.until({"v1": 100})
    (deployment,) = site.cluster.list(DEPLOYMENT, site.namespace)
    template = deployment["spec"]["template"]
    (container,) = (one for one in template["spec"]["containers"] if one["name"] == "kserve-container")
    assert container["args"][-2:] == ["--version", "v1"]
    assert container["args"][0] == "serve"
    assert {"name": "resource", "mountPath": "/etc/tidemill", "readOnly": True} in container["volumeMounts"]
    assert container["resources"]["limits"] == {"memory": "2Gi"}
    assert template["metadata"]["labels"][VERSION] == "v1"
    assert template["spec"]["serviceAccountName"] == "default"
