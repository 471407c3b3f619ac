"""KServe's InferenceService as the drivers of a cluster use it: how one is stated, and what its status says.

Every version answers under the model's own name whatever its InferenceService is called: `tidemill serve` takes that
name from the resource, which each pod finds at `/etc/tidemill/resource.yaml`. No path is rewritten.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from tidemill.cluster import Cluster, Kind, Manifest
from tidemill.cluster.api import MANAGED_BY, MANAGER
from tidemill.core.errors import Conflict, Unsupported
from tidemill.rollout.driver import RevisionWanted
from tidemill.rollout.last_words import last_words
from tidemill.spec.model import ContinualModel

__all__ = [
    "CONFIG_MAP",
    "INFERENCE_SERVICE",
    "MODEL",
    "RESOURCE_FOLDER",
    "RESOURCE_MOUNT",
    "REVISION",
    "SETTINGS",
    "SETTINGS_SOURCES",
    "VERSION",
    "condition",
    "failure",
    "find_mine",
    "inference_service",
    "labels_of",
    "mode_of",
    "name_of",
    "resource_config",
    "resource_volume",
    "says",
    "stated",
    "version_of",
]

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
REVISION = Kind("serving.knative.dev/v1", "Revision", "revisions")
INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
MODEL, VERSION = "tidemill.dev/model", "tidemill.dev/version"
"""Labels by which a model's objects, and the version they serve, are found again."""
RUNTIME = "tidemill"
"""The ServingRuntime that the chart installs, and the only one that supports the model format of this name."""
SETTINGS = "tidemill-settings"
"""ConfigMap and Secret with the settings of the pods, as environment variables; either may be absent."""
RESOURCE_FOLDER = "/etc/tidemill"
RESOURCE_MOUNT = {"name": "resource", "mountPath": RESOURCE_FOLDER, "readOnly": True}
"""Where a pod finds `resource.yaml`."""
SETTINGS_SOURCES = [{kind: {"name": SETTINGS, "optional": True}} for kind in ("configMapRef", "secretRef")]
"""Where a container's environment comes from."""
_MODE_ANNOTATION = "serving.kserve.io/deploymentMode"

_STORES = frozenset({"s3", "gs", "pvc", "oci", "hf", "https", "azure"})
"""What KServe fetches versions from; a folder of this process is none of it."""
_LONGEST = 48
"""KServe labels pods `isvc.<name>-predictor`, and a label's value has at most 63 characters."""
_TRANSIENT = 5
"""Exit status of a server for which a broker or store did not answer: it is started again, and may yet be ready."""
_BLOCKED = frozenset({"BlockedByFailedLoad", "InvalidSpec"})


def name_of(model: str, version: str = "", longest: int = _LONGEST) -> str:
    """`<model>-<version>`, or where that is too long its beginning and eight hex digits of its SHA-256."""
    name = f"{model}-{version}" if version else model
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def mode_of(found: Manifest | None) -> str | None:
    """How an InferenceService was asked to be deployed; None where it is not there, or does not say."""
    mode: str | None = (found or {"metadata": {}})["metadata"].get("annotations", {}).get(_MODE_ANNOTATION)
    return mode


def resource_config(model: str) -> str:
    """The ConfigMap in which pods find the resource, written by the operator."""
    return f"{model}-resource"


def labels_of(resource: ContinualModel, version: str = "") -> dict[str, str]:
    """The labels of a model's objects; with a version, of those that serve it."""
    found = {MANAGED_BY: MANAGER, MODEL: resource.metadata.name}
    return found | ({VERSION: version} if version else {})


def inference_service(
    resource: ContinualModel,
    wanted: RevisionWanted,
    *,
    name: str,
    mode: str,
    owner: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    predictor: Mapping[str, Any] | None = None,
) -> Manifest:
    """The InferenceService of one version; raises `Unsupported` where KServe cannot fetch its artifact.

    Args:
        resource: the model.
        wanted: the version and its artifact.
        name: of the object.
        mode: how KServe is to deploy it, by the name that every version from 0.15 on knows.
        owner: `ownerReferences` entry of the ContinualModel.
        labels: further labels.
        predictor: further fields of the predictor.
    """
    meta: dict[str, Any] = {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": labels_of(resource, wanted.version) | dict(labels or {}),
        "annotations": {_MODE_ANNOTATION: mode},
    }
    if owner is not None:
        meta["ownerReferences"] = [dict(owner)]
    spec = {
        "model": _model(resource, wanted),
        "volumes": [resource_volume(resource)],
        **_pod(resource),
        **(predictor or {}),
    }
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": meta,
        "spec": {"predictor": spec},
    }


def _model(resource: ContinualModel, wanted: RevisionWanted) -> dict[str, Any]:
    if urlsplit(wanted.artifact).scheme not in _STORES:
        raise Unsupported(
            f"KServe cannot fetch {wanted.artifact}",
            hint=f"set artifactRoot to a URI of {', '.join(sorted(_STORES))}",
        )
    spec = resource.spec.model
    found: dict[str, Any] = {
        "modelFormat": {"name": RUNTIME},
        "runtime": RUNTIME,
        "protocolVersion": "v2",
        "storageUri": wanted.artifact,
        "resources": _resources(resource),
        # KServe adds these to the runtime's own, which name everything that is the same for all versions.
        "args": ["--version", wanted.version],
        "envFrom": SETTINGS_SOURCES,
        "volumeMounts": [RESOURCE_MOUNT],
        # What a server ends with then stands in modelStatus, and so in the rollout's reason.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return found | ({"image": spec.image} if spec.image else {})


def resource_volume(resource: ContinualModel) -> dict[str, Any]:
    """The volume of a pod that `RESOURCE_MOUNT` is of."""
    return {"name": "resource", "configMap": {"name": resource_config(resource.metadata.name)}}


def _pod(resource: ContinualModel) -> dict[str, Any]:
    serving = resource.spec.serving
    # As many as are declared: a version that scales with its share is not the one that was judged.
    replicas = {"minReplicas": serving.replicas, "maxReplicas": serving.replicas}
    return replicas | {"serviceAccountName": serving.service_account_name}


def _resources(resource: ContinualModel) -> dict[str, Any]:
    declared = resource.spec.model.resources
    cores = declared.cpu
    cpu = f"{cores:g}" if cores == int(cores) else f"{round(cores * 1000)}m"
    memory = _memory(declared.memory)
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


def _memory(text: str) -> str:
    """The amount as KServe stores it, in the largest unit that gives a whole number."""
    units = ("Mi", "Gi", "Ti")
    number, unit = int(text[:-2]), units.index(text[-2:])
    while number % 1024 == 0 and unit < len(units) - 1:
        number, unit = number // 1024, unit + 1
    return f"{number}{units[unit]}"


def find_mine(cluster: Cluster, kind: Kind, resource: ContinualModel, name: str) -> Manifest | None:
    """The model's object of this name, or None; raises `Conflict` where it is someone else's."""
    found = cluster.get(kind, resource.metadata.namespace, name)
    owner = found["metadata"].get("labels", {}).get(MODEL) if found else resource.metadata.name
    if owner == resource.metadata.name:
        return found
    whose = f"the model {owner}" if owner else "someone else"
    text = f"{kind.kind} {name} is there already, and belongs to {whose}"
    raise Conflict(text, hint="delete it, or rename the model")


def version_of(found: Manifest) -> str:
    """The version that an object is labelled with."""
    return str(found["metadata"].get("labels", {}).get(VERSION, ""))


def stated(found: Any, wanted: Any) -> bool:
    """Whether an object has all that is wanted of it already; what the API server and KServe added does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and stated(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(found, Sequence) or len(found) != len(wanted):
            return False
        return all(stated(one, other) for one, other in zip(found, wanted, strict=True))
    return bool(found == wanted)


def condition(found: Manifest, kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty where it has not been told."""
    told = found.get("status", {}).get("conditions") or []
    return next((one for one in told if one.get("type") == kind), {})


def says(found: Manifest, kind: str) -> bool:
    """Whether a condition is true."""
    return condition(found, kind).get("status") == "True"


def failure(found: Manifest) -> str | None:
    """Why the model of an InferenceService cannot be loaded, where KServe has said so and it is for good."""
    status = found.get("status", {}).get("modelStatus", {})
    if status.get("transitionStatus") not in _BLOCKED:
        return None
    info = status.get("lastFailureInfo", {})
    if info.get("exitCode") == _TRANSIENT:
        return None
    reason = info.get("reason") or status["transitionStatus"]
    words = last_words(info.get("message") or "")
    ended = f" (exit status {info['exitCode']})" if info.get("exitCode") else ""
    return f"{reason}: {words}{ended}" if words else f"{reason}{ended}"
