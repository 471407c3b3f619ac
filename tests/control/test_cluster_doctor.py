"""`tidemill doctor --cluster`, over an API server in memory: what is there, what is not, and what helps."""

import socket
from collections.abc import Iterator

import pytest

from tidemill.cluster import Kind
from tidemill.control.cluster_doctor import RIGHTS, examine
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.core.errors import Unsupported
from tidemill.core.settings import Settings
from tidemill.rollout.auto import KNATIVE_SERVICE
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.stack.doctor import Check
from tidemill.testing.cluster import InMemoryCluster


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def seen(cluster: InMemoryCluster, name: str, **settings: str) -> Check:
    return named(examine(cluster, Settings.model_validate(settings)), name)


def with_settings(cluster: InMemoryCluster, **data: str) -> InMemoryCluster:
    metadata = {"name": "inferenceservice-config", "namespace": "kserve"}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, CONFIG_MAP)
    return cluster


def test_what_the_loop_cannot_do_without_is_missing() -> None:
    for name, kind in (("Tidemill", MODEL), ("KServe", INFERENCE_SERVICE)):
        found = seen(InMemoryCluster(unknown=[kind]), name)
        assert (found.state, bool(found.hint)) == ("missing", True)


def test_what_it_can_do_without_is_named_with_what_does_not_work_then() -> None:
    cluster = InMemoryCluster(unknown=[KAFKA_TOPIC, SCALED_OBJECT])
    assert seen(cluster, "Strimzi").found == "not installed: topics are made through the brokers"
    assert seen(cluster, "KEDA").state == "warning"


def test_a_version_is_that_of_the_controllers_image() -> None:
    cluster = InMemoryCluster()
    image = "registry:5000/kserve/controller:v0.20.0@sha256:0"
    controller = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager", "namespace": "kserve"},
        "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
    }
    cluster.apply(controller, DEPLOYMENT)
    assert seen(cluster, "KServe").found == "v0.20.0 (serving.kserve.io/v1beta1)"


def test_the_gateway_that_kserve_names_is_proposed() -> None:
    cluster = with_settings(
        InMemoryCluster(),
        deploy='{"defaultDeploymentMode": "Standard"}',
        ingress='{"enableGatewayApi": true, "kserveIngressGateway": "kserve/public"}',
    )
    found = seen(cluster, "KServe's settings")
    assert found.found == "mode Standard, gateway kserve/public"
    assert found.hint is not None
    assert "TIDEMILL_GATEWAY=kserve/public" in found.hint
    assert seen(cluster, "KServe's settings", gateway="kserve/public").state == "ok"


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_settings_that_are_no_json_object_do_not_end_the_examination(text: str) -> None:
    cluster = with_settings(InMemoryCluster(), deploy=text)
    assert seen(cluster, "KServe's settings").state == "warning"


def test_the_driver_is_told_with_its_reason() -> None:
    assert seen(InMemoryCluster(), "traffic driver", gateway="a/b").found.startswith("gateway: ")
    assert seen(InMemoryCluster(), "traffic driver").found.startswith("knative: ")
    without = InMemoryCluster(unknown=[HTTP_ROUTE, KNATIVE_SERVICE])
    assert seen(without, "traffic driver").state == "missing"


def test_each_verb_that_is_denied_is_named() -> None:
    cluster = InMemoryCluster()
    assert seen(cluster, "rights").state == "ok"
    cluster.denied = {("patch", "deployments"), ("patch", "continualmodels/status")}
    found = {one.found for one in examine(cluster, Settings()) if one.name == "rights"}
    assert found == {
        "no patch of deployments in all namespaces",
        "no patch of continualmodels/status in all namespaces",
    }


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, part, _ in RIGHTS])
def test_no_right_is_asked_for_on_what_is_not_installed(kind: Kind, part: str | None) -> None:
    cluster = InMemoryCluster(unknown=[kind])
    cluster.denied = {(verb, kind.plural if part is None else f"{kind.plural}/{part}") for verb in ("patch", "list")}
    assert seen(cluster, "rights").state == "ok"


def test_an_examiner_who_may_read_nothing_still_learns_what_is_there() -> None:
    class Closed(InMemoryCluster):
        def get(self, kind: Kind, namespace: str | None, name: str) -> None:
            raise Unsupported("forbidden")

        def list(self, kind: Kind, namespace: str | None = None, *, labels: object = None) -> list[dict[str, object]]:
            raise Unsupported("forbidden")

    checks = examine(Closed(), Settings())
    assert named(checks, "KServe").found == "version unknown (serving.kserve.io/v1beta1)"
    assert named(checks, "KServe's settings").found == "may not be read"


def test_a_service_is_reached_or_named(listening: str) -> None:
    cluster = InMemoryCluster()
    assert seen(cluster, "Kafka", kafka=listening).state == "ok"
    assert seen(cluster, "Kafka", kafka=f"{listening},127.0.0.1:1").state == "warning"
    assert seen(cluster, "Redis", redis=f"redis://:secret@{listening}/0").state == "ok"
    assert seen(cluster, "Redis", redis="redis://127.0.0.1:1").state == "missing"
    assert seen(cluster, "Redis").found == "TIDEMILL_REDIS is not set: no features are served"
    assert seen(cluster, "MLflow", mlflow="sqlite:///here.db").state == "missing"


def test_the_object_store_is_the_one_that_the_environment_names(
    listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{listening}")
    assert seen(InMemoryCluster(), "object store", artifacts="s3://versions/a").state == "ok"
    assert seen(InMemoryCluster(), "object store", artifacts="/data").state == "missing"


def test_a_password_is_not_shown() -> None:
    shown = str(examine(InMemoryCluster(), Settings(redis="redis://:secret@127.0.0.1:1", mlflow="file://u:secret@/x")))
    assert "secret" not in shown
