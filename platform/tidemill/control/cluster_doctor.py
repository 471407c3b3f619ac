"""What a cluster has of what the operator joins there: parts and versions, the driver of traffic, rights, addresses.

Looks, and changes nothing. What may not be looked at is said to be so; it is no reason to fail.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, KAFKA_TOPIC, MODEL, REVISION, SCALED_OBJECT
from tidemill.control.cluster_reach import reach
from tidemill.core.errors import Unsupported
from tidemill.core.settings import Settings
from tidemill.rollout.auto import KNATIVE_SERVICE, choose, installed
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.stack.doctor import Check

__all__ = ["RIGHTS", "Patient", "examine", "rights"]

OLDEST = (1, 30)
"""Of Kubernetes: the resource's rules and the policy of approval need it."""

_DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
_POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
_CERTIFICATE = Kind("cert-manager.io/v1", "Certificate", "certificates")
_EVENT = Kind("v1", "Event", "events")

_ALL = ("list", "watch", "create", "patch", "delete")
RIGHTS: tuple[tuple[Kind, str | None, tuple[str, ...]], ...] = (
    (MODEL, None, ("list", "watch", "patch")),
    (MODEL, "status", ("patch",)),
    (MODEL, "finalizers", ("update",)),
    (CONFIG_MAP, None, _ALL),
    (DEPLOYMENT, None, _ALL),
    (JOB, None, _ALL),
    (INFERENCE_SERVICE, None, _ALL),
    (HTTP_ROUTE, None, _ALL),
    (REVISION, None, ("list", "watch", "delete")),
    (KAFKA_TOPIC, None, _ALL[:-1]),  # a topic is data: it goes by a person's hand
    (SCALED_OBJECT, None, _ALL),
    (_EVENT, None, ("create", "patch")),
)
"""What the operator does: kind, subresource, verbs. Of kinds that are not served, nothing is needed."""


class Patient(Cluster, Protocol):
    """An API server that also says its version, and what may be done in it."""

    def version(self) -> str:
        """E.g. `v1.36.1`."""
        ...

    def allows(self, verb: str, kind: Kind, namespace: str | None = None, *, part: str | None = None) -> bool:
        """Whether who asks may do this in the namespace (None: in all)."""
        ...


@dataclass(frozen=True)
class _Part:
    """Something that a platform team installs; `controller` is the Deployment that shows its version."""

    name: str
    kind: Kind
    controller: str | None
    without: str
    hint: str | None = None
    needed: bool = False


_PARTS = (
    _Part("Tidemill", MODEL, None, "no ContinualModel is known", "helm install tidemill helm/tidemill", needed=True),
    _Part("KServe", INFERENCE_SERVICE, "kserve-controller-manager", "no version can serve", "install KServe", True),
    _Part("Gateway API", HTTP_ROUTE, None, "no driver gateway"),
    _Part("Knative Serving", KNATIVE_SERVICE, "controller", "no driver knative"),
    _Part("Strimzi", KAFKA_TOPIC, "strimzi-cluster-operator", "topics are made through the brokers"),
    _Part("KEDA", SCALED_OBJECT, "keda-operator", "workers are not scaled by lag", "install KEDA, or set replicas"),
    _Part("Prometheus operator", _POD_MONITOR, "prometheus-operator", "nothing scrapes the workers by itself"),
    _Part("cert-manager", _CERTIFICATE, "cert-manager", "Tidemill needs none"),
)


def examine(cluster: Patient, settings: Settings, *, namespace: str | None = None) -> list[Check]:
    """Look at everything; rights are those in `namespace` (None: in all).

    Raises `Unavailable` where the API server does not answer.
    """
    deployments = _deployments(cluster)
    return [
        _kubernetes(cluster.version()),
        *(_part(cluster, part, deployments) for part in _PARTS),
        *_kserve_settings(cluster, settings),
        _driver(cluster, settings),
        *rights(cluster, namespace),
        *reach(settings),
    ]


def _kubernetes(version: str) -> Check:
    numbers = tuple(int(one) for one in version.lstrip("v").split(".")[:2] if one.isdigit())
    if numbers >= OLDEST:
        return Check(name="Kubernetes", state="ok", found=version)
    return Check(name="Kubernetes", state="missing", found=version, hint="Tidemill needs 1.30 or newer")


def _deployments(cluster: Patient) -> Mapping[str, Manifest]:
    """The cluster's Deployments by name, or none where they may not be read: a version is then not told."""
    try:
        return {one["metadata"]["name"]: one for one in cluster.list(DEPLOYMENT)}
    except Unsupported:
        return {}


def _part(cluster: Patient, part: _Part, deployments: Mapping[str, Manifest]) -> Check:
    if cluster.serves(part.kind):
        version = _version(cluster, part, deployments)
        return Check(name=part.name, state="ok", found=f"{version} ({part.kind.api_version})")
    state: Literal["ok", "warning", "missing"] = "missing" if part.needed else "warning" if part.hint else "ok"
    return Check(name=part.name, state=state, found=f"not installed: {part.without}", hint=part.hint)


def _version(cluster: Patient, part: _Part, deployments: Mapping[str, Manifest]) -> str:
    """From the label of its controller or the tag of its image; else from its definition; else not known."""
    if (controller := deployments.get(part.controller or "")) is not None:
        label = controller["metadata"].get("labels", {}).get("app.kubernetes.io/version")
        image = str(controller["spec"]["template"]["spec"]["containers"][0].get("image", ""))
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        if label or tag:
            return str(label or tag)
    group = part.kind.api_version.partition("/")[0]
    try:
        definition = cluster.get(_DEFINITION, None, f"{part.kind.plural}.{group}") or {"metadata": {}}
    except Unsupported:
        return "version unknown"
    meta = definition["metadata"]
    told = meta.get("annotations", {}).get("gateway.networking.k8s.io/bundle-version")
    return str(told or meta.get("labels", {}).get("app.kubernetes.io/version") or "version unknown")


def _kserve_settings(cluster: Patient, settings: Settings) -> Iterator[Check]:
    """How KServe deploys, and the gateway that it names, which the operator's setting should agree with."""
    if not cluster.serves(INFERENCE_SERVICE):
        return
    name = "KServe's settings"
    try:
        found = cluster.get(CONFIG_MAP, "kserve", "inferenceservice-config")
    except Unsupported:
        yield Check(name=name, state="warning", found="may not be read", hint="kserve.readSettings=true in the chart")
        return
    deploy, ingress = (_json(found or {}, key) for key in ("deploy", "ingress"))
    mode = deploy.get("defaultDeploymentMode", "unknown")
    gateway = ingress.get("kserveIngressGateway") if ingress.get("enableGatewayApi") else None
    told = f"mode {mode}, gateway {gateway or 'none'}"
    if found is None or mode == "unknown":
        hint: str | None = "KServe reads them from the ConfigMap kserve/inferenceservice-config"
    else:
        hint = f"TIDEMILL_GATEWAY={gateway} lets versions share it" if gateway and not settings.gateway else None
    yield Check(name=name, state="warning" if hint else "ok", found=told, hint=hint)


def _json(config_map: Manifest, key: str) -> dict[str, Any]:
    """A value of a ConfigMap that should be a JSON object; empty where it is none."""
    try:
        found = json.loads(config_map.get("data", {}).get(key, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _driver(cluster: Patient, settings: Settings) -> Check:
    try:
        choice = choose("auto", installed(cluster, settings.gateway))
    except Unsupported as error:
        hint = "install Gateway API and set TIDEMILL_GATEWAY, or install Knative Serving"
        return Check(name="traffic driver", state="missing", found=error.message, hint=hint)
    return Check(name="traffic driver", state="ok", found=f"{choice.driver}: {choice.reason}")


def rights(cluster: Patient, namespace: str | None) -> Iterator[Check]:
    """What who asks may not do of what the operator does there (None: everywhere), or that it may do all of it."""
    where = f"in {namespace}" if namespace else "in all namespaces"
    asked = denied = 0
    for kind, part, verbs in RIGHTS:
        if not cluster.serves(kind):
            continue
        missing = [verb for verb in verbs if not cluster.allows(verb, kind, namespace, part=part)]
        asked += len(verbs)
        denied += len(missing)
        if missing:
            resource = kind.plural if part is None else f"{kind.plural}/{part}"
            found = f"no {', '.join(missing)} of {resource} {where}"
            hint = "ask as the operator's service account, whose role the chart makes"
            yield Check(name="rights", state="missing", found=found, hint=hint)
    if not denied:
        yield Check(name="rights", state="ok", found=f"{asked} of {asked} {where}")
