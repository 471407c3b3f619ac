"""The HTTPRoute of a model (Gateway API v1): what it says, what its gateway has taken on, and who has edited it.

All that is stated of it is kept in an annotation beside it, in the same call. An edit is what is not so any more;
field managers alone do not tell it, as one who takes an edit back stays the fields' manager.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.api import MANAGER
from tidemill.core.errors import InvalidInput
from tidemill.rollout.kserve import labels_of
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import served_name

__all__ = ["HTTP_ROUTE", "Gateway", "edit_of", "http_route", "is_taken_on", "route_name", "wanted_of", "weights_of"]

HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
_APPLIED = "tidemill.dev/applied"
"""The part of the spec that was stated last, as JSON."""
_WANTED = "tidemill.dev/wanted"
"""The decision that it follows from."""
_PORT = 80
"""Of every predictor's Service in KServe."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The Gateway that takes the requests: namespace and name, and the hosts that routes answer to (none: any)."""

    namespace: str
    name: str
    hosts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, hosts: tuple[str, ...] = ()) -> "Gateway":
        """Of `<namespace>/<name>`; raises `InvalidInput` for anything else."""
        namespace, _, name = text.partition("/")
        if not namespace or not name or "/" in name:
            raise InvalidInput(f"{text!r} is no gateway", hint="name it as <namespace>/<name>")
        return cls(namespace, name, hosts)


def route_name(resource: ContinualModel) -> str:
    """`<model>-tidemill`: KServe's own routes are called like its services, and a user may have one of this name."""
    return f"{resource.metadata.name}-tidemill"


def http_route(
    resource: ContinualModel,
    gateway: Gateway,
    weights: Mapping[str, int],
    *,
    wanted: str,
    owner: Mapping[str, Any] | None = None,
) -> Manifest:
    """The route that shares out a model's requests.

    Each field that the API server would fill in is named, so that what is stored is what was stated.

    Args:
        resource: the model.
        gateway: who takes the requests.
        weights: percent by Service; none: every request is answered 500 by the gateway.
        wanted: the decision it follows from, in one line.
        owner: `ownerReferences` entry of the ContinualModel.
    """
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": gateway.namespace,
        "name": gateway.name,
    }
    spec: dict[str, Any] = {"parentRefs": [parent], "rules": [_rule(resource, weights)]}
    if gateway.hosts:
        spec["hostnames"] = list(gateway.hosts)
    meta: dict[str, Any] = {
        "name": route_name(resource),
        "namespace": resource.metadata.namespace,
        "labels": labels_of(resource),
        "annotations": {_APPLIED: json.dumps(spec, sort_keys=True), _WANTED: wanted},
    }
    if owner is not None:
        meta["ownerReferences"] = [dict(owner)]
    return {"apiVersion": HTTP_ROUTE.api_version, "kind": HTTP_ROUTE.kind, "metadata": meta, "spec": spec}


def _rule(resource: ContinualModel, weights: Mapping[str, int]) -> dict[str, Any]:
    return {
        "matches": _matches(served_name(resource)),
        "backendRefs": [_backend(service, weight) for service, weight in sorted(weights.items()) if weight],
    }


def _matches(name: str) -> list[dict[str, Any]]:
    """V1 and V2 of a model. A prefix ends at a slash, so that V1's colon needs a match of its own."""
    paths = {f"/v1/models/{name}": "Exact", f"/v1/models/{name}:predict": "Exact", f"/v2/models/{name}": "PathPrefix"}
    return [{"path": {"type": kind, "value": path}} for path, kind in paths.items()]


def _backend(service: str, weight: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": service, "port": _PORT, "weight": weight}


def weights_of(route: Manifest) -> dict[str, int]:
    """What is stored: percent by Service. Weights that somebody else has written need not add up to 100."""
    found: dict[str, int] = {}
    for rule in route["spec"].get("rules") or []:
        for backend in rule.get("backendRefs") or []:
            found[backend["name"]] = found.get(backend["name"], 0) + int(backend.get("weight", 1))
    total = sum(found.values())
    return {service: round(100 * weight / total) for service, weight in found.items()} if total else {}


def is_taken_on(route: Manifest, gateway: Gateway) -> bool:
    """Whether the gateway has accepted the route as it is stored now, and knows every Service in it."""
    meta = route["metadata"]
    for parent in route.get("status", {}).get("parents") or []:
        ref = parent["parentRef"]
        if (ref.get("namespace", meta.get("namespace")), ref["name"]) != (gateway.namespace, gateway.name):
            continue
        told = {one["type"]: one for one in parent.get("conditions") or []}
        needed = [told.get(kind, {}) for kind in ("Accepted", "ResolvedRefs")]
        if all(
            one.get("status") == "True" and one.get("observedGeneration", 0) >= meta["generation"] for one in needed
        ):
            return True
    return False


def wanted_of(route: Manifest) -> str | None:
    """The decision that it followed from when it was stated last."""
    found: str | None = route["metadata"].get("annotations", {}).get(_WANTED)
    return found


def edit_of(route: Manifest) -> str | None:
    """In words what somebody else has changed of what was stated, or None."""
    meta = route["metadata"]
    try:
        applied = json.loads(meta.get("annotations", {}).get(_APPLIED, "{}"))
    except ValueError:
        applied = {}
    names = sorted({*applied, "parentRefs", "rules", "hostnames"})
    changed = [name for name in names if applied.get(name) != route["spec"].get(name)]
    if not changed:
        return None
    managers = sorted({one["manager"] for one in meta.get("managedFields") or [] if _is_edit(one)})
    by = f" by {', '.join(managers)}" if managers else ""
    shares = ", ".join(f"{service} {weight} %" for service, weight in sorted(weights_of(route).items())) or "nothing"
    return f"HTTPRoute {meta['name']} was edited{by} ({', '.join(changed)}); it now says {shares}"


def _is_edit(managed: Mapping[str, Any]) -> bool:
    return managed["manager"] != MANAGER and not managed.get("subresource") and "f:spec" in managed.get("fieldsV1", {})
