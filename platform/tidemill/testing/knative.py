"""Knative Serving, and KServe in Knative mode, played over any API server (see `tidemill.testing.kserve`).

KServe's part follows `ksvc_reconciler.go` and `PropagateStatus` of 0.20.0, its odd corners included; on a real API
server the real one plays it, and only Knative's controllers are left to be played.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.rollout.auto import KNATIVE_SERVICE
from tidemill.rollout.kserve import INFERENCE_SERVICE, REVISION, condition, version_of
from tidemill.testing.kserve import Servers, state, tell, told

__all__ = ["PlayedKServeOnKnative", "PlayedKnative"]

_OF = "serving.knative.dev/service"
_TEMPLATE = "tidemill.dev/template"
"""SHA-256 of the template that a revision was made from."""


class PlayedKnative:
    """Knative's controllers: a revision for each new template, and traffic as the service's spec and readiness say."""

    def __init__(self, cluster: Cluster, servers: Servers, namespace: str = "default") -> None:
        self._cluster, self._servers, self._namespace = cluster, servers, namespace

    def play(self) -> None:
        """Reconcile every Knative Service once, and clear what belongs to none."""
        services = self._cluster.list(KNATIVE_SERVICE, self._namespace)
        for service in services:
            revisions = self._revisions(service)
            for revision in revisions:
                tell(self._cluster, REVISION, revision, {"conditions": [self._readiness(revision)]})
            tell(self._cluster, KNATIVE_SERVICE, service, self._status(service, self._revisions(service)))
        names = {service["metadata"]["name"] for service in services}
        for revision in self._cluster.list(REVISION, self._namespace):
            if revision["metadata"]["labels"][_OF] not in names:
                self._cluster.delete(REVISION, self._namespace, revision["metadata"]["name"])

    def _revisions(self, service: Manifest) -> list[Manifest]:
        name, template = service["metadata"]["name"], service["spec"]["template"]
        found = list(self._cluster.list(REVISION, self._namespace, labels={_OF: name}))
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
        if found and found[-1]["metadata"]["annotations"][_TEMPLATE] == digest:
            return found
        created = service.get("status", {}).get("latestCreatedRevisionName", f"{name}-00000")
        meta = {
            "name": f"{name}-{int(created.rpartition('-')[2]) + 1:05d}",
            "namespace": self._namespace,
            "labels": template["metadata"]["labels"] | {_OF: name},
            "annotations": {_TEMPLATE: digest},
        }
        manifest = {"apiVersion": REVISION.api_version, "kind": REVISION.kind, "metadata": meta}
        return [*found, self._cluster.apply(manifest | {"spec": template["spec"]}, REVISION)]

    def _readiness(self, revision: Manifest) -> dict[str, Any]:
        version = version_of(revision)
        if why := self._servers.failed.get(version):
            return told("Ready", False) | {"reason": "ExitCode3", "message": why}
        return told("Ready", True if version in self._servers.ready else None)

    def _status(self, service: Manifest, revisions: Sequence[Manifest]) -> dict[str, Any]:
        before = service.get("status", {})
        created = revisions[-1]
        ready = [one["metadata"]["name"] for one in revisions if condition(one, "Ready").get("status") == "True"]
        newest_ready = max([*ready, before.get("latestReadyRevisionName", "")])
        routed = _routed(service, newest_ready, {one["metadata"]["name"] for one in revisions})
        up = condition(created, "Ready").get("status", "Unknown")
        known = {"True": True, "False": False}.get(up)
        status = {
            "observedGeneration": service["metadata"]["generation"],
            "latestCreatedRevisionName": created["metadata"]["name"],
            "traffic": before.get("traffic", []) if routed is None else routed,
            "conditions": [
                told("ConfigurationsReady", known),
                told("RoutesReady", routed is not None),
                told("Ready", known if routed is not None else False),
            ],
        }
        return status | ({"latestReadyRevisionName": newest_ready} if newest_ready else {})


def _routed(service: Manifest, newest_ready: str, known: set[str]) -> list[dict[str, Any]] | None:
    """The traffic as the spec says, or None where a revision of it is not there."""
    found = []
    for target in service["spec"].get("traffic") or []:
        name = newest_ready if target.get("latestRevision") else target.get("revisionName")
        if name not in known:
            return None
        found.append({**target, "revisionName": name})
    return found


class PlayedKServeOnKnative:
    """KServe's controller in Knative mode: a Knative Service for each InferenceService, its status copied back."""

    def __init__(self, cluster: Cluster, servers: Servers, namespace: str = "default") -> None:
        self._cluster, self._servers, self._namespace = cluster, servers, namespace

    def play(self) -> None:
        """Reconcile every InferenceService once, and clear Knative Services that belong to none."""
        wanted = set()
        for found in self._cluster.list(INFERENCE_SERVICE, self._namespace):
            manifest = _knative_service(found)
            wanted.add(manifest["metadata"]["name"])
            state(self._cluster, KNATIVE_SERVICE, manifest)
            service = self._cluster.get(KNATIVE_SERVICE, self._namespace, manifest["metadata"]["name"])
            if service is not None and service.get("status"):
                status = _propagated(_component(found), service["status"])
                tell(self._cluster, INFERENCE_SERVICE, found, self._status(found, status, service["status"]))
        for service in self._cluster.list(KNATIVE_SERVICE, self._namespace):
            if service["metadata"]["name"] not in wanted:
                self._cluster.delete(KNATIVE_SERVICE, self._namespace, service["metadata"]["name"])

    def _status(self, found: Manifest, component: dict[str, Any], knative: Mapping[str, Any]) -> dict[str, Any]:
        ready = condition({"status": knative}, "Ready").get("status") == "True"
        why = self._servers.failed.get(version_of(found))
        model: dict[str, Any] = {"transitionStatus": "UpToDate" if ready else "InProgress"}
        if why:
            info = {"reason": "ModelLoadFailed", "message": why, "exitCode": 3}
            model = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
        conditions = [told(kind, ready) for kind in ("PredictorReady", "Ready")]
        return {
            "conditions": conditions,
            "modelStatus": model,
            "components": {"predictor": component},
            "deploymentMode": "Knative",
        }


def _component(found: Manifest) -> Mapping[str, Any]:
    status: Mapping[str, Any] = found.get("status", {}).get("components", {}).get("predictor", {})
    return status


def _knative_service(found: Manifest) -> Manifest:
    meta, predictor = found["metadata"], found["spec"]["predictor"]
    percent, stable = predictor.get("canaryTrafficPercent"), _component(found).get("latestRolledoutRevision")
    traffic: list[dict[str, Any]] = [{"latestRevision": True, "percent": 100}]
    if percent is not None and stable:
        traffic = [{"latestRevision": True, "percent": percent}]
        if percent < 100:
            traffic.append({"latestRevision": False, "percent": 100 - percent, "revisionName": stable, "tag": "prev"})
    spec = {name: value for name, value in predictor.items() if name != "canaryTrafficPercent"}
    template = {"metadata": {"labels": meta["labels"], "annotations": meta["annotations"]}, "spec": spec}
    return {
        "apiVersion": KNATIVE_SERVICE.api_version,
        "kind": KNATIVE_SERVICE.kind,
        "metadata": {"name": f"{meta['name']}-predictor", "namespace": meta["namespace"]},
        "spec": {"template": template, "traffic": traffic},
    }


def _propagated(before: Mapping[str, Any], knative: Mapping[str, Any]) -> dict[str, Any]:
    """The predictor's status; which revision is rolled out goes by the newest ready one's share."""
    ready, created = knative.get("latestReadyRevisionName", ""), knative["latestCreatedRevisionName"]
    status = dict(before) | {"latestCreatedRevision": created, "traffic": list(knative["traffic"])}
    for target in knative["traffic"]:
        if target["revisionName"] != ready or not target.get("latestRevision"):
            continue
        if status.get("latestRolledoutRevision", "") != ready:
            if target["percent"] == 100:
                status["previousRolledoutRevision"] = status.get("latestRolledoutRevision", "")
                status["latestRolledoutRevision"] = ready
        elif ready == created and target["percent"] < 100 and status.get("previousRolledoutRevision"):
            total = sum(one["percent"] for one in knative["traffic"] if one["revisionName"] == ready)
            if total == 100:
                status["latestRolledoutRevision"] = status["previousRolledoutRevision"]
    return status | ({"latestReadyRevision": ready} if ready else {})
