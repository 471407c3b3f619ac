"""The HTTPRoute of a model (Gateway API v1): what it says, what its gateway has taken on, and who has edited it.

All that is stated of it is kept in an annotation beside it, in the same call. An edit is what is not so any more;
field managers alone do not tell it, as one who takes an edit back stays the fields' manager.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.api import MANAGER
from tidemill.core.errors import InvalidInput
from tidemill.rollout.kserve import labels_of
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import MIRROR_HEADER, served_name

__all__ = [
    "HTTP_ROUTE",
    "Buckets",
    "Gateway",
    "Mirror",
    "Split",
    "edit_of",
    "http_route",
    "is_taken_on",
    "mirror_of",
    "route_name",
    "services_of",
    "wanted_of",
    "weights_of",
]

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


class Buckets(NamedTuple):
    """Requests whose `header` says a bucket, 0 to 99, go by it: `first` has as many of them as its share.

    Whatever stands before the gateway writes the header, as a hash of a user's key; which buckets come first follows
    from the salt, so that other users are first in the next rollout.
    """

    header: str
    salt: str
    first: str
    """The Service."""


class Mirror(NamedTuple):
    """Who gets a copy of each request."""

    version: str
    service: str


class Split(NamedTuple):
    """Who gets what."""

    weights: Mapping[str, int]
    """Percent by Service; none: every request is answered 500 by the gateway."""
    buckets: Buckets | None = None
    mirror: Mirror | None = None


def route_name(resource: ContinualModel) -> str:
    """`<model>-tidemill`: KServe's own routes are called like its services, and a user may have one of this name."""
    return f"{resource.metadata.name}-tidemill"


def http_route(
    resource: ContinualModel,
    gateway: Gateway,
    split: Split,
    *,
    wanted: str,
    owner: Mapping[str, Any] | None = None,
) -> Manifest:
    """The route that shares out a model's requests.

    Each field that the API server would fill in is named, so that what is stored is what was stated.

    Args:
        resource: the model.
        gateway: who takes the requests.
        split: who gets what.
        wanted: the decision it follows from, in one line.
        owner: `ownerReferences` entry of the ContinualModel.
    """
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": gateway.namespace,
        "name": gateway.name,
    }
    spec: dict[str, Any] = {"parentRefs": [parent], "rules": _rules(resource, split)}
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


def _rules(resource: ContinualModel, split: Split) -> list[dict[str, Any]]:
    """The rules of buckets, which a gateway prefers as they match more, and the one for all other requests, last."""
    name, filters = served_name(resource), _filters(split.mirror)
    rules = [_rule(name, split.weights, filters)]
    buckets, share = split.buckets, split.weights.get(split.buckets.first, 0) if split.buckets else 0
    if buckets is None or not 0 < share < 100:
        return rules
    order = _shuffled(buckets.salt)
    others = {service: weight for service, weight in split.weights.items() if service != buckets.first}
    first = _rule(name, {buckets.first: 100}, filters, header=(buckets.header, order[:share]))
    return [first, _rule(name, others, filters, header=(buckets.header, order[share:])), *rules]


def _filters(mirror: Mirror | None) -> list[dict[str, Any]]:
    """Copies, and the header that tells them; no client may send it, even where no copies are declared any more.

    A server that was started while they were still believes it.
    """
    if mirror is None:
        change: dict[str, Any] = {"remove": [MIRROR_HEADER]}
        return [{"type": "RequestHeaderModifier", "requestHeaderModifier": change}]
    change = {"set": [{"name": MIRROR_HEADER, "value": mirror.version}]}
    return [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": change},
        {"type": "RequestMirror", "requestMirror": {"backendRef": _backend(mirror.service)}},
    ]


def _rule(
    name: str,
    weights: Mapping[str, int],
    filters: list[dict[str, Any]],
    header: tuple[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    return {
        "matches": [match | ({"headers": [_is_one_of(*header)]} if header else {}) for match in _matches(name)],
        "backendRefs": [
            _backend(service) | {"weight": weight} for service, weight in sorted(weights.items()) if weight
        ],
        "filters": filters,
    }


def _matches(name: str) -> list[dict[str, Any]]:
    """V1 and V2 of a model. A prefix ends at a slash, so that V1's colon needs a match of its own."""
    paths = {f"/v1/models/{name}": "Exact", f"/v1/models/{name}:predict": "Exact", f"/v2/models/{name}": "PathPrefix"}
    return [{"path": {"type": kind, "value": path}} for path, kind in paths.items()]


def _is_one_of(header: str, buckets: Sequence[int]) -> dict[str, str]:
    pattern = "|".join(str(bucket) for bucket in sorted(buckets))
    return {"type": "RegularExpression", "name": header, "value": f"^({pattern})$"}


def _shuffled(salt: str) -> list[int]:
    """The buckets in an order of this rollout's own: raising a share adds to its buckets and takes none away."""
    return sorted(range(100), key=lambda bucket: hashlib.sha256(f"{salt}\x1f{bucket}".encode()).digest())


def _backend(service: str) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": service, "port": _PORT}


def weights_of(route: Manifest) -> dict[str, int]:
    """What is stored: percent by Service. Weights that somebody else has written need not add up to 100."""
    rules = route["spec"].get("rules") or [{}]
    backends = rules[-1].get("backendRefs") or []
    total = sum(int(one.get("weight", 1)) for one in backends)
    return {one["name"]: round(100 * int(one.get("weight", 1)) / total) for one in backends} if total else {}


def mirror_of(route: Manifest) -> str | None:
    """The Service that gets copies of the requests."""
    rules = route["spec"].get("rules") or [{}]
    filters = (one for one in rules[-1].get("filters") or [] if one.get("type") == "RequestMirror")
    return next((str(one["requestMirror"]["backendRef"]["name"]) for one in filters), None)


def services_of(route: Manifest) -> set[str]:
    """Every Service that a request may reach, a copy included."""
    rules = route["spec"].get("rules") or []
    named = {one["name"] for rule in rules for one in rule.get("backendRefs") or [] if one.get("weight", 1)}
    return named | ({mirror} if (mirror := mirror_of(route)) else set())


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
