"""The operator: the same service that runs the loops of one machine, over a cluster's store, drivers and objects."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.cluster.watched import WatchedCluster
from tidemill.control.cluster_events import EVENT, event_of
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, MODEL, REVISION
from tidemill.control.cluster_objects import OPTIONAL
from tidemill.control.cluster_provision import ClusterProvisioner
from tidemill.control.cluster_requests import asked_in, request_of
from tidemill.control.cluster_status import Condition
from tidemill.control.cluster_store import ClusterResourceStore
from tidemill.control.protocols import StoredModel
from tidemill.control.service import Service
from tidemill.control.state import LoopStatus
from tidemill.control.tick import Loop
from tidemill.control.watching import Login, watching
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import SpecError, TidemillError, Unsupported
from tidemill.core.ids import model_id
from tidemill.core.settings import Settings
from tidemill.core.telemetry import get_logger
from tidemill.events.records import Decision, Request
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.spec.model import ContinualModel

__all__ = ["WATCHED", "Operator"]

_log = get_logger(__name__)

WATCHED = (MODEL, CONFIG_MAP, DEPLOYMENT, JOB, INFERENCE_SERVICE, HTTP_ROUTE, REVISION, *OPTIONAL)
"""Kinds that are watched, as far as the API server knows them."""

_REST_S = 5.0
"""Between two turns of a model of which nothing is seen to change: its signals and requests come by the log."""
_PROVIDE_EVERY_S = 60.0
_LOOK_AGAIN_S = 600.0


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
        login: where the API server is and who asks, for the watches.
        namespace: whose models it runs; None: those of all.
    """

    cluster: Cluster
    settings: Settings
    clock: Clock
    send: Callable[[ContinualModel, Request], None]
    ensure_topics: Callable[[dict[str, int], int | None], None]
    loop: Callable[[StoredModel, ClusterResourceStore, Cluster], Loop]
    login: Login
    namespace: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Watch and go round until `stop` is set, or until what the API server serves is no longer what is watched.

        Raises `Unsupported` where the CRD is not installed.
        """
        if not self.cluster.serves(MODEL):
            raise Unsupported(
                "this API server knows no ContinualModel", hint="install the chart, or `kubectl apply` its CRD"
            )
        kinds = self._served()
        memory = WatchedCluster(self.cluster, kinds, whole=(MODEL,))
        memory.fill(self.namespace)
        service = self.service(memory)
        threads = [
            watching(memory, kinds, wake=service.wake, login=self.login, namespace=self.namespace, stop=stop),
            threading.Thread(target=self._look_again, args=(memory, kinds, stop), name="looking", daemon=True),
        ]
        threads[1].start()
        try:
            service.run(stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)

    def service(self, cluster: Cluster) -> Service:
        """The service, over an API server whose reads are cheap."""
        troubles: dict[str, str] = {}
        heard: dict[str, frozenset[str]] = {}
        """The decisions that have been told as Events, of those that a status still carries."""
        told: list[ClusterProvisioner] = []

        def conditions(model: str) -> list[Condition]:
            return [_operating(troubles.get(model)), *(told[0].conditions(model) if told else ())]

        store = ClusterResourceStore(cluster, self.clock, namespace=self.namespace, conditions=conditions, refuses=True)
        provisioner = ClusterProvisioner(
            cluster,
            self.settings,
            ensure_topics=self.ensure_topics,
            leaving=store.leaving,
            end=lambda manifest: self._end(manifest, store, cluster),
            clock=self.clock,
            tell=store.retell,
        )
        told.append(provisioner)

        def after(stored: StoredModel, status: LoopStatus) -> None:
            model = stored.resource.id
            troubles.pop(model, None)
            self._tell(stored, status, cluster, store, heard.get(model, frozenset()))
            heard[model] = frozenset(one.decision_id for one in status.outbox)

        def failed(model: str, error: Exception) -> None:
            if not isinstance(error, SpecError):  # that stands in the status, under its own name
                troubles[model] = error.message if isinstance(error, TidemillError) else repr(error)[:1000]
                with suppress(TidemillError):  # an API server that is down is told of nothing
                    store.retell(model)

        return Service(
            store,
            ids=store.ids,
            provisioner=provisioner,
            loop=lambda stored: self.loop(stored, store, cluster),
            clock=self.clock,
            rest_s=_REST_S,
            provide_every_s=_PROVIDE_EVERY_S,
            before=lambda stored: self._pass_on(stored, store, cluster),
            after=after,
            failed=failed,
            withdraws=False,
        )

    def _served(self) -> list[Kind]:
        return [kind for kind in WATCHED if self.cluster.serves(kind)]

    def _look_again(self, memory: WatchedCluster, kinds: list[Kind], stop: threading.Event) -> None:
        """Now and then, read all that is watched: a watch that broke may have missed a deletion."""
        while not stop.wait(_LOOK_AGAIN_S):
            try:
                memory.fill(self.namespace)
                served = self._served()
            except TidemillError as error:
                _log.info("the API server could not be looked at", error=error.message)
                continue
            except Exception:  # this thread is to look again, whatever it met
                _log.exception("the API server could not be looked at")
                continue
            if served != kinds:
                _log.warning("other kinds are served than are watched: this process ends, to be started again")
                stop.set()

    def _end(self, manifest: Manifest, store: ClusterResourceStore, cluster: Cluster) -> None:
        """Take back the traffic and the runs of a model that is being deleted."""
        meta = manifest["metadata"]
        try:
            loop = self.loop(store.get(model_id(meta["namespace"], meta["name"])), store, cluster)
        except SpecError:
            return  # it never ran in this form; what it made before goes with its owner
        try:
            loop.withdraw()
        finally:
            loop.close()

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

    def _tell(
        self,
        stored: StoredModel,
        status: LoopStatus,
        cluster: Cluster,
        store: ClusterResourceStore,
        heard: frozenset[str],
    ) -> None:
        """Decisions of this turn as Events, and as answers to the annotations that asked for them."""
        meta = stored.resource.metadata
        manifest = cluster.get(MODEL, meta.namespace, meta.name)
        if manifest is None:
            return
        store.retell(stored.resource.id)
        for decision in status.outbox:
            if decision.decision_id not in heard:
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


def _operating(trouble: str | None) -> Condition:
    if trouble is None:
        return Condition(type="Operating", status=True, reason="TurnsGoWell")
    return Condition(type="Operating", status=False, reason="TurnFailed", message=trouble[:1000])
