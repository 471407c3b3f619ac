"""Each template of the chart: what it makes, and what of the values changes it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.generate import manifests
from helm.generate.__main__ import CHART, ROOT
from tests.helm.conftest import Manifest, Render

pytestmark = pytest.mark.slow

ALL: Manifest = {
    "feedback": {"enabled": True},
    "dashboard": {"enabled": True},
    "monitoring": {"podMonitors": True, "rules": True, "dashboards": True},
}


def of(found: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    return [one for one in found if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def one(found: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    (match,) = of(found, kind, name)
    return match


def pods(found: list[Manifest]) -> list[tuple[str, Manifest]]:
    """The pod specs of everything that makes pods."""
    specs = [(item["metadata"]["name"], item["spec"]["template"]["spec"]) for item in of(found, "Deployment")]
    specs += [(item["metadata"]["name"], item["spec"]) for item in of(found, "Pod")]
    return specs + [(item["metadata"]["name"], item["spec"]) for item in of(found, "ClusterServingRuntime")]


@pytest.fixture(scope="module")
def everything(render: Render) -> list[Manifest]:
    return render(ALL)


@pytest.fixture(scope="module")
def plain(render: Render) -> list[Manifest]:
    return render()


def test_the_definition_is_that_of_the_code_and_is_kept(render: Render, plain: list[Manifest]) -> None:
    found = one(plain, "CustomResourceDefinition")
    assert found == yaml.safe_load((CHART / "files/crd.yaml").read_text())
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not of(render({"crds": {"install": False}}), "CustomResourceDefinition")


def test_every_pod_meets_the_restricted_standard_with_a_read_only_root(everything: list[Manifest]) -> None:
    assert len(pods(everything)) == 5
    for name, spec in pods(everything):
        for container in spec["containers"]:
            both = spec.get("securityContext", {}) | container["securityContext"]
            assert both["runAsNonRoot"] is True, name
            assert both["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert both["allowPrivilegeEscalation"] is False, name
            assert both["capabilities"] == {"drop": ["ALL"]}, name
            assert both["readOnlyRootFilesystem"] is True, name
            if container["name"] != "kserve-container":  # of versions, each model says what they need
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert {mount["name"] for mount in container["volumeMounts"]} == {"state", "tmp"}, name
        assert all("emptyDir" in volume for volume in spec["volumes"]), name


def test_a_token_is_mounted_only_where_a_role_is_bound(everything: list[Manifest]) -> None:
    bound = {
        subject["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for binding in of(everything, kind)
        for subject in binding["subjects"]
    }
    assert all(account["automountServiceAccountToken"] is False for account in of(everything, "ServiceAccount"))
    for name, spec in pods(everything):
        assert spec.get("automountServiceAccountToken", False) == (spec.get("serviceAccountName") in bound), name


def test_there_is_no_secret_and_no_text_that_could_be_one(everything: list[Manifest]) -> None:
    assert not of(everything, "Secret")
    for _, spec in pods(everything):
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                assert source.keys() <= {"configMapRef", "secretRef"}


def test_settings_become_the_environment_by_their_names(render: Render) -> None:
    settings = {"kafka": "k:9092", "events_partitions": 12, "lake_retention_days": 30, "ingest_batch_records": 1000000}
    data = one(render({"settings": settings}), "ConfigMap", "tidemill-config")["data"]
    assert data["TIDEMILL_KAFKA"] == "k:9092"
    assert data["TIDEMILL_EVENTS_PARTITIONS"] == "12"
    assert data["TIDEMILL_INGEST_BATCH_RECORDS"] == "1000000"
    assert "TIDEMILL_REDIS" not in data
    assert all(isinstance(text, str) for text in data.values())


def test_the_operator_is_one_and_is_replaced_when_settings_change(render: Render, plain: list[Manifest]) -> None:
    found = one(plain, "Deployment", "tidemill-operator")
    assert found["spec"]["replicas"] == 1
    assert found["spec"]["strategy"] == {"type": "Recreate"}
    other = one(render({"settings": {"kafka": "k:9092"}}), "Deployment", "tidemill-operator")
    marks = [item["spec"]["template"]["metadata"]["annotations"]["tidemill.dev/config"] for item in (found, other)]
    assert marks[0] != marks[1]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["operator"]
    assert {"name": "TIDEMILL_IMAGE", "value": "tidemill-{role}:0.1.0"} in container["env"]


def test_images_have_their_roles_tag_or_digest(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    image = {
        "repository": "registry.example/tidemill",
        "tag": "1",
        "digests": {"operator": digest},
        "pullSecrets": ["a"],
    }
    found = render({**ALL, "image": image})
    images = {name: spec["containers"][0]["image"] for name, spec in pods(found)}
    assert images["tidemill-operator"] == f"registry.example/tidemill-operator@{digest}"
    assert images["tidemill-feedback"] == "registry.example/tidemill-feedback:1"
    assert images["tidemill"] == "registry.example/tidemill-serve:1"
    assert all(spec["imagePullSecrets"] == [{"name": "a"}] for _, spec in pods(found))


@pytest.mark.parametrize("role", ["feedback", "dashboard"])
def test_what_people_ask_is_there_only_where_values_say(
    role: str, everything: list[Manifest], plain: list[Manifest]
) -> None:
    name = f"tidemill-{role}"
    service = one(everything, "Service", name)
    template = one(everything, "Deployment", name)["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    rules = one(everything, "ClusterRole", name)["rules"]
    more = ["patch"] if role == "dashboard" else []
    assert [(one["resources"], one["verbs"]) for one in rules] == [
        (["continualmodels"], ["get", "list", "watch", *more])
    ]
    assert not [item for item in plain if item["metadata"]["name"] == name]


def test_one_flag_keeps_all_rights_within_the_namespace(render: Render) -> None:
    found = render({**ALL, "scope": "namespace", "access": {"roles": False}, "approval": {"policy": False}})
    wide = [item["kind"] for item in found if "namespace" not in item["metadata"]]
    assert wide == ["CustomResourceDefinition"]
    assert {item["metadata"]["namespace"] for item in of(found, "Role")} == {"tidemill-system", "kserve"}
    env = one(found, "Deployment", "tidemill-operator")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert "TIDEMILL_NAMESPACE" in {item["name"] for item in env}
    assert one(found, "ServingRuntime")["metadata"]["namespace"] == "tidemill-system"


def test_the_operator_may_do_nothing_with_stars_secrets_pods_or_roles(plain: list[Manifest]) -> None:
    for rule in one(plain, "ClusterRole", "tidemill-operator")["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods", "roles", "clusterroles", "nodes"} & set(rule["resources"])


def test_the_runtime_serves_what_the_operator_asks_for(render: Render, plain: list[Manifest]) -> None:
    runtime = one(plain, "ClusterServingRuntime", "tidemill")["spec"]
    assert runtime["supportedModelFormats"] == [{"name": "tidemill", "version": "1", "autoSelect": False}]
    (container,) = runtime["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"][0] == "serve"
    assert not of(render({"kserve": {"runtime": False}}), "ClusterServingRuntime")


def test_to_approve_is_a_right_of_its_own(render: Render, plain: list[Manifest]) -> None:
    policy = one(plain, "ValidatingAdmissionPolicy")
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert one(plain, "ValidatingAdmissionPolicyBinding")["spec"]["policyName"] == policy["metadata"]["name"]
    holders = [role["metadata"]["name"] for role in of(plain, "ClusterRole") if "approve" in str(role["rules"])]
    assert holders == ["tidemill-approver"]
    assert not of(render({"approval": {"policy": False}}), "ValidatingAdmissionPolicy")


def test_who_may_view_or_edit_a_namespace_may_do_so_to_its_models(plain: list[Manifest]) -> None:
    for name, verb in (("view", "get"), ("edit", "patch")):
        role = one(plain, "ClusterRole", f"tidemill-{name}")
        assert role["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{name}"] == "true"
        assert verb in role["rules"][0]["verbs"]


def test_policies_let_in_only_what_is_listed(render: Render, everything: list[Manifest]) -> None:
    ports = {
        policy["metadata"]["name"]: [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]]
        for policy in of(everything, "NetworkPolicy")
    }
    web = ["metrics", "http"]
    assert ports == {"tidemill-operator": ["metrics"], "tidemill-feedback": web, "tidemill-dashboard": web}
    rule: dict[str, Any] = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    (closed,) = of(render({"networkPolicies": {"egress": [rule]}}), "NetworkPolicy")
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert closed["spec"]["egress"][-1] == rule
    assert not of(render({"networkPolicies": {"enabled": False}}), "NetworkPolicy")


def test_monitoring_is_there_only_where_values_say(render: Render, plain: list[Manifest]) -> None:
    kinds = ("PodMonitor", "PrometheusRule")
    assert not [item for kind in kinds for item in of(plain, kind)]
    found = render(
        {"monitoring": ALL["monitoring"] | {"labels": {"release": "p"}, "runbooks": "https://docs.example/"}}
    )
    for kind in kinds:
        assert {item["metadata"]["labels"]["release"] for item in of(found, kind)} == {"p"}
    alerts = yaml.safe_load((ROOT / "manifests/prometheus/rules.yaml").read_text())["groups"]
    groups = one(found, "PrometheusRule")["spec"]["groups"]
    assert [group["name"] for group in groups] == [group["name"] for group in alerts]
    first = groups[0]["rules"][0]["annotations"]["runbook_url"]
    assert first == f"https://docs.example/docs/kubernetes/runbook.md#{alerts[0]['rules'][0]['alert'].lower()}"
    boards = [item for item in of(found, "ConfigMap") if item["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(boards) == len(list((CHART / "files/dashboards").glob("*.json")))
    (text,) = boards[0]["data"].values()
    assert text == (CHART / "files/dashboards" / next(iter(boards[0]["data"])).removeprefix("tidemill-")).read_text()


def test_helm_test_asks_the_doctor_with_the_operators_rights(plain: list[Manifest]) -> None:
    pod = one(plain, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["serviceAccountName"] == "tidemill-operator"
    assert pod["spec"]["containers"][0]["args"] == ["doctor", "--cluster"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"scop": "cluster"}, "scop"),
        ({"scope": "everything"}, "scope"),
        ({"settings": {"kafkaa": "k:9092"}}, "kafkaa"),
        ({"settings": {"events_partitions": 0}}, "events_partitions"),
        ({"image": {"digests": {"operator": "1"}}}, "operator"),
    ],
)
def test_other_values_are_refused_by_name(values: Manifest, why: str, render: Render) -> None:
    with pytest.raises(AssertionError, match=why):
        render(values)


def test_the_manifests_are_what_the_chart_renders(helm: Path) -> None:
    for path, text in manifests.rendered(helm, CHART, ROOT / "manifests").items():
        assert path.read_text() == text, f"{path}: make manifests"
