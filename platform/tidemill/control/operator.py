"""The operator: the same service that runs the loops of one machine, over a cluster's store, drivers and objects."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tidemill.cluster import Cluster, Kind
from tidemill.cluster.watched import WatchedCluster
from tidemill.control.cluster_events import EVENT, event_of
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, MODEL
from tidemill.control.cluster_objects import OPTIONAL
from tidemill.control.cluster_provision import ORPHAN, ClusterProvisioner
from tidemill.control.cluster_requests import asked_in, request_of
from tidemill.control.cluster_store import ClusterResourceStore
from tidemill.control.protocols import StoredModel
from tidemill.control.service import Service
from tidemill.control.state import LoopStatus
from tidemill.control.tick import Loop
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import TidemillError, Unsupported
from tidemill.core.settings import Settings
from tidemill.core.telemetry import get_logger
from tidemill.events.records import Decision, Request
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.spec.model import ContinualModel

__all__ = ["WATCHED", "Operator"]

_log = get_logger(__name__)

WATCHED = (MODEL, CONFIG_MAP, DEPLOYMENT, INFERENCE_SERVICE, HTTP_ROUTE, *OPTIONAL)
"""Kinds that are watched, as far as the API server knows them."""

_REST_S = 5.0
"""Between two turns of a model of which nothing is seen to change: its signals and requests come by the log."""


@dataclass(frozen=True)
class Operator:
    """The operator of a cluster, or of one namespace of it.

    Args:
        cluster: the API server.
        settings: the operator's.
        clock: tells the time.
        send: writes a request into a model's log.
        ensure_topics: makes topics through the brokers, where Strimzi is not.
        loop: makes the loop of a model, given the store and the API server with its memory.
        namespace: whose models it runs; None: those of all.
    """

    cluster: Cluster
    settings: Settings
    clock: Clock
    send: Callable[[ContinualModel, Request], None]
    ensure_topics: Callable[[dict[str, int], int | None], None]
    loop: Callable[[StoredModel, ClusterResourceStore, Cluster], Loop]
    namespace: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Watch and go round until `stop` is set. Raises `Unsupported` where the CRD is not installed."""
        from tidemill.control.watching import watching

        if not self.cluster.serves(MODEL):
            raise Unsupported(
                "this API server knows no ContinualModel", hint="install the chart, or `kubectl apply` its CRD"
            )
        kinds = [kind for kind in WATCHED if self.cluster.serves(kind)]
        memory = WatchedCluster(self.cluster, kinds)
        memory.fill(self.namespace)
        service = self.service(memory)
        thread = watching(memory, kinds, wake=service.wake, namespace=self.namespace, stop=stop)
        try:
            service.run(stop)
        finally:
            stop.set()
            thread.join(10)

    def service(self, cluster: Cluster) -> Service:
        """The service, over an API server whose reads are cheap."""
        told: list[ClusterProvisioner] = []
        store = ClusterResourceStore(
            cluster,
            self.clock,
            namespace=self.namespace,
            conditions=lambda model: told[0].conditions(model) if told else (),
            refuses=True,
        )
        provisioner = ClusterProvisioner(
            cluster, self.settings, ensure_topics=self.ensure_topics, leaving=store.leaving
        )
        told.append(provisioner)
        return Service(
            store,
            ids=store.ids,
            provisioner=provisioner,
            loop=lambda stored: self.loop(stored, store, cluster),
            clock=self.clock,
            rest_s=_REST_S,
            before=lambda stored: self._pass_on(stored, store, cluster),
            after=lambda stored, status: self._tell(stored, status, cluster, store),
            leaves=lambda model: _orphaned(model, store),
        )

    def _pass_on(self, stored: StoredModel, store: ClusterResourceStore, cluster: Cluster) -> None:
        """Write what annotations ask for into the log, once for each id."""
        meta, model = stored.resource.metadata, stored.resource.id
        manifest = cluster.get(MODEL, meta.namespace, meta.name)
        if manifest is None:
            return
        asked, problems = asked_in(manifest)
        known = dict(manifest.get("status", {}).get("requests", {}))
        for one in asked:
            if known.get(one.kind, {}).get("id") == one.id:
                continue
            # First into the log, where its id makes a repeat harmless; then into the status, so that none is needed.
            self.send(stored.resource, request_of(one, manifest, model=model, now_ms=to_ms(self.clock.now())))
            known[one.kind] = {"id": one.id, "state": "asked"}
        for problem in problems:
            kind = problem.split(":", 1)[0].rpartition("/")[2]
            known[kind] = {"state": "refused", "answer": problem}
        if known != manifest.get("status", {}).get("requests", {}):
            store.answer(model, known)

    def _tell(self, stored: StoredModel, status: LoopStatus, cluster: Cluster, store: ClusterResourceStore) -> None:
        """Decisions of this turn as Events, and as answers to the annotations that asked for them."""
        meta = stored.resource.metadata
        manifest = cluster.get(MODEL, meta.namespace, meta.name)
        if manifest is None:
            return
        store.retell(stored.resource.id)
        for decision in status.outbox:
            self._event(decision, manifest)
        known = dict(manifest.get("status", {}).get("requests", {}))
        prefix = f"annotation-{manifest['metadata']['uid']}-"
        for decision in status.outbox:
            kind, _, name = (decision.answers or "").removeprefix(prefix).partition("-")
            if (decision.answers or "").startswith(prefix) and known.get(kind, {}).get("id") == name:
                answer = f"{decision.kind}: {decision.reason}"
                known[kind] = {
                    "id": name,
                    "state": "refused" if decision.kind == "refuse" else "answered",
                    "answer": answer[:1000],
                }
        if known != manifest.get("status", {}).get("requests", {}):
            store.answer(stored.resource.id, known)

    def _event(self, decision: Decision, manifest: dict[str, object]) -> None:
        try:
            self.cluster.apply(event_of(decision, manifest), EVENT, force=True)
        except TidemillError as error:  # for people only: the log has it
            _log.info("an Event could not be written", error=error.message)


def _orphaned(model: str, store: ClusterResourceStore) -> bool:
    """Whether a model that is being deleted is to leave its traffic as it is."""
    return any(
        f"{one['metadata']['namespace']}.{one['metadata']['name']}" == model
        and one["metadata"].get("annotations", {}).get(ORPHAN) == "true"
        for one in store.leaving()
    )


def served(cluster: Cluster, kinds: tuple[Kind, ...]) -> list[Kind]:
    """Those kinds that the API server knows."""
    return [kind for kind in kinds if cluster.serves(kind)]
