"""A rollout as the operator runs it, over an API server, KServe and a gateway in memory."""

from typing import Any

import pytest

from tidemill.cluster import Cluster
from tidemill.control.cluster_kinds import KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.control.cluster_provision import owner_of
from tidemill.control.protocols import StoredModel
from tidemill.rollout.driver import TrafficDriver
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import HTTP_ROUTE, Gateway
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.kserve import PlayedGateway, PlayedKServe, Servers
from tidemill.testing.loop import example_resource
from tidemill.testing.operator import OperatorLoopBench

PHONES = example_resource("phones")


class World:
    """An API server in memory, and a model on it."""

    def __init__(self) -> None:
        self.cluster = InMemoryCluster(unknown=(KAFKA_TOPIC, SCALED_OBJECT))
        others, servers = self.cluster.as_manager("played"), Servers()
        kserve, gateway = PlayedKServe(others, servers), PlayedGateway(others)

        def play() -> None:
            for one in self.cluster.list(INFERENCE_SERVICE):
                servers.become_ready(one["metadata"]["labels"]["tidemill.dev/version"])
            kserve.play()
            gateway.play()

        def driver(stored: StoredModel, cluster: Cluster) -> TrafficDriver:
            return GatewayTrafficDriver(
                cluster,
                resource=stored.resource,
                gateway=Gateway("gateways", "public"),
                clock=self.bench.clock,
                owner=owner_of(stored.resource, cluster),
            )

        people = self.cluster.as_manager("kubectl")
        self.bench = OperatorLoopBench(people, self.cluster, PHONES, driver=driver, play=play)

    @property
    def status(self) -> dict[str, Any]:
        found = self.cluster.get(MODEL, "default", "phones")
        assert found is not None
        status: dict[str, Any] = found["status"]
        return status


@pytest.fixture
def world() -> World:
    return World()


def candidate(world: World) -> str:
    """The next version is on its way to serve."""
    bench = world.bench
    bench.ask("retrain", reason="a test's")
    bench.tick(2)
    run = bench.started()
    bench.propose(bench.claim(run))
    return run


def test_a_candidate_that_does_well_takes_over_step_by_step(world: World) -> None:
    first = world.bench.bootstrap()
    assert world.status["traffic"] == f"{first} 100 %"
    second = candidate(world)
    seen = set()

    def promoted(status: Any) -> bool:
        seen.add(world.status["traffic"])
        return bool(status.champion and status.champion.version == second and status.rollout is None)

    world.bench.judged_until(promoted, {first: 0.4, second: 0.05})
    assert {f"{first} {100 - share} %, {second} {share} %" for share in (5, 25)} <= seen
    assert world.status["champion"] == second
    assert world.status["previous"] == first
    assert {"phase", "message", "conditions"} <= world.status.keys()


def test_a_candidate_that_does_harm_is_taken_back(world: World) -> None:
    first = world.bench.bootstrap()
    second = candidate(world)
    world.bench.judged_until(
        lambda status: status.rollout is None and status.phase == "Serving", {first: 0.05, second: 0.9}
    )
    world.bench.until(lambda status: len(world.cluster.list(INFERENCE_SERVICE, "default")) == 1)
    assert world.status["champion"] == first
    assert world.status["traffic"] == f"{first} 100 %"


def test_a_deleted_model_takes_its_traffic_with_it(world: World) -> None:
    world.bench.bootstrap()
    marked = {"metadata": {"name": "phones", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    world.cluster.as_manager("server").apply(marked, MODEL)
    for _ in range(3):
        world.bench.clock.advance(5)
        world.bench.bench.service.round()
    assert world.cluster.list(HTTP_ROUTE, "default") == []
    found = world.cluster.get(MODEL, "default", "phones")
    assert found is not None
    assert found["metadata"].get("finalizers", []) == []
