"""What surrounds the drivers of a cluster, played over any API server: KServe's controller, and a gateway.

`play` is one round of a controller: it looks at what is stated and writes what the real one would. On a real API
server with the real KServe only the gateway is left to be played; in memory, both are.
"""

from collections.abc import Mapping
from typing import Any

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.core.errors import Conflict, Unsupported
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE, stated, version_of

__all__ = ["SERVICE", "PlayedGateway", "PlayedKServe", "Servers", "state", "tell", "told"]

SERVICE = Kind("v1", "Service", "services")
_THEN = "2026-01-02T03:04:05Z"
"""When every condition began: no test asks."""


class Servers:
    """What becomes of the versions' servers, as the test says; shared by all who play a part."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.failed: dict[str, str] = {}

    def become_ready(self, version: str) -> None:
        """The version's server answers from now on."""
        self.ready.add(version)

    def become_unready(self, version: str) -> None:
        """It answers no longer."""
        self.ready.discard(version)

    def fail(self, version: str, why: str) -> None:
        """It ends with these words, and does so again."""
        self.ready.discard(version)
        self.failed[version] = why


class PlayedKServe:
    """KServe in Standard mode, as its statuses show it: a Service and conditions for each InferenceService."""

    def __init__(self, cluster: Cluster, servers: Servers, namespace: str = "default") -> None:
        self._cluster, self._servers, self._namespace = cluster, servers, namespace

    def play(self) -> None:
        """Reconcile every InferenceService once."""
        for found in self._cluster.list(INFERENCE_SERVICE, self._namespace):
            state(self._cluster, SERVICE, _service(found))
            tell(self._cluster, INFERENCE_SERVICE, found, self._status(version_of(found)))

    def _status(self, version: str) -> dict[str, Any]:
        ready = version in self._servers.ready
        conditions = [told(kind, ready) for kind in ("PredictorReady", "Ready")]
        model: dict[str, Any] = {"transitionStatus": "UpToDate" if ready else "InProgress"}
        if why := self._servers.failed.get(version):
            model = {
                "transitionStatus": "BlockedByFailedLoad",
                "lastFailureInfo": {"reason": "ModelLoadFailed", "message": f"error: {why}\nhint: none", "exitCode": 3},
            }
        return {"conditions": conditions, "modelStatus": model, "deploymentMode": "Standard"}


class PlayedGateway:
    """The controller of every Gateway: accepts each route as it stands, and looks its Services up."""

    def __init__(self, cluster: Cluster, namespace: str = "default") -> None:
        self._cluster, self._namespace = cluster, namespace
        self.sleeps = False
        """Accepts nothing while true."""

    def play(self) -> None:
        """Look at every HTTPRoute once."""
        if self.sleeps:
            return
        for route in self._cluster.list(HTTP_ROUTE, self._namespace):
            names = {one["name"] for rule in route["spec"]["rules"] for one in rule.get("backendRefs") or []}
            found = all(self._cluster.get(SERVICE, self._namespace, name) for name in names)
            generation = route["metadata"]["generation"]
            conditions = [told(kind, yes, generation) for kind, yes in (("Accepted", True), ("ResolvedRefs", found))]
            parents = [
                {"parentRef": ref, "controllerName": "example.net/played", "conditions": conditions}
                for ref in route["spec"]["parentRefs"]
            ]
            tell(self._cluster, HTTP_ROUTE, route, {"parents": parents})


def told(kind: str, yes: bool | None, generation: int | None = None) -> dict[str, Any]:
    """A condition; None: it is not known yet. With a generation, that of the object it is about."""
    status = "Unknown" if yes is None else str(yes)
    found = {"type": kind, "status": status, "reason": "Played", "message": "", "lastTransitionTime": _THEN}
    return found | ({"observedGeneration": generation} if generation is not None else {})


def _service(found: Manifest) -> Manifest:
    meta = found["metadata"]
    owner = {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    name = f"{meta['name']}-predictor"
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]},
        "spec": {"ports": [{"port": 80}]},
    }


def state(cluster: Cluster, kind: Kind, manifest: Manifest) -> None:
    """State an object, unless it is so already."""
    meta = manifest["metadata"]
    found = cluster.get(kind, meta["namespace"], meta["name"])
    if found is None or not stated(found, manifest):
        cluster.apply(manifest, kind, force=True)


def tell(cluster: Cluster, kind: Kind, found: Manifest, status: Mapping[str, Any]) -> None:
    """Write an object's status, unless it says so already."""
    if stated(found.get("status"), status):
        return
    meta = {"name": found["metadata"]["name"], "namespace": found["metadata"]["namespace"]}
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "status": dict(status)}
    try:
        cluster.apply(manifest, kind, part="status", force=True)
    except (Conflict, Unsupported):  # deleted since it was looked at
        return
