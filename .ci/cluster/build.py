"""Builds a Kubernetes control plane with KServe's controller from their Go modules, for the tests of tests/cluster.

    python .ci/cluster/build.py [FOLDER]        default: .bootstrap/cluster

FOLDER/bin then has etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, helm and kserve-manager,
FOLDER/crds the resource definitions of KServe, Gateway API and Knative Serving, and FOLDER/kserve its settings.
What is there in the wanted version is not built again. Needs Go 1.26 and a module proxy; nothing else, no container
engine and no root.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GO = shutil.which("go") or ""
KUBERNETES = "v1.36.1"
STAGING = "v0.36.1"  # of the k8s.io modules that belong to it
ETCD = "v3.6.8"
KWOK = "v0.7.0"
HELM = "v4.3.1"
KSERVE = "v0.20.0"
GATEWAY = "v1.6.3"
KNATIVE = "v0.51.0"


@dataclass(frozen=True)
class Program:
    """A command of a Go module. Its own `replace` lines hold only for a main module, so ours repeats them."""

    name: str
    module: str
    version: str
    package: str
    ldflags: str = ""


_VERSION = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"  # kubectl cannot read it otherwise
PROGRAMS = (
    Program("etcd", "go.etcd.io/etcd/server/v3", ETCD, "go.etcd.io/etcd/server/v3"),
    *(
        Program(name, "k8s.io/kubernetes", KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", _VERSION)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ),
    Program("kwok", "sigs.k8s.io/kwok", KWOK, "sigs.k8s.io/kwok/cmd/kwok"),
    Program("helm", "helm.sh/helm/v4", HELM, "helm.sh/helm/v4/cmd/helm"),
    Program("kserve-manager", "github.com/kserve/kserve", KSERVE, "github.com/kserve/kserve/cmd/manager"),
)

# Folders of modules with manifests, and the name they get here.
MANIFESTS = (
    ("crds/kserve", "github.com/kserve/kserve", KSERVE, "config/crd/full"),
    ("crds/gateway", "sigs.k8s.io/gateway-api", GATEWAY, "config/crd/standard"),
    ("crds/knative", "knative.dev/serving", KNATIVE, "config/core/300-resources"),
    ("kserve/webhook", "github.com/kserve/kserve", KSERVE, "config/webhook"),
    ("kserve/configmap", "github.com/kserve/kserve", KSERVE, "config/configmap"),
)


def main(folder: Path) -> None:
    """Build what is not there yet."""
    built = folder / "built.json"
    known = json.loads(built.read_text()) if built.exists() else {}
    for program in PROGRAMS:
        binary = folder / "bin" / program.name
        if known.get(program.name) != program.version or not binary.exists():
            print(f"cluster: building {program.name} {program.version}", flush=True)
            _build(program, folder / "src" / program.name, binary)
            known[program.name] = program.version
            built.write_text(json.dumps(known, indent=1))
    for name, module, version, inside in MANIFESTS:
        target = folder / name
        if known.get(name) != version or not target.exists():
            shutil.rmtree(target, ignore_errors=True)
            _copy(_downloaded(module, version, "Dir") / inside, target)
            known[name] = version
            built.write_text(json.dumps(known, indent=1))


def _build(program: Program, source: Path, binary: Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    _go(source, "mod", "init", f"tidemill.dev/cluster/{program.name}")
    for old, new in _replacements(program):
        _go(source, "mod", "edit", f"-replace={old}={new}")
    _go(source, "get", "-tool", f"{program.package}@{program.version}")
    binary.parent.mkdir(parents=True, exist_ok=True)
    _go(source, "build", f"-ldflags=-s -w {program.ldflags}", "-o", str(binary), program.package)


def _replacements(program: Program) -> list[tuple[str, str]]:
    """What the module's own go.mod replaces; its parts in the same repository by their published versions."""
    said = json.loads(
        _go(Path.cwd(), "mod", "edit", "-json", str(_downloaded(program.module, program.version, "GoMod")))
    )
    if program.module == "k8s.io/kubernetes":
        parts = (one["Path"] for one in said["Require"] if one["Version"] == "v0.0.0")
        return [(part, f"{part}@{STAGING}") for part in parts]
    return [
        (one["Old"]["Path"], f"{one['New']['Path']}@{one['New']['Version']}")
        for one in said.get("Replace") or []
        if "Version" in one["New"]
    ]


def _downloaded(module: str, version: str, part: str) -> Path:
    """Where the module's `Dir` or `GoMod` lies."""
    return Path(json.loads(_go(Path.cwd(), "mod", "download", "-json", f"{module}@{version}"))[part])


def _copy(source: Path, target: Path) -> None:
    """The YAML files of a folder; those of Go's cache may not be written to, and neither could plain copies."""
    for file in source.rglob("*.yaml"):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _go(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"GOFLAGS": "-mod=mod"}
    run = subprocess.run([GO, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"cluster: go {' '.join(arguments)} failed:\n{run.stderr[-3000:]}")
    return run.stdout


if __name__ == "__main__":
    if not GO:
        sys.exit("cluster: Go 1.26 or newer is needed to build the control plane; see https://go.dev/dl")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bootstrap/cluster").resolve())
