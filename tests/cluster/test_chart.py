"""The chart on a real API server that enforces the restricted standard: installed, changed, taken back, removed."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.waiting import eventually

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/tidemill"
SAMPLE = ROOT / "manifests/samples/minimal.yaml"
KUBECTL = ("kubectl", "--kubeconfig")
MODES = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
KINDS = (
    "configmaps,deployments,services,serviceaccounts,roles,rolebindings,networkpolicies,pods,secrets,"
    "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,"
    "customresourcedefinitions"
)

pytestmark = pytest.mark.slow

Helm = Callable[..., str]


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    plane.kubectl(
        "apply", "--filename", "-", stdin='{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kserve"}}'
    )
    return plane.namespace(**MODES)


@pytest.fixture
def helm(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Helm]:
    """Helm in that namespace; fails on a warning. What it installed goes at the end."""
    env = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [str(plane.helm), *arguments, "--namespace", namespace]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "warn" not in done.stderr.lower(), done.stderr
        return done.stdout

    yield run
    if "tidemill" in run("list", "--short"):
        run("uninstall", "tidemill", "--wait")


def install(helm: Helm, *values: str, verb: str = "install") -> str:
    # KServe's definitions are not on this API server: the runtime is left out.
    # The definition may be there from another release, or from kubectl.
    arguments = (str(CHART), "--take-ownership", "--set=kserve.runtime=false", *(f"--set={one}" for one in values))
    return helm(verb, "tidemill", *arguments)


def kept(plane: ControlPlane, namespace: str) -> set[tuple[str, str]]:
    """Everything of the release's kinds, here and of the whole cluster, that names Tidemill."""
    found: dict[str, Any] = json.loads(plane.kubectl("get", KINDS, "--namespace", namespace, "--output", "json"))
    settings = json.loads(plane.kubectl("get", "roles,rolebindings", "--namespace", "kserve", "--output", "json"))
    names = {(one["kind"], one["metadata"]["name"]) for one in found["items"] + settings["items"]}
    return {one for one in names if "tidemill" in one[1]}


def test_installed_changed_taken_back_and_removed_it_leaves_the_definition_and_the_models(
    plane: ControlPlane, helm: Helm, namespace: str
) -> None:
    notes = install(helm, "feedback.enabled=true", "dashboard.enabled=true")
    assert "kubectl get ctm -w" in notes
    for role in ("operator", "feedback", "dashboard"):
        # Pods are let in by the standard, and made ready by KWOK.
        plane.kubectl("rollout", "status", f"deployment/tidemill-{role}", "--namespace", namespace, "--timeout=60s")
    plane.wait_until_served("continualmodels.tidemill.dev")
    plane.kubectl("apply", "--namespace", namespace, "--filename", str(SAMPLE))

    install(helm, "settings.kafka=k:9092", verb="upgrade")
    config = ("get", "configmap", "tidemill-config", "--namespace", namespace, "--output", "json")
    assert json.loads(plane.kubectl(*config))["data"]["TIDEMILL_KAFKA"] == "k:9092"
    assert ("Deployment", "tidemill-feedback") not in kept(plane, namespace)

    helm("rollback", "tidemill", "1")
    assert "TIDEMILL_KAFKA" not in json.loads(plane.kubectl(*config))["data"]
    assert ("Deployment", "tidemill-feedback") in kept(plane, namespace)

    helm("uninstall", "tidemill", "--wait")
    definition = {("CustomResourceDefinition", "continualmodels.tidemill.dev")}
    eventually(lambda: kept(plane, namespace) == definition, deadline_s=60)
    assert "minimal" in plane.kubectl("get", "ctm", "--namespace", namespace)


def test_it_is_installed_again_over_what_was_kept(plane: ControlPlane, helm: Helm, namespace: str) -> None:
    install(helm)
    helm("uninstall", "tidemill", "--wait")
    install(helm, "crds.install=false")


def test_the_operators_rights_are_what_its_role_says(plane: ControlPlane, helm: Helm, namespace: str) -> None:
    install(helm)
    account = f"system:serviceaccount:{namespace}:tidemill-operator"

    def may(verb: str, resource: str, where: str = "default") -> bool:
        command = [*KUBECTL, str(plane.kubeconfig), "auth", "can-i", verb, resource, "-n", where, "--as", account]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return answer.stdout.strip() == "yes"

    assert may("patch", "continualmodels.tidemill.dev")
    assert may("create", "deployments.apps")
    assert may("get", "configmaps/inferenceservice-config", "kserve")
    for verb, resource in (
        ("get", "secrets"),
        ("create", "pods"),
        ("update", "roles.rbac.authorization.k8s.io"),
        ("delete", "continualmodels.tidemill.dev"),
        ("approve", "continualmodels.tidemill.dev"),
        ("impersonate", "users"),
    ):
        assert not may(verb, resource), f"{verb} {resource}"


def test_only_holders_of_the_verb_may_approve(plane: ControlPlane, helm: Helm, namespace: str) -> None:
    install(helm)
    plane.wait_until_served("continualmodels.tidemill.dev")
    plane.kubectl("apply", "--namespace", namespace, "--filename", str(SAMPLE))
    bind = ("create", "rolebinding", "--namespace", namespace)
    plane.kubectl(*bind, "editors", "--clusterrole=edit", "--user=editor", "--user=lead")
    plane.kubectl(*bind, "approvers", "--clusterrole=tidemill-approver", "--user=lead")

    def annotate(user: str, *what: str) -> str:
        command = [*KUBECTL, str(plane.kubeconfig), "annotate", "ctm", "minimal", *what, "-n", namespace]
        run = subprocess.run([*command, "--overwrite", "--as", user], capture_output=True, text=True, timeout=30)
        return run.stderr

    # The policy is in force some moments after it is there, and so are rights that are aggregated. Until then an
    # annotation is taken, and the same one again would be no change.
    tries = itertools.count()
    eventually(lambda: "may be changed only by" in annotate("editor", f"tidemill.dev/approve=t{next(tries)}"), 60)
    assert annotate("editor", "tidemill.dev/pause=1") == ""
    assert annotate("lead", "tidemill.dev/approve=v2") == ""
    assert "may be changed only by" in annotate("editor", "tidemill.dev/approve=v3")
    assert "may be changed only by" in annotate("editor", "tidemill.dev/approve-")
    assert "may be changed only by" in annotate("editor", "tidemill.dev/promote=v3")
    required, lifted = (json.dumps({"spec": {"rollout": {"approval": word}}}) for word in ("required", "none"))
    patch = ("patch", "ctm", "minimal", "--namespace", namespace, "--type=merge", "--as=editor", "--patch")
    plane.kubectl(*patch, required)
    with pytest.raises(AssertionError, match=r"spec\.rollout\.approval may be lifted, .* only by"):
        plane.kubectl(*patch, lifted)
    delete = ("delete", "ctm", "minimal", "--namespace", namespace, "--wait=false")
    with pytest.raises(AssertionError, match="a model that has it deleted, only by"):  # and declared anew without
        plane.kubectl(*delete, "--as=editor")
    assert "deleted" in plane.kubectl(*delete, "--as=lead", "--dry-run=server")
    assert annotate("editor", "tidemill.dev/note=x") == ""
    made = json.dumps(
        {
            **json.loads(plane.kubectl("get", "ctm", "minimal", "--namespace", namespace, "--output", "json")),
            "metadata": {"name": "other", "namespace": namespace, "annotations": {"tidemill.dev/approve": "v1"}},
        }
    )
    with pytest.raises(AssertionError, match="may be changed only by"):
        plane.kubectl("create", "--as", "editor", "--filename", "-", stdin=made)
    leaving = plane.namespace("leaving")
    plane.kubectl("apply", "--namespace", leaving, "--filename", str(SAMPLE))
    plane.kubectl("patch", "ctm", "minimal", "--namespace", leaving, "--type=merge", "--patch", required)
    plane.kubectl("delete", "namespace", leaving, "--timeout=60s")  # what needs approval does not hold it up


def test_explain_tells_what_the_resource_is(plane: ControlPlane, helm: Helm) -> None:
    install(helm)
    plane.wait_until_served("continualmodels.tidemill.dev")
    told = eventually(lambda: plane.kubectl("explain", "ctm.spec.rollout"), deadline_s=30)
    assert "How traffic moves to a candidate." in told
    assert "enum: none, required" in told
