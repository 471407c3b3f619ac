"""`tidemill doctor --cluster` on a real API server with KServe's controller, by an administrator and by less."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tidemill.cluster import Kind
from tidemill.cluster.kubernetes_api import connect
from tidemill.control.cluster_doctor import rights
from tidemill.testing import eventually
from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.operator_plane import install_optional, operator_rights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")


def doctor(kubeconfig: Path, folder: Path, **settings: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit status, and the checks by their name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environment |= {"KUBECONFIG": str(kubeconfig)} | {f"TIDEMILL_{name}": value for name, value in settings.items()}
    argv = [sys.executable, "-m", "tidemill.cli", "doctor", "--cluster", "--output", "json"]
    run = subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, timeout=240)
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(run.stdout or f"no output: {run.stderr}"):
        found.setdefault(check["name"], []).append(check)
    return run.returncode, found


def test_it_finds_what_is_installed_and_names_what_is_not(kserve: ControlPlane, tmp_path: Path) -> None:
    status, found = doctor(kserve.kubeconfig, tmp_path)
    assert status == 1
    said = {name: checks[0]["found"] for name, checks in found.items()}
    assert said["Kubernetes"] == "v1.36.1"
    assert said["Gateway API"].startswith("v1.6.3 ")
    assert said["KServe's settings"] == "mode Standard, gateway kserve/kserve-ingress-gateway"
    assert said["traffic driver"].startswith("knative: ")
    assert said["Strimzi"].startswith("not installed: ")
    assert said["Kafka"] == "TIDEMILL_KAFKA is not set: no events come in"


def test_the_gateway_it_proposes_changes_the_driver(kserve: ControlPlane, tmp_path: Path) -> None:
    _, found = doctor(kserve.kubeconfig, tmp_path, GATEWAY="kserve/kserve-ingress-gateway")
    assert found["KServe's settings"][0]["state"] == "ok"
    assert found["traffic driver"][0]["found"].startswith("gateway: ")


def test_who_has_no_rights_is_told_each_that_lacks(kserve: ControlPlane, tmp_path: Path) -> None:
    here = kserve.namespace()
    token = kserve.kubectl("create", "token", "default", "--namespace", here).strip()
    status, found = doctor(kserve.kubeconfig_for(token, here), tmp_path, NAMESPACE=here)
    assert status == 1
    assert found["KServe's settings"][0]["found"] == "may not be read"
    missing = {one["found"] for one in found["rights"]}
    assert f"no list, watch, create, patch, delete of inferenceservices in {here}" in missing


def test_each_verb_that_is_taken_from_the_operator_is_named(kserve: ControlPlane) -> None:
    install_optional(kserve)
    here = kserve.namespace()
    operator = operator_rights(kserve, here)
    api, people = connect(kubeconfig=str(operator.kubeconfig)), kserve.admin.as_manager("kubectl")
    rules = yaml.safe_load((ROOT / "helm/tidemill/files/operator-rules.yaml").read_text())
    assert [check.state for check in rights(api, here)] == ["ok"]
    for number, verb in [(number, verb) for number, rule in enumerate(rules) for verb in rule["verbs"]]:
        left = copy.deepcopy(rules)
        left[number]["verbs"].remove(verb)
        meta = {"name": operator.user.split(":")[2], "namespace": here}
        role = {"apiVersion": ROLE.api_version, "kind": ROLE.kind, "metadata": meta}
        people.apply(role | {"rules": [rule for rule in left if rule["verbs"]]}, ROLE, force=True)
        wanted = [f"no {verb} of {rules[number]['resources'][0]} in {here}"]
        eventually(lambda wanted=wanted: [check.found for check in rights(api, here)] == wanted, 30)  # type: ignore[misc]
