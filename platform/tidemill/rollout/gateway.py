"""The traffic driver of any KServe from 0.15 on: an InferenceService per version, and one HTTPRoute over them.

It remembers nothing that it could not find again: versions are told by labels, shares by the route as it is stored
and as its gateway has taken it on. A route that somebody else has edited is reported and left as it is until the
edit is taken back, or until the next decision: whoever decides anew (a person who aborts, a verdict that rolls
back) does so with the edit known, and must be obeyed. An InferenceService that somebody else has edited is reported
and left alone.
"""

from collections.abc import Mapping
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import TidemillError, Unavailable, Unsupported
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted, in_one_line
from tidemill.rollout.http_route import (
    HTTP_ROUTE,
    Buckets,
    Gateway,
    Mirror,
    Split,
    edit_of,
    http_route,
    is_taken_on,
    mirror_of,
    route_name,
    services_of,
    wanted_of,
    weights_of,
)
from tidemill.rollout.kserve import (
    INFERENCE_SERVICE,
    MODEL,
    failure,
    find_mine,
    inference_service,
    mode_of,
    name_of,
    says,
    stated,
    version_of,
)
from tidemill.rollout.prometheus import Counted, RevisionMetrics, counts_of
from tidemill.rollout.shares import shares_now
from tidemill.spec.model import ContinualModel

__all__ = ["GatewayTrafficDriver"]

_MODE = "RawDeployment"
"""KServe's Standard mode, by the name that 0.15 knows, too; later versions store it as `Standard`."""
_MODES = frozenset({_MODE, "Standard"})
_DRAIN_MS = 10_000
"""A gateway says that it has accepted a route before its proxies follow it; a version serves on for so long."""


class GatewayTrafficDriver:
    """Implements `TrafficDriver` for one model.

    Args:
        cluster: the API server.
        resource: the model.
        gateway: the Gateway that takes the requests.
        clock: measures how long a version has been out of the route.
        endpoint: base URL of that gateway, for people.
        metrics: who counts requests, errors and latency; None: nobody does.
        bucket_header: request header that says a key's bucket, where something before the gateway writes one.
        owner: `ownerReferences` entry of the ContinualModel, with which everything goes.
    """

    mirrors = True

    def __init__(
        self,
        cluster: Cluster,
        *,
        resource: ContinualModel,
        gateway: Gateway,
        clock: Clock,
        endpoint: str | None = None,
        metrics: RevisionMetrics | None = None,
        bucket_header: str | None = None,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._cluster, self._resource, self._gateway, self._clock = cluster, resource, gateway, clock
        self._endpoint, self._metrics, self._owner = endpoint, metrics, owner
        self._bucket_header, self.sticky = bucket_header, bucket_header is not None
        self._namespace, self._model = resource.metadata.namespace, resource.metadata.name
        self._out_since: dict[str, int] = {}
        """Since when no route leads to a version; a process that starts anew waits anew."""

    def observe(self) -> TrafficSeen:
        """Shares from the route that its gateway has taken on, readiness from the InferenceServices."""
        services, route = self._services(), self._route()
        taken = route is not None and is_taken_on(route, self._gateway)
        weights = weights_of(route) if route is not None and taken else {}
        pods = {version: f"{_service(found)}-.+" for version, found in services.items()}
        counted, unguarded = counts_of(self._metrics, self._namespace, pods)
        seen = tuple(
            _seen(version, found, weights.get(_service(found), 0), counted.get(version, Counted()))
            for version, found in sorted(services.items())
        )
        copied = mirror_of(route) if route is not None and taken else None
        return TrafficSeen(
            seen,
            self._endpoint,
            mirror=next((version for version, found in services.items() if _service(found) == copied), None),
            foreign=edit_of(route) if route is not None else None,
            unguarded=unguarded,
        )

    def apply(self, wanted: TrafficWanted) -> None:
        """State what is wanted; returns at once.

        Raises what the API server refuses of a version only after the route has been seen to: the others go on.
        """
        services, route = self._services(), self._route()
        refused = self._state_versions(wanted, services)
        stored = weights_of(route) if route is not None else {}
        current = {version: stored.get(_service(found), 0) for version, found in services.items()}
        ready = {version for version, found in services.items() if _is_ready(found)}
        shares = shares_now({one.version: one.share for one in wanted.revisions}, ready, current)
        names = {version: _service(found) for version, found in services.items()}
        split = Split(
            {names[version]: share for version, share in shares.items()},
            self._buckets(wanted, names),
            Mirror(wanted.mirror, names[wanted.mirror]) if wanted.mirror in ready else None,
        )
        self._state_route(wanted, route, split)
        self._end(wanted, services, route)
        if refused is not None:
            raise refused

    def close(self) -> None:
        """Nothing is held but what other models share; objects stay as they are."""

    def _state_versions(self, wanted: TrafficWanted, services: Mapping[str, Manifest]) -> TidemillError | None:
        """State each version's InferenceService; returns the first refusal that trying again cannot help."""
        refused = None
        for one in wanted.revisions:
            try:
                self._state_version(one, services.get(one.version))
            except Unavailable:
                raise
            except TidemillError as error:
                refused = refused or error
        return refused

    def _state_version(self, one: RevisionWanted, found: Manifest | None) -> None:
        name = found["metadata"]["name"] if found else name_of(self._model, one.version)
        mode = mode_of(found)
        manifest = inference_service(
            self._resource,
            one,
            name=name,
            mode=mode if mode in _MODES else _MODE,
            owner=self._owner,
            # The way in is the model's route: KServe makes none for each version.
            labels={"networking.kserve.io/visibility": "cluster-local"},
        )
        if found is None:
            find_mine(self._cluster, INFERENCE_SERVICE, self._resource, name)
        if found is None or not stated(found, manifest):
            self._cluster.apply(manifest, INFERENCE_SERVICE)

    def _buckets(self, wanted: TrafficWanted, names: Mapping[str, str]) -> Buckets | None:
        sticky = wanted.sticky
        if sticky is None:
            return None
        if self._bucket_header is None:
            raise Unsupported(
                f"requests cannot be told apart by {sticky.header}: no bucket_header is set",
                hint="let what stands before the gateway write one, or set rollout.cohorts.key to request",
            )
        return Buckets(self._bucket_header, sticky.salt, names.get(sticky.first, ""))

    def _state_route(self, wanted: TrafficWanted, route: Manifest | None, split: Split) -> None:
        if not wanted.revisions:
            if route is not None:
                self._cluster.delete(HTTP_ROUTE, self._namespace, route["metadata"]["name"])
            return
        decision = in_one_line(wanted)
        manifest = http_route(self._resource, self._gateway, split, wanted=decision, owner=self._owner)
        if route is not None:
            if edit_of(route) is not None and wanted_of(route) == decision:
                return
            if edit_of(route) is None and stated(route, manifest):
                return
            # Not over an edit that came after the look above: the next tick sees it.
            manifest["metadata"] |= {name: route["metadata"][name] for name in ("resourceVersion", "uid")}
        self._cluster.apply(manifest, HTTP_ROUTE, force=True)

    def _end(self, wanted: TrafficWanted, services: Mapping[str, Manifest], route: Manifest | None) -> None:
        """End the versions that nobody wants and that no route has led to for a while."""
        now, names = to_ms(self._clock.now()), {one.version for one in wanted.revisions}
        used = services_of(route) if route is not None else set()
        settled = route is None or is_taken_on(route, self._gateway)
        for version, found in services.items():
            if version in names or not settled or _service(found) in used:
                self._out_since.pop(version, None)
            elif now - self._out_since.setdefault(version, now) >= _DRAIN_MS:
                self._cluster.delete(INFERENCE_SERVICE, self._namespace, found["metadata"]["name"])

    def _services(self) -> dict[str, Manifest]:
        found = self._cluster.list(INFERENCE_SERVICE, self._namespace, labels={MODEL: self._model})
        return {version_of(one): one for one in found if version_of(one)}

    def _route(self) -> Manifest | None:
        return find_mine(self._cluster, HTTP_ROUTE, self._resource, route_name(self._resource))


def _service(found: Manifest) -> str:
    return f"{found['metadata']['name']}-predictor"


def _is_ready(found: Manifest) -> bool:
    return says(found, "PredictorReady") and "deletionTimestamp" not in found["metadata"]


def _seen(version: str, found: Manifest, share: int, counted: Counted) -> RevisionSeen:
    ready = _is_ready(found)
    return RevisionSeen(
        version=version,
        share=share,
        ready=ready,
        failed=None if ready else failure(found),
        requests=counted.requests,
        errors=counted.errors,
        latency_p99_ms=counted.p99_ms,
    )
