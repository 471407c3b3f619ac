"""What the chart renders, as files for kustomize and one to apply: for those who use no Helm."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["NAMESPACE", "rendered"]

NAMESPACE = "tidemill-system"

_HEADER = "# Made from helm/tidemill by `make manifests`; see there.\n"
_RESTRICTED = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        "labels": {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")},
    },
}

Manifest = dict[str, Any]


def rendered(helm: Path, chart: Path, folder: Path) -> dict[Path, str]:
    """The text of each file under `folder`. Raises `CalledProcessError` where the chart does not render."""
    wide = _template(helm, chart)
    narrow = _template(helm, chart, "scope=namespace")
    definitions = [one for one in wide if one["kind"] == "CustomResourceDefinition"]
    watched = _template(
        helm, chart, "monitoring.podMonitors=true", "monitoring.rules=true", "monitoring.dashboards=true"
    )
    plain = {_key(one) for one in wide}
    install = [*definitions, _RESTRICTED, *_without(wide, definitions)]
    return {
        folder / "install.yaml": _text(install),
        folder / "crd/crd.yaml": _text(definitions),
        folder / "base/namespace.yaml": _text([_RESTRICTED]),
        folder / "base/tidemill.yaml": _text(_without(wide, definitions)),
        folder / "overlays/namespaced/namespace.yaml": _text([_RESTRICTED]),
        folder / "overlays/namespaced/tidemill.yaml": _text(_without(narrow, definitions)),
        folder / "overlays/monitoring/monitoring.yaml": _text([one for one in watched if _key(one) not in plain]),
    }


def _template(helm: Path, chart: Path, *values: str) -> list[Manifest]:
    """The objects of the chart, without its tests, and without what says that Helm keeps them."""
    command = [str(helm), "template", "tidemill", str(chart), "--namespace", NAMESPACE]
    for value in values:
        command += ["--set", value]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [one for one in yaml.safe_load_all(text) if one]
    for one in found:
        _labels_of_nobody(one)
    return [one for one in found if "helm.sh/hook" not in one["metadata"].get("annotations", {})]


def _labels_of_nobody(manifest: Any) -> None:
    """Take the labels away by which Helm finds what it has installed."""
    if isinstance(manifest, list):
        for one in manifest:
            _labels_of_nobody(one)
    elif isinstance(manifest, dict):
        if isinstance(labels := manifest.get("labels"), dict):
            labels.pop("helm.sh/chart", None)
            labels.pop("app.kubernetes.io/managed-by", None)
        for one in manifest.values():
            _labels_of_nobody(one)


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _without(manifests: Sequence[Manifest], others: Sequence[Manifest]) -> list[Manifest]:
    keys = {_key(one) for one in others}
    return [one for one in manifests if _key(one) not in keys]


def _text(manifests: Sequence[Manifest]) -> str:
    return _HEADER + yaml.safe_dump_all(manifests, sort_keys=False, width=110, allow_unicode=True)
