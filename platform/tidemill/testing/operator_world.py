"""A model's life on a cluster that is all in memory: API server, KServe, a gateway, and the operator that may die."""

from collections.abc import Callable, Sequence
from typing import Any

from tidemill.cluster import Cluster, Kind, Manifest
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

__all__ = ["WRITES", "OperatorWorld", "World"]

WRITES = ("apply", "delete")
"""The calls by which an operator changes anything."""


class World:
    """One model, `phones`, on any cluster. With `fuse` set to [n], the operator dies after its n-th write to it.

    Attributes:
        cluster: the API server, as an administrator sees it.
        namespace: of the model.
        bench: its loop, as the operator runs it.
        fuse: see above; it counts on below 0.
        again: so many writes after each death the operator dies again; 0: it lives.
        deaths: how often it has died.
    """

    cluster: Cluster
    bench: OperatorLoopBench
    namespace = "default"
    again = 0
    deaths = 0

    def __init__(self) -> None:
        self.fuse = [0]
        self.servers = Servers()

    @property
    def status(self) -> dict[str, Any]:
        """The status of the model's object, as people see it."""
        found = self.cluster.get(MODEL, self.namespace, "phones") or {}
        status: dict[str, Any] = found.get("status", {})
        return status

    def objects(self, kind: Kind, **labels: str) -> Sequence[Manifest]:
        """Those of the model's namespace."""
        return self.cluster.list(kind, self.namespace, labels=labels)

    def candidate(self) -> str:
        """The next version is on its way to serve; returns it."""
        self.bench.ask("retrain", reason="a test's", force=True)
        self.bench.until(lambda status: status.run is not None)
        run = self.bench.started()
        self.bench.propose(self.bench.claim(run))
        return run

    def judged(
        self, condition: Callable[[LoopStatus], bool], errors: dict[str, float], *, per_second: int = 20
    ) -> LoopStatus:
        """Requests are answered and labelled until the status is as wished."""
        return self.bench.judged_until(condition, errors, per_second=per_second)

    def delete(self) -> None:
        """Delete the model, and let the operator let go of it."""
        raise NotImplementedError

    def light_fuse(self) -> None:
        """Where the operator has died and is to die again, the next fuse is lit."""
        if self.again and self.fuse[0] <= 0:
            self.fuse[0] = self.again
            self.deaths += 1

    def servers_start(self) -> None:
        """Every version that is asked for becomes ready."""
        for one in self.objects(INFERENCE_SERVICE):
            self.servers.become_ready(one["metadata"]["labels"]["tidemill.dev/version"])

    def by_gateway(self, stored: StoredModel, cluster: Cluster) -> TrafficDriver:
        """The driver that splits traffic by an HTTPRoute."""
        return GatewayTrafficDriver(
            cluster,
            resource=stored.resource,
            gateway=Gateway("gateways", "public"),
            clock=self.bench.clock,
            owner=owner_of(stored.resource, cluster),
        )


class OperatorWorld(World):
    """All in memory."""

    cluster: InMemoryCluster

    def __init__(self) -> None:
        super().__init__()
        self.cluster = InMemoryCluster(unknown=(KAFKA_TOPIC, SCALED_OBJECT))
        others = self.cluster.as_manager("played")
        self._players = PlayedKServe(others, self.servers), PlayedGateway(others)
        operator: Any = Crashing(self.cluster, self.fuse, WRITES)
        people = self.cluster.as_manager("kubectl")
        resource = example_resource("phones")
        self.bench = OperatorLoopBench(people, operator, resource, driver=self.by_gateway, play=self._play)

    def delete(self) -> None:
        """Delete the model, as the API server does with an object that has finalizers."""
        marked = {"metadata": {"name": "phones", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        self.cluster.as_manager("server").apply(marked, MODEL)
        for _ in range(3):
            self.bench.turn(5)

    def _play(self) -> None:
        self.light_fuse()
        self.servers_start()
        for player in self._players:
            player.play()
