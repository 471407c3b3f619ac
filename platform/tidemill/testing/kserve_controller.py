"""KServe's own controller beside a real control plane, with its webhooks; a gateway's and Knative's part is played.

No request flows here: what is real is what KServe admits, writes and reports.
"""

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tidemill.cluster import Kind, Manifest
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing.certificates import certificates
from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.process import running

__all__ = ["GATEWAY", "RUNTIME", "accept_route", "knative_revision", "kserve_controller", "serving_runtime"]

GATEWAY = "kserve/kserve-ingress-gateway"
"""The gateway that KServe's settings name, as `<namespace>/<name>`."""

RUNTIME = Kind("serving.kserve.io/v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", namespaced=False)

_CHART = Path(__file__).parents[3] / "helm/tidemill"

_AT = "2026-01-01T00:00:00Z"


@contextmanager
def kserve_controller(plane: ControlPlane) -> Iterator[None]:
    """Run KServe's controller (Standard mode unless a service asks for Knative) until the block ends.

    The chart's own runtime is there.
    """
    # Without storage containers KServe fetches nothing.
    for name in ("gateway", "knative", "kserve", "kserve/clusterstoragecontainer"):
        plane.install(plane.programs / "crds" / name)
    port, probe = free_ports(2)
    # The controller looks for its certificates in a folder of this name under TMPDIR.
    temporary = Path(tempfile.mkdtemp(dir=plane.folder))
    made = certificates(temporary / "k8s-webhook-server" / "serving-certs")
    for manifest in (*_settings(plane.programs), *_webhooks(plane.programs, port, made.certificate)):
        plane.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(manifest))
    argv = (
        str(plane.programs / "bin" / "kserve-manager"),
        f"--kubeconfig={plane.kubeconfig}",
        "--metrics-addr=0",
        f"--health-probe-addr={HOST}:{probe}",
        f"--webhook-port={port}",
    )
    wanted = ProcessWanted(
        name="kserve-manager",
        argv=argv,
        env={"POD_NAMESPACE": "kserve", "TMPDIR": str(temporary)},
        ready=f"http://{HOST}:{probe}/readyz",
    )
    with running(wanted, plane.folder):
        plane.admin.apply(serving_runtime(plane), RUNTIME)
        yield


def serving_runtime(plane: ControlPlane) -> Manifest:
    """The chart's own runtime, of the whole cluster, in which versions run."""
    command = [str(plane.helm), "template", "tidemill", str(_CHART), "--show-only=templates/models/servingruntime.yaml"]
    found: Manifest = yaml.safe_load(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return found


def accept_route(plane: ControlPlane, namespace: str, name: str, *, accepted: bool = True) -> None:
    """Say of an HTTPRoute, as its gateway would, that it has been accepted as it is now."""
    route: Manifest = json.loads(plane.kubectl("get", "httproute", name, "--namespace", namespace, "--output", "json"))
    parents = [
        {
            "parentRef": parent,
            "controllerName": "tidemill.dev/played-gateway",
            "conditions": [
                _condition("Accepted", accepted, route["metadata"]["generation"]),
                _condition("ResolvedRefs", accepted, route["metadata"]["generation"]),
            ],
        }
        for parent in route["spec"]["parentRefs"]
    ]
    _patch_status(plane, "httproute", namespace, name, {"parents": parents})


def knative_revision(
    plane: ControlPlane, namespace: str, service: str, *, created: str, ready: str | None, traffic: list[dict[str, Any]]
) -> None:
    """Say of a Knative Service, as Knative would: its newest revision, the newest that is ready, and the traffic."""
    known: Manifest = json.loads(plane.kubectl("get", "ksvc", service, "--namespace", namespace, "--output", "json"))
    generation = known["metadata"]["generation"]
    done = created == ready
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "latestCreatedRevisionName": created,
        "traffic": traffic,
        "url": f"http://{service}.{namespace}.example.com",
        "address": {"url": f"http://{service}.{namespace}.svc.cluster.local"},
        "conditions": [
            {"type": kind, "status": "True" if done else "Unknown", "lastTransitionTime": _AT}
            for kind in ("ConfigurationsReady", "Ready", "RoutesReady")
        ],
    }
    if ready is not None:
        status["latestReadyRevisionName"] = ready
    _patch_status(plane, "ksvc", namespace, service, status)


def _condition(kind: str, true: bool, generation: int) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": kind if true else "Refused",
        "message": "",
        "observedGeneration": generation,
        "lastTransitionTime": _AT,
    }


def _patch_status(plane: ControlPlane, kind: str, namespace: str, name: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    plane.kubectl(
        "patch", kind, name, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", patch
    )


def _settings(programs: Path) -> list[Manifest]:
    """KServe's settings as it ships them, but for the mode, the gateway, and the images that nothing pulls."""
    shipped = yaml.safe_load((programs / "kserve" / "configmap" / "inferenceservice.yaml").read_text())
    data = {name: text for name, text in shipped["data"].items() if name != "_example"}
    data["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
    ingress = json.loads(data["ingress"])
    data["ingress"] = json.dumps(
        ingress | {"enableGatewayApi": True, "kserveIngressGateway": GATEWAY, "disableIstioVirtualHost": True}
    )
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}},
        _config_map("kserve", "inferenceservice-config", data),
        _config_map("knative-serving", "config-autoscaler", {}),
    ]


def _config_map(namespace: str, name: str, data: dict[str, str]) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _webhooks(programs: Path, port: int, ca: Path) -> list[Manifest]:
    """KServe's webhooks, called by address, since there is no network in which a service would have one."""
    text = (programs / "kserve" / "webhook" / "manifests.yaml").read_text()
    found: list[Manifest] = [one for one in yaml.safe_load_all(text) if one]
    bundle = base64.b64encode(ca.read_bytes()).decode()
    for manifest in found:
        manifest["metadata"].pop("creationTimestamp", None)
        for webhook in manifest["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://{HOST}:{port}{path}", "caBundle": bundle}
    return found
