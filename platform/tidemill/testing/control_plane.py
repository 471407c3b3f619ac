"""A real Kubernetes control plane on the loopback interface: etcd, API server, controllers, scheduler, and KWOK.

Admission, RBAC, server-side apply, garbage collection and leases are the real ones. Nodes are not: KWOK says of each
pod that is scheduled that it is ready, so nothing runs in it. No container engine and no root are needed, only the
programs that `.ci/cluster/build.py` makes.
"""

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import yaml

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.kubernetes_api import KubernetesCluster, connect
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing.certificates import Certificates, certificates
from tidemill.testing.process import running
from tidemill.testing.waiting import eventually

__all__ = ["DEFINITION", "NAMESPACE", "Asked", "ControlPlane", "control_plane"]

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)

_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "fake", "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"type": "kwok"}},
    "status": {
        "capacity": {"cpu": "1000", "memory": "4Ti", "pods": "100000"},
        "allocatable": {"cpu": "1000", "memory": "4Ti", "pods": "100000"},
    },
}


_AUDIT = "audit.jsonl"
_AUDITED = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""What the API server writes down: who asked for what, for service accounts but those of Kubernetes itself."""


class Asked(NamedTuple):
    """One call of the API server: `patch` of `apps` `deployments` in a namespace, and the status of its answer."""

    verb: str
    group: str
    resource: str
    """With its subresource: `continualmodels/status`."""
    namespace: str
    status: int


@dataclass
class ControlPlane:
    """A control plane that runs.

    Attributes:
        folder: of its files and logs.
        programs: where `bin`, `crds` and `kserve` of `.ci/cluster/build.py` are.
        server: `https://127.0.0.1:PORT`.
        kubeconfig: of an administrator.
        admin_token: its bearer token.
        ca: certificate that the server shows.
    """

    folder: Path
    programs: Path
    server: str
    kubeconfig: Path
    admin_token: str
    certificates: Certificates
    _apiserver: ProcessWanted
    _api: ExitStack = field(default_factory=ExitStack)

    @property
    def ca(self) -> Path:
        """The certificate that its server shows."""
        return self.certificates.certificate

    @property
    def helm(self) -> Path:
        """The helm command."""
        return self.programs / "bin" / "helm"

    @cached_property
    def admin(self) -> KubernetesCluster:
        """Its API server, as an administrator: cheaper than a process of kubectl for each call."""
        return connect(kubeconfig=str(self.kubeconfig))

    def asked_by(self, user: str) -> list[Asked]:
        """What a user with a token of a service account has asked for so far, in the order of the answers."""
        lines = (self.folder / _AUDIT).read_text().splitlines()
        found = [json.loads(line) for line in lines if user in line]
        return [
            Asked(
                verb=one["verb"],
                group=one["objectRef"].get("apiGroup", ""),
                resource="/".join(filter(None, (one["objectRef"]["resource"], one["objectRef"].get("subresource")))),
                namespace=one["objectRef"].get("namespace", ""),
                status=one["responseStatus"]["code"],
            )
            for one in found
            if one["user"]["username"] == user and "objectRef" in one
        ]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What `kubectl ARGUMENTS` prints; raises `AssertionError` with its complaint where it fails."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        run = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        if run.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {run.stderr}")
        return run.stdout

    def namespace(self, prefix: str = "t", **labels: str) -> str:
        """A fresh namespace."""
        name = f"{prefix}{secrets.token_hex(4)}"
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.admin.apply(manifest, NAMESPACE)
        return name

    def kubeconfig_for(self, token: str, name: str) -> Path:
        """A kubeconfig for the bearer of a token, e.g. a service account's."""
        return _kubeconfig(self.folder / f"{name}.kubeconfig", self.server, self.ca, token)

    def install(self, where: Path) -> None:
        """Apply the resource definitions of a file, or of a folder of them, and wait until they are served."""
        found = sorted(file for file in where.glob("*.yaml") if file.name != "kustomization.yaml")
        files = found if where.is_dir() else [where]
        filenames = [f"--filename={file}" for file in files]
        applied = self.kubectl("apply", "--server-side", "--force-conflicts", "--output", "name", *filenames)
        names = [name for name in applied.split() if name.startswith("customresourcedefinition")]

        self.wait_until_served(*(name.partition("/")[2] for name in names))

    def wait_until_served(self, *definitions: str) -> None:
        """Wait for resource definitions of these names, e.g. `continualmodels.tidemill.dev`."""

        def served() -> bool:
            # Not `kubectl wait`, which fails on a definition that has no conditions yet.
            seen = [self.admin.get(DEFINITION, None, name) or {} for name in definitions]
            return all("Established" in _true(one) for one in seen)

        eventually(served, deadline_s=60, every_s=0.2)

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """The API server is killed for the time of the block, and then started again where it was."""
        self._api.close()
        try:
            yield
        finally:
            self._api.enter_context(running(self._apiserver, self.folder))
            self._wait()

    def _wait(self) -> None:
        def ready() -> bool:
            command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "get", "--raw", "/readyz"]
            return subprocess.run(command, capture_output=True, timeout=30).returncode == 0

        eventually(ready, deadline_s=60, every_s=0.2)


@contextmanager
def control_plane(folder: Path, programs: Path, *, controllers: bool = True) -> Iterator[ControlPlane]:
    """Run a control plane with one fake node in `folder` until the block ends.

    Without `controllers` it is the API server alone: what is stated is stored, and nothing follows from it.
    """
    api_port, etcd_port, peer_port, manager_port, scheduler_port = free_ports(5)
    server, token = f"https://{HOST}:{api_port}", secrets.token_hex(16)
    made = certificates(folder / "certificates")
    kubeconfig = _kubeconfig(folder / "admin.kubeconfig", server, made.certificate, token)
    bin_ = programs / "bin"
    with ExitStack() as stack:
        etcd = f"http://{HOST}:{etcd_port}"
        stack.enter_context(running(_etcd(bin_, folder, etcd, f"http://{HOST}:{peer_port}"), folder))
        apiserver = _apiserver(bin_, folder, etcd, api_port, token, made)
        plane = ControlPlane(folder, programs, server, kubeconfig, token, made, apiserver)
        stack.enter_context(plane._api)
        plane._api.enter_context(running(apiserver, folder))
        plane._wait()
        if not controllers:
            yield plane
            return
        for wanted in (
            _controllers(bin_, folder, kubeconfig, made, manager_port),
            _scheduler(bin_, folder, kubeconfig, scheduler_port),
            ProcessWanted(name="kwok", argv=_kwok(bin_, kubeconfig)),
        ):
            stack.enter_context(running(wanted, folder))
        plane.kubectl("create", "--filename", "-", stdin=json.dumps(_NODE))
        plane.kubectl("wait", "--for=condition=Ready", "node/fake", "--timeout=60s")
        eventually(lambda: "default" in plane.kubectl("get", "serviceaccounts"), deadline_s=30)
        yield plane


def _etcd(programs: Path, folder: Path, client: str, peer: str) -> ProcessWanted:
    argv = (
        str(programs / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return ProcessWanted(name="etcd", argv=argv, ready=f"{client}/health")


def _apiserver(programs: Path, folder: Path, etcd: str, port: int, token: str, made: Certificates) -> ProcessWanted:
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    policy = folder / "audit.yaml"
    policy.write_text(yaml.safe_dump(_AUDITED))
    argv = (
        str(programs / "kube-apiserver"),
        f"--etcd-servers={etcd}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={port}",
        f"--tls-cert-file={made.certificate}",
        f"--tls-private-key-file={made.key}",
        f"--client-ca-file={made.certificate}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={made.public}",
        f"--service-account-signing-key-file={made.key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",  # as OpenShift's do
        f"--audit-policy-file={policy}",
        f"--audit-log-path={folder / _AUDIT}",
        "--audit-log-mode=batch",
    )
    return ProcessWanted(name="kube-apiserver", argv=argv, ready=f"tcp://{HOST}:{port}")


def _controllers(programs: Path, folder: Path, kubeconfig: Path, made: Certificates, port: int) -> ProcessWanted:
    argv = (
        str(programs / "kube-controller-manager"),
        *_as(kubeconfig, folder / "controllers", port),
        f"--service-account-private-key-file={made.key}",
        f"--root-ca-file={made.certificate}",
        "--use-service-account-credentials=true",
        "--horizontal-pod-autoscaler-sync-period=5s",
    )
    return ProcessWanted(name="kube-controller-manager", argv=argv)


def _scheduler(programs: Path, folder: Path, kubeconfig: Path, port: int) -> ProcessWanted:
    argv = (str(programs / "kube-scheduler"), *_as(kubeconfig, folder / "scheduler", port))
    return ProcessWanted(name="kube-scheduler", argv=argv)


def _as(kubeconfig: Path, certificates: Path, port: int) -> tuple[str, ...]:
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={HOST}",
        f"--secure-port={port}",
        f"--cert-dir={certificates}",
        "--leader-elect=false",
    )


def _kwok(programs: Path, kubeconfig: Path) -> tuple[str, ...]:
    return (
        str(programs / "kwok"),
        f"--kubeconfig={kubeconfig}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
    )


def _true(manifest: Manifest) -> set[str]:
    conditions = manifest.get("status", {}).get("conditions") or []
    return {one["type"] for one in conditions if one["status"] == "True"}


def _kubeconfig(path: Path, server: str, ca: Path, token: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "plane", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "user"}}],
        "current-context": "plane",
    }
    path.write_text(yaml.safe_dump(content))
    return path
