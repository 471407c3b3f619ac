"""The Kubernetes objects that a model needs besides its traffic: what it is told, its workers and topics. Pure.

Every object carries the model's labels and is owned by its ContinualModel, so that the API server's garbage collection
takes it with the model; only topics, which hold data, stay. What a platform does not have (Strimzi, KEDA) is left out.
What is scraped of the pods, and the alerts of it, are the chart's: they are the same for all models.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.api import MANAGED_BY, MANAGER
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, KAFKA_TOPIC, SCALED_OBJECT
from tidemill.control.provision import WORKERS, alerts_digest, data_digest, retention
from tidemill.core.settings import PREFIX, Settings, environment, masked
from tidemill.rollout.kserve import (
    MODEL,
    RESOURCE_FOLDER,
    RESOURCE_MOUNT,
    SETTINGS,
    SETTINGS_SOURCES,
    labels_of,
    name_of,
    resource_config,
    resource_volume,
)
from tidemill.spec.load import resource_yaml
from tidemill.spec.model import ContinualModel

__all__ = ["METRICS_PORT", "OPTIONAL", "ROLE", "objects_of", "settings_of"]

ROLE = "tidemill.dev/role"
METRICS_PORT = 9464
"""Where each worker tells its metrics, inside its pod."""
OPTIONAL = (KAFKA_TOPIC, SCALED_OBJECT)
"""Kinds that a cluster may do without."""

_DIGEST = "tidemill.dev/digest"
_ALERTS = "alerts"
_FEAST = "feast"
_LAG = "1000"
"""Records that wait, for each further replica."""
_LOCAL_ONLY = frozenset(
    f"{PREFIX}{name.upper()}"
    for name in {"state", "endpoint", "envoy_admin", "envoy_port", "feedback_host", "feedback_port", "feast_repo"}
    | {"metrics_port", "metrics_host", "image", "strimzi_cluster", "gateway", "gateway_host", "prometheus"}
    | {"context", "namespace", "bucket_header", "serve_host"}
    | {name for name in Settings.model_fields if name.startswith("dashboard_")}
)
"""Settings of a machine or of the operator, as variables: they mean nothing to a model's pods."""


def settings_of(settings: Settings, namespace: str) -> Manifest:
    """The ConfigMap of the settings that all pods of a namespace share; what has a password in it is left out.

    Such a setting belongs in the Secret of the same name, which only a person writes.
    """
    shared = {name: value for name, value in environment(settings).items() if name not in _LOCAL_ONLY}
    data = {name: value for name, value in shared.items() if masked(value) == value}
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": SETTINGS, "namespace": namespace, "labels": {MANAGED_BY: MANAGER}},
        "data": dict(sorted(data.items())),
    }


def objects_of(
    resource: ContinualModel, settings: Settings, *, owner: Mapping[str, Any], served: Collection[Kind]
) -> tuple[tuple[Kind, Manifest], ...]:
    """What the model needs.

    Args:
        resource: the model.
        settings: the operator's; its image and the partitions of topics.
        owner: `ownerReferences` entry of the ContinualModel.
        served: the optional kinds that the API server knows.
    """
    build = _Builder(resource, settings, owner)
    found: list[tuple[Kind, Manifest]] = [(CONFIG_MAP, build.resource())]
    found.append((JOB, build.feast()))
    found += [(DEPLOYMENT, build.worker(role)) for role in WORKERS]
    if resource.spec.alerts.routes:
        found.append((DEPLOYMENT, build.worker(_ALERTS)))
    if KAFKA_TOPIC in served and settings.strimzi_cluster is not None:
        found += [(KAFKA_TOPIC, one) for one in build.topics(settings.strimzi_cluster)]
    if SCALED_OBJECT in served and settings.events_partitions > 1:
        found.append((SCALED_OBJECT, build.scaled_ingest()))
    return tuple(found)


@dataclass(frozen=True)
class _Builder:
    model: ContinualModel
    settings: Settings
    owner: Mapping[str, Any]

    def resource(self) -> Manifest:
        """The ConfigMap in which every pod of the model finds what was declared."""
        text = resource_yaml(self.model)
        return self._object(CONFIG_MAP, resource_config(self._name), "resource") | {"data": {"resource.yaml": text}}

    def worker(self, role: str) -> Manifest:
        """The Deployment of one stage."""
        labels = self._labels(role)
        digest = alerts_digest(self.model) if role == _ALERTS else data_digest(self.model)
        # Pods read the settings when they start, and must start anew for others.
        digest = hashlib.sha256(f"{digest} {self._told}".encode()).hexdigest()[:16]
        spec: dict[str, Any] = {
            "selector": {"matchLabels": {MODEL: self._name, ROLE: role}},
            # A worker that shares partitions may overlap with the next; one that is alone may not.
            "strategy": {"type": "RollingUpdate" if role == "ingest" else "Recreate"},
            "template": {
                "metadata": {"labels": labels, "annotations": {_DIGEST: digest}},
                "spec": self._pod(role),
            },
        }
        if not (role == "ingest" and self.settings.events_partitions > 1):
            spec["replicas"] = 1  # else it is the autoscaler's, or a person's
        return self._object(DEPLOYMENT, f"{self._name}-{role}", role) | {"spec": spec}

    def feast(self) -> Manifest:
        """The Job that enters the model's features into Feast's registry; another one for each form of the data.

        A process of its own, as importing Feast takes what no role should carry. It stays: one that were cleared away
        would be made again.
        """
        pod = self._pod(_FEAST)
        container = pod["containers"][0]
        container["command"] = ["python", "-m", "tidemill.features.apply"]
        container["args"] = ["--resource", f"{RESOURCE_FOLDER}/resource.yaml"]
        del container["ports"], container["livenessProbe"]
        name = name_of(self._name, f"feast-{data_digest(self.model)[:8]}", 63)
        template = {"metadata": {"labels": self._labels(_FEAST)}, "spec": pod | {"restartPolicy": "OnFailure"}}
        return self._object(JOB, name, _FEAST) | {"spec": {"backoffLimit": 10, "template": template}}

    def topics(self, cluster: str) -> list[Manifest]:
        """KafkaTopics of Strimzi. Nobody owns them: what is in them is not to go with the model."""
        found = []
        for keep_ms, names in retention(self.model).items():
            for name in sorted(names):
                topic = self._object(KAFKA_TOPIC, _dns(name), "topic")
                topic["metadata"]["labels"]["strimzi.io/cluster"] = cluster
                del topic["metadata"]["ownerReferences"]
                partitions = self.settings.events_partitions if name == self.model.events_topic else 1
                spec: dict[str, Any] = {"topicName": name, "partitions": partitions}
                if keep_ms is not None:
                    spec["config"] = {"retention.ms": str(keep_ms)}
                found.append(topic | {"spec": spec})
        return found

    def scaled_ingest(self) -> Manifest:
        """KEDA's scaling of ingest by what waits in its topic; never more replicas than partitions."""
        trigger = {
            "type": "apache-kafka",
            "metadata": {
                "bootstrapServers": self.settings.require_kafka(),
                "consumerGroup": f"{self.model.id}.ingest",
                "topic": self.model.events_topic,
                "lagThreshold": _LAG,
                "allowIdleConsumers": "false",
            },
        }
        spec = {
            "scaleTargetRef": {"name": f"{self._name}-ingest"},
            "minReplicaCount": 1,
            "maxReplicaCount": self.settings.events_partitions,
            "triggers": [trigger],
        }
        return self._object(SCALED_OBJECT, f"{self._name}-ingest", "ingest") | {"spec": spec}

    @cached_property
    def _told(self) -> str:
        return json.dumps(settings_of(self.settings, "")["data"])

    @property
    def _name(self) -> str:
        return self.model.metadata.name

    def _labels(self, role: str) -> dict[str, str]:
        part = {"app.kubernetes.io/part-of": "tidemill", "app.kubernetes.io/component": role}
        return labels_of(self.model) | part | {ROLE: role}

    def _object(self, kind: Kind, name: str, role: str) -> Manifest:
        return {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                "name": name,
                "namespace": self.model.metadata.namespace,
                "labels": self._labels(role),
                "ownerReferences": [dict(self.owner)],
            },
        }

    def _pod(self, role: str) -> dict[str, Any]:
        command = [_ALERTS, "run"] if role == _ALERTS else [role]
        container = {
            "name": role,
            "image": self.settings.image_of(role),
            "args": [*command, "--resource", f"{RESOURCE_FOLDER}/resource.yaml"],
            "envFrom": SETTINGS_SOURCES,
            "env": [
                {"name": "TIDEMILL_STATE", "value": "/var/lib/tidemill"},
                {"name": "TIDEMILL_METRICS_HOST", "value": "0.0.0.0"},  # noqa: S104 - its pod's; policies say who may
                {"name": "TIDEMILL_METRICS_PORT", "value": str(METRICS_PORT)},
            ],
            "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
            "livenessProbe": {
                "httpGet": {"path": "/metrics", "port": "metrics"},
                "periodSeconds": 20,
                "failureThreshold": 6,
            },
            "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                RESOURCE_MOUNT,
                {"name": "state", "mountPath": "/var/lib/tidemill"},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            ],
        }
        return {
            "serviceAccountName": self.model.spec.serving.service_account_name,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                resource_volume(self.model),
                {"name": "state", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }


def _dns(topic: str) -> str:
    """A topic's name as the name of an object: where it is none, with eight hex digits of its SHA-256."""
    name = topic.lower().replace("_", "-")
    return name if name == topic else f"{name[:200]}-{hashlib.sha256(topic.encode()).hexdigest()[:8]}"
