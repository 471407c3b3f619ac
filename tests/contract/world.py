"""A driver of a cluster, and a world around it in memory in which anything may go wrong between two calls."""

from collections.abc import Sequence
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.rollout.auto import KNATIVE_SERVICE
from tidemill.rollout.driver import TrafficDriver, TrafficSeen, TrafficWanted
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import HTTP_ROUTE, Gateway
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.rollout.kserve import CONFIG_MAP, INFERENCE_SERVICE, REVISION, version_of
from tidemill.testing.clock import ManualClock
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.knative import PlayedKnative, PlayedKServeOnKnative
from tidemill.testing.kserve import PlayedGateway, PlayedKServe, Servers
from tidemill.testing.loop import Crash, Crashing, example_resource
from tidemill.testing.traffic import wanted_shares

KINDS = (INFERENCE_SERVICE, HTTP_ROUTE, REVISION, CONFIG_MAP, KNATIVE_SERVICE)


class World:
    """A driver that can be killed and started anew, on an API server in memory with its surroundings played."""

    def __init__(self, kind: str) -> None:
        self.kind, self.clock, self.servers, self.fuse = kind, ManualClock(), Servers(), [0]
        self.cluster = InMemoryCluster()
        others = self.cluster.as_manager("controllers")
        self.gateway = PlayedGateway(others)
        self.players: Sequence[Any] = (
            (PlayedKServe(others, self.servers), self.gateway)
            if kind == "gateway"
            else (PlayedKServeOnKnative(others, self.servers), PlayedKnative(others, self.servers))
        )
        self.restart()

    def restart(self) -> None:
        cluster: Cluster = Crashing(self.cluster, self.fuse, ("get", "list", "apply", "delete"))
        self.driver: TrafficDriver = (
            GatewayTrafficDriver(
                cluster, resource=example_resource(), gateway=Gateway("gateways", "public"), clock=self.clock
            )
            if self.kind == "gateway"
            else KnativeTrafficDriver(cluster, resource=example_resource())
        )

    def apply(self, wanted: dict[str, int] | TrafficWanted) -> None:
        try:
            self.driver.apply(wanted if isinstance(wanted, TrafficWanted) else wanted_shares(wanted))
        except Crash:
            self.restart()

    def play(self) -> None:
        for player in self.players:
            player.play()
        self.clock.advance(6)

    def ask(self, shares: dict[str, int], times: int = 8) -> TrafficSeen:
        """Ask as control does, until everything has had its time."""
        for _ in range(times):
            self.apply(shares)
            self.play()
        return self.observe()

    def observe(self) -> TrafficSeen:
        try:
            return self.driver.observe()
        except Crash:
            self.restart()
            return self.driver.observe()

    def shares(self) -> dict[str, int]:
        return {one.version: one.share for one in self.observe().revisions}

    def objects(self) -> dict[str, Manifest]:
        """What is there, without what tells one life from another."""
        return {
            f"{kind.kind} {found['metadata']['name']}": found for kind in KINDS for found in self.cluster.list(kind)
        }

    def edit(self, shares: dict[str, int]) -> None:
        """What a person does with kubectl, where this driver keeps the split."""
        others = self.cluster.as_manager("kubectl-edit")
        if self.kind == "knative":
            (found,) = self.cluster.list(INFERENCE_SERVICE)
            percent = shares.get(version_of(found), 0)
            spec: dict[str, Any] = {"predictor": {"canaryTrafficPercent": percent}}
            others.apply(_part(found, spec), INFERENCE_SERVICE, force=True)
            return
        (found,) = self.cluster.list(HTTP_ROUTE)
        rules = found["spec"]["rules"]
        backends = [
            rules[0]["backendRefs"][0] | {"name": f"phone-inspection-{version}-predictor", "weight": share}
            for version, share in sorted(shares.items())
        ]
        others.apply(_part(found, {"rules": [rules[0] | {"backendRefs": backends}]}), HTTP_ROUTE, force=True)


def _part(found: Manifest, spec: dict[str, Any]) -> Manifest:
    meta = {name: found["metadata"][name] for name in ("name", "namespace")}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": meta, "spec": spec}
