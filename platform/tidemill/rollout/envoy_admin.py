"""What Envoy really works with, read from its admin interface: routes, clusters, counters."""

import re
from typing import Any, cast

import httpx
import msgspec

from tidemill.core.errors import Unavailable
from tidemill.rollout.envoy_files import cluster_name
from tidemill.stack.envoy import ROUTE_NAME

__all__ = ["ClusterCounters", "EnvoyAdmin"]


class ClusterCounters(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's counters since Envoy knows it. `p99_ms` is over Envoy's last interval (5 s)."""

    requests: int = 0
    errors: int = 0
    active: int = 0
    p99_ms: float | None = None


class EnvoyAdmin:
    """Reads one Envoy. Raises `Unavailable` where it does not answer."""

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._url = url
        # Not through a proxy that the environment names: this is the same machine.
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def weights(self, model: str) -> dict[str, int]:
        """The weights of a model's versions in the routes that Envoy uses; empty where it answers 503 by itself."""
        return _weights(model, self._route(model))

    def mirror(self, model: str) -> str | None:
        """The version to which the routes that Envoy uses send copies."""
        mirrors = self._route(model).get("route", {}).get("request_mirror_policies", [])
        return next((str(one["cluster"]).removeprefix(cluster_name(model, "")) for one in mirrors), None)

    def clusters(self, model: str) -> set[str]:
        """The versions whose clusters Envoy knows."""
        configs = self._get("/config_dump", resource="dynamic_active_clusters").get("configs", [])
        names = (one["cluster"]["name"] for one in configs if "cluster" in one)
        prefix = cluster_name(model, "")
        return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}

    def counters(self, model: str) -> dict[str, ClusterCounters]:
        """Counters by version."""
        prefix = f"cluster.{cluster_name(model, '')}"
        wanted = "upstream_rq_(total|completed|5xx|active|time)"
        found = self._get("/stats", format="json", filter=f"^{re.escape(prefix)}.*\\.{wanted}$").get("stats", [])
        values: dict[str, dict[str, Any]] = {}
        for one in found:
            if "histograms" in one:
                for name, p99 in _percentiles(one["histograms"]):
                    _put(values, prefix, name, p99)
            else:
                _put(values, prefix, one["name"], one["value"])
        return {version: _counters(stats) for version, stats in values.items()}

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def _route(self, model: str) -> dict[str, Any]:
        """The first of a model's routes, which all say the same; empty where there is none."""
        configs = self._get("/config_dump", resource="dynamic_route_configs").get("configs", [])
        for config in (one["route_config"] for one in configs if "route_config" in one):
            if config.get("name") != ROUTE_NAME:
                continue
            for route in (route for host in config.get("virtual_hosts", []) for route in host.get("routes", [])):
                if route.get("name") == model:
                    return cast("dict[str, Any]", route)
        return {}

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        try:
            answer = self._http.get(path, params=query).raise_for_status().content
            return cast("dict[str, Any]", msgspec.json.decode(answer))
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise Unavailable(f"Envoy does not answer at {self._url}: {error}", hint="see `tidemill status`") from error


def _weights(model: str, route: dict[str, Any]) -> dict[str, int]:
    prefix = cluster_name(model, "")
    clusters = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    return {one["name"].removeprefix(prefix): int(one.get("weight", 0)) for one in clusters}


def _percentiles(histograms: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The 99th percentile of each histogram's last interval."""
    quantiles = histograms.get("supported_quantiles", [])
    if 99 not in quantiles:
        return []
    at = quantiles.index(99)
    return [(one["name"], one["values"][at]["interval"]) for one in histograms.get("computed_quantiles", [])]


def _put(values: dict[str, dict[str, Any]], prefix: str, name: str, value: Any) -> None:
    version, _, stat = name.removeprefix(prefix).rpartition(".")
    values.setdefault(version, {})[stat] = value


def _counters(stats: dict[str, Any]) -> ClusterCounters:
    active = int(stats.get("upstream_rq_active", 0))
    return ClusterCounters(
        # A copy that is dropped, as too many are in hand, has failed without ever being sent.
        requests=max(int(stats.get("upstream_rq_total", 0)), int(stats.get("upstream_rq_completed", 0)) + active),
        errors=int(stats.get("upstream_rq_5xx", 0)),
        active=active,
        p99_ms=stats.get("upstream_rq_time"),
    )
