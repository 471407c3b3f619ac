"""A model's life on a cluster that is all in memory: API server, KServe, a gateway, and the operator that may die."""

from collections.abc import Callable
from typing import Any

from tidemill.cluster import Cluster
from tidemill.control.cluster_kinds import KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.control.cluster_provision import owner_of
from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus
from tidemill.rollout.driver import TrafficDriver
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import Gateway
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.kserve import PlayedGateway, PlayedKServe, Servers
from tidemill.testing.loop import Crashing, example_resource
from tidemill.testing.operator import OperatorLoopBench

__all__ = ["OperatorWorld"]


class OperatorWorld:
    """One model, `default.phones`. With `fuse` set to [n], the operator dies after its n-th write to the API server."""

    def __init__(self) -> None:
        self.cluster = InMemoryCluster(unknown=(KAFKA_TOPIC, SCALED_OBJECT))
        self.fuse = [0]
        others, self.servers = self.cluster.as_manager("played"), Servers()
        self._players = PlayedKServe(others, self.servers), PlayedGateway(others)
        operator: Any = Crashing(self.cluster, self.fuse, ("apply", "delete"))
        people = self.cluster.as_manager("kubectl")
        resource = example_resource("phones")
        self.bench = OperatorLoopBench(people, operator, resource, driver=self._driver, play=self._play)

    @property
    def status(self) -> dict[str, Any]:
        """The status of the model's object, as people see it."""
        found = self.cluster.get(MODEL, "default", "phones") or {}
        status: dict[str, Any] = found.get("status", {})
        return status

    def candidate(self) -> str:
        """The next version is on its way to serve; returns it."""
        self.bench.ask("retrain", reason="a test's")
        self.bench.until(lambda status: status.run is not None)
        run = self.bench.started()
        self.bench.propose(self.bench.claim(run))
        return run

    def judged(self, condition: Callable[[LoopStatus], bool], errors: dict[str, float]) -> LoopStatus:
        """Requests are answered and labelled until the status is as wished."""
        return self.bench.judged_until(condition, errors)

    def delete(self) -> None:
        """Delete the model, as the API server does with an object that has finalizers."""
        marked = {"metadata": {"name": "phones", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        self.cluster.as_manager("server").apply(marked, MODEL)
        for _ in range(3):
            self.bench.clock.advance(5)
            self.bench.bench.service.round()

    def _play(self) -> None:
        for one in self.cluster.list(INFERENCE_SERVICE):
            self.servers.become_ready(one["metadata"]["labels"]["tidemill.dev/version"])
        for player in self._players:
            player.play()

    def _driver(self, stored: StoredModel, cluster: Cluster) -> TrafficDriver:
        return GatewayTrafficDriver(
            cluster,
            resource=stored.resource,
            gateway=Gateway("gateways", "public"),
            clock=self.bench.clock,
            owner=owner_of(stored.resource, cluster),
        )
