"""Envoy's routes and clusters, written from what each model wants. Pure, but for `replace_files`.

Every model keeps one file (`Routed`); routes and clusters are made from all of them, so that the drivers of
several models share one proxy.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core.files import write_atomically
from tidemill.rollout.driver import Sticky
from tidemill.spec.paths import MIRROR_HEADER
from tidemill.stack.envoy import CLUSTERS_FILE, ROUTE_NAME, ROUTES_FILE, no_routes, resources
from tidemill.stack.ports import HOST

__all__ = ["Kept", "Routed", "cluster_name", "replace_files"]

_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TIMEOUT = "15s"
"""For one answer; a server that hangs longer has failed, and is counted as failing."""
_IDLE = "30s"
"""Shorter than the server's own keep-alive, so that no request is sent into a connection that it closes."""


_MOST_COPIES = 128
"""Copies that a version may have in hand, more than a burst: what comes while it hangs is dropped, and none of it fills
the proxy."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A version that has a server: wanted, or drained until its last request is answered."""

    version: str
    artifact: str
    port: int
    share: int
    """What is asked for, in percent."""
    wanted: bool = True
    out_since: int | None = None
    """Since when no route has led to it any more, in milliseconds."""


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """One model at the proxy. `weights` is what its routes say: versions that are ready, adding up to 100, or none."""

    model: str
    name: str
    revisions: tuple[Kept, ...] = ()
    weights: dict[str, int] = {}
    sticky: Sticky | None = None
    mirror: str | None = None
    """The version that gets copies; it is ready, and has no weight."""


def cluster_name(model: str, version: str) -> str:
    """The name of a version's cluster: `<model id>/<version>`."""
    return f"{model}/{version}"


def replace_files(folder: Path, models: Iterable[Routed]) -> None:
    """Write clusters, then routes, where they differ from what is there; Envoy watches both."""
    listed = sorted(models, key=lambda routed: routed.model)
    clusters = [_cluster(routed, kept) for routed in listed for kept in routed.revisions]
    _replace(folder / CLUSTERS_FILE, resources(*clusters))
    _replace(folder / ROUTES_FILE, resources(_routes(listed)))


def _replace(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        write_atomically(path, text)


def _routes(models: list[Routed]) -> dict[str, Any]:
    found = no_routes()
    (host,) = found["virtual_hosts"]
    others = [_answer(404, {"error": "no such model", "models": [routed.name for routed in models]}, {"prefix": "/"})]
    host["routes"] = [route for routed in models for route in _model_routes(routed)] + (
        others if models else host["routes"]
    )
    # Servers name their own content type; only the proxy's own answers lack one.
    found["response_headers_to_add"][0]["append_action"] = "ADD_IF_ABSENT"
    return found | {"name": ROUTE_NAME}


def _model_routes(routed: Routed) -> list[dict[str, Any]]:
    """One route per protocol, under the model's id; without a ready version both answer 503."""
    name = re.escape(routed.name)
    matches = [
        {"safe_regex": {"regex": rf"/v1/models/{name}(:[a-z]+)?"}},
        {"safe_regex": {"regex": rf"/v2/models/{name}(/.*)?"}},
    ]
    if not routed.weights:
        body = {"error": f"{routed.name} is not ready: no version of it can answer yet", "hint": "tidemill status"}
        return [_answer(503, body, match) for match in matches]
    clusters = [
        {"name": cluster_name(routed.model, version), "weight": weight} for version, weight in _in_order(routed)
    ]
    split, told = _split(clusters, routed.sticky), _told_copies(routed.mirror)
    routes = [{"name": routed.model, "match": match, "route": split | _action(routed), **told} for match in matches]
    if routed.sticky is None:
        return routes
    # A header that is there and empty is no key: else all who have none would be one user.
    empty = {"headers": [{"name": routed.sticky.header, "string_match": {"exact": ""}}]}
    chance = _split(clusters, None) | _action(routed)
    return [one | {"match": one["match"] | empty, "route": chance} for one in routes] + routes


def _action(routed: Routed) -> dict[str, Any]:
    """What happens to a request, whoever it is sent to."""
    action: dict[str, Any] = {
        "timeout": _TIMEOUT,
        # Only what has not reached a server is sent again.
        "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
    }
    if routed.mirror is not None:
        # Sent and forgotten: no answer waits for that of a copy.
        action["request_mirror_policies"] = [{"cluster": cluster_name(routed.model, routed.mirror)}]
    return action


def _told_copies(mirror: str | None) -> dict[str, Any]:
    """The header by which copies are told, set on each request and so on its copy; no client may send it."""
    if mirror is None:
        return {"request_headers_to_remove": [MIRROR_HEADER]}
    added = {"header": {"key": MIRROR_HEADER, "value": mirror}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"request_headers_to_add": [added]}


def _in_order(routed: Routed) -> list[tuple[str, int]]:
    """Versions and their weights: Envoy gives the lowest buckets to the first."""
    first = routed.sticky.first if routed.sticky else None
    return sorted(routed.weights.items(), key=lambda one: (one[0] != first, one[0]))


def _split(clusters: list[dict[str, Any]], sticky: Sticky | None) -> dict[str, Any]:
    """By chance; or by the hash of a header, modulo the weights' sum of 100. Without the header it is chance again."""
    if sticky is None:
        return {"weighted_clusters": {"clusters": clusters}}
    salted = {"pattern": {"regex": "^(.*)$"}, "substitution": f"{sticky.salt}:\\1"}
    return {
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": sticky.header, "regex_rewrite": salted}}],
    }


def _answer(status: int, body: dict[str, Any], match: dict[str, Any]) -> dict[str, Any]:
    return {"match": match, "direct_response": {"status": status, "body": {"inline_string": json.dumps(body)}}}


def _cluster(routed: Routed, kept: Kept) -> dict[str, Any]:
    name = cluster_name(routed.model, kept.version)
    address = {"socket_address": {"address": HOST, "port_value": kept.port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    options = {
        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
        "common_http_protocol_options": {"idle_timeout": _IDLE},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    found = {
        "@type": _CLUSTER,
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
    }
    if kept.version == routed.mirror:
        found["circuit_breakers"] = {
            "thresholds": [dict.fromkeys(("max_requests", "max_pending_requests"), _MOST_COPIES)]
        }
    return found
