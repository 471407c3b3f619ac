"""The operator with the chart's own rights, on a real API server with KServe's controller; a gateway is played."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.kubernetes_api import KubernetesCluster
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.control.cluster_provision import FINALIZER, ORPHAN
from tidemill.core.settings import PREFIX, Settings
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.rollout.kserve import MODEL as MODEL_LABEL
from tidemill.rollout.kserve import SETTINGS as SETTINGS_NAME
from tidemill.testing import eventually
from tidemill.testing.control_plane import NAMESPACE, ControlPlane
from tidemill.testing.loop import example_resource
from tidemill.testing.operator_plane import PlaneWorld, Rights, RunningOperator, install_optional, operator_rights

pytestmark = [
    pytest.mark.slow,
    # kopf leaves connections of watches that were cancelled to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
SERVED = (INFERENCE_SERVICE, HTTP_ROUTE)
SOON_S = 60
"""What takes a second or two on a machine that has nothing else to do."""
SETTINGS = Settings(
    kafka="kafka.example:9092", redis="redis://redis.example:6379/0", strimzi_cluster="main", events_partitions=3
)


@pytest.fixture(scope="module")
def namespace(kserve: ControlPlane, cluster: KubernetesCluster) -> Iterator[str]:
    """One in which the restricted standard is enforced; each test has a model of its own in it."""
    name = kserve.namespace("models", **{"pod-security.kubernetes.io/enforce": "restricted"})
    install_optional(kserve)
    yield name
    cluster.delete(NAMESPACE, None, name)


@pytest.fixture(scope="module")
def rights(kserve: ControlPlane) -> Rights:
    """An operator of the whole cluster."""
    return operator_rights(kserve)


@pytest.fixture(scope="module")
def few_rights(kserve: ControlPlane, namespace: str) -> Rights:
    """An operator of that namespace alone."""
    return operator_rights(kserve, namespace)


@pytest.fixture(scope="module")
def running(few_rights: Rights, namespace: str) -> Iterator[RunningOperator]:
    found = RunningOperator(few_rights, namespace, settings=SETTINGS)
    yield found
    found.close()


class Model:
    """One model of this name, as a person with kubectl sees it."""

    def __init__(self, plane: ControlPlane, namespace: str, name: str) -> None:
        self.plane, self.namespace, self.name = plane, namespace, name
        self.declare(example_resource(name).model_dump(mode="json", by_alias=True, exclude_unset=True))

    def declare(self, said: dict[str, Any]) -> None:
        said["metadata"] = {"name": self.name, "namespace": self.namespace}
        self.plane.admin.as_manager("kubectl").apply(said, MODEL, force=True)

    def kubectl(self, verb: str, *arguments: str) -> str:
        return self.plane.kubectl(verb, *arguments, "--namespace", self.namespace)

    @property
    def manifest(self) -> Manifest:
        return self.plane.admin.get(MODEL, self.namespace, self.name) or {}

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest.get("status", {})
        return found

    def names(self, kind: Kind) -> list[str]:
        found = self.plane.admin.list(kind, self.namespace, labels={MODEL_LABEL: self.name})
        return [one["metadata"]["name"] for one in found]

    def workers(self) -> list[str]:
        """Their names, once all of them are there."""
        return eventually(lambda: len(found := self.names(DEPLOYMENT)) == 3 and found, SOON_S) or []

    def condition(self, kind: str, reason: str) -> dict[str, Any]:
        """The condition, once it has this reason."""

        def told() -> dict[str, Any]:
            conditions = self.status.get("conditions", [])
            return next((one for one in conditions if (one["type"], one["reason"]) == (kind, reason)), {})

        return eventually(told, SOON_S)


@pytest.fixture
def phones(
    running: RunningOperator, kserve: ControlPlane, namespace: str, request: pytest.FixtureRequest
) -> Iterator[Model]:
    model = Model(kserve, namespace, f"phones-{abs(hash(request.node.name)) % 10**6}")
    yield model
    kserve.admin.delete(MODEL, namespace, model.name)


def test_what_is_applied_becomes_objects_and_a_status_and_is_then_left_in_peace(
    running: RunningOperator, phones: Model
) -> None:
    assert phones.workers() == [f"{phones.name}-{role}" for role in ("ingest", "outcomes", "watch")]
    kinds = (JOB, KAFKA_TOPIC, SCALED_OBJECT)
    assert eventually(lambda: all(phones.names(kind) for kind in kinds), SOON_S)
    status = eventually(lambda: phones.status, SOON_S)
    assert status["phase"] == "Bootstrapping"
    # The restricted standard lets their pods be.
    eventually(lambda: len(phones.kubectl("get", "pods", "-o", "name").split()) >= 4, SOON_S)
    assert "Bootstrapping" in phones.kubectl("get", "ctm", phones.name)
    assert running.calls_in(10) <= 2, running.calls


def test_a_deleted_worker_is_back_and_an_edit_is_told_until_it_is_taken_back(phones: Model) -> None:
    *_, watch = phones.workers()
    before = _uid(phones, watch)
    phones.kubectl("delete", "deployment", watch)
    eventually(lambda: _uid(phones, watch) not in {None, before}, SOON_S)
    _edit(phones, "somebody-elses:1")
    assert "kubectl" in phones.condition("Provisioned", "ForeignEdit")["message"]
    _edit(phones, "tidemill-outcomes:latest")
    phones.condition("Provisioned", "AsWanted")


def test_settings_that_somebody_deletes_are_back_and_edits_of_them_are_told(phones: Model) -> None:
    def data() -> dict[str, str] | None:
        found = phones.plane.admin.get(CONFIG_MAP, phones.namespace, SETTINGS_NAME)
        return None if found is None else dict(found["data"])

    before = eventually(data, SOON_S)
    phones.kubectl("delete", "configmap", SETTINGS_NAME)
    assert eventually(data, SOON_S) == before
    edit = f'[{{"op": "replace", "path": "/data/{PREFIX}KAFKA", "value": "elsewhere:9092"}}]'
    phones.kubectl("patch", "configmap", SETTINGS_NAME, "--type=json", f"--patch={edit}")
    assert "kubectl" in phones.condition("Provisioned", "ForeignEdit")["message"]
    phones.kubectl("delete", "configmap", SETTINGS_NAME)
    phones.condition("Provisioned", "AsWanted")
    assert data() == before


def _uid(model: Model, name: str) -> str | None:
    found = model.plane.admin.get(DEPLOYMENT, model.namespace, name)
    return None if found is None else str(found["metadata"]["uid"])


def _edit(model: Model, image: str) -> None:
    model.kubectl("set", "image", f"deployment/{model.name}-outcomes", f"outcomes={image}")


def test_an_invalid_resource_is_told_its_path(phones: Model) -> None:
    # The CRD's rules do not know what a cron expression is.
    said = {name: phones.manifest[name] for name in ("apiVersion", "kind", "spec")}
    said["spec"]["triggers"] = {"schedule": {"cron": "61 * * * *"}}
    phones.declare(said)
    assert "triggers.schedule" in phones.condition("Valid", "Refused")["message"]


def test_what_a_changed_resource_needs_no_more_goes(phones: Model) -> None:
    (before,) = eventually(lambda: phones.names(JOB), SOON_S)
    said = example_resource(phones.name).model_dump(mode="json", by_alias=True, exclude_unset=True)
    route = {"name": "ops", "urlEnv": "OPS_URL"}
    phones.declare(said | {"spec": said["spec"] | {"alerts": {"routes": [route]}}})
    eventually(lambda: len(phones.names(DEPLOYMENT)) == 4, SOON_S)
    phones.declare(said | {"spec": said["spec"] | {"features": {"image": ["brightness"]}}})
    eventually(lambda: len(phones.names(DEPLOYMENT)) == 3 and phones.names(JOB) not in ([before], []), SOON_S)


def test_what_other_settings_need_no_more_goes(kserve: ControlPlane, rights: Rights) -> None:
    here = kserve.namespace("models")
    for partitions, scaled in ((3, 1), (1, 0)):
        model = Model(kserve, here, "phones")
        operator = RunningOperator(rights, here, settings=SETTINGS.model_copy(update={"events_partitions": partitions}))
        eventually(lambda: len(model.names(SCALED_OBJECT)) == scaled, SOON_S)  # noqa: B023 - waited for here
        operator.close()


@pytest.mark.parametrize("orphaned", [False, True])
def test_a_deleted_model_takes_all_with_it_unless_it_is_to_be_left(phones: Model, orphaned: bool) -> None:
    workers = phones.workers()
    assert phones.manifest["metadata"]["finalizers"] == [FINALIZER]
    if orphaned:
        phones.kubectl("annotate", "ctm", phones.name, f"{ORPHAN}=true")
    phones.kubectl("delete", "ctm", phones.name, f"--timeout={SOON_S}s")
    if orphaned:
        assert phones.names(DEPLOYMENT) == workers
        left = phones.plane.admin.list(DEPLOYMENT, phones.namespace, labels={MODEL_LABEL: phones.name})
        assert all("ownerReferences" not in one["metadata"] for one in left)
    else:
        kinds = (DEPLOYMENT, JOB, CONFIG_MAP)
        eventually(lambda: not [name for kind in kinds for name in phones.names(kind)], 2 * SOON_S, every_s=0.2)


@pytest.fixture(params=["gateway", "knative"])
def world(request: pytest.FixtureRequest, rights: Rights, kserve: ControlPlane) -> Iterator[PlaneWorld]:
    """A model whose rollouts go through the driver of this name."""
    found = PlaneWorld(kserve, rights, by=request.param)
    yield found
    found.close()


def test_versions_come_step_by_step_and_one_that_does_harm_is_taken_back(world: PlaneWorld) -> None:
    first = world.bench.bootstrap()
    second = _at_five_percent(world, first)
    world.judged(
        lambda status: bool(status.champion and status.champion.version == second) and status.rollout is None,
        {first: 0.4, second: 0.05},
        per_second=100,
    )
    third = _at_five_percent(world, second)
    world.judged(lambda status: status.rollout is None, {second: 0.05, third: 0.9}, per_second=100)
    world.bench.until(lambda status: world.status["traffic"] == f"{second} 100 %")
    assert world.status["champion"] == second
    world.delete()
    eventually(lambda: not [one for kind in SERVED for one in world.objects(kind)], SOON_S)


def _at_five_percent(world: PlaneWorld, champion: str) -> str:
    """A candidate gets its first requests, and people see it."""
    candidate = world.candidate()
    world.bench.until(lambda status: world.status["traffic"] == f"{champion} 95 %, {candidate} 5 %")
    return candidate


def test_each_right_is_used_and_no_other_is_asked_for(
    kserve: ControlPlane, request: pytest.FixtureRequest, rights: Rights, few_rights: Rights
) -> None:
    """It is the last of this file: it judges what the tests before it made the operators ask for."""
    if not {"world", "phones"} <= {
        name for item in request.session.items for name in getattr(item, "fixturenames", ())
    }:
        pytest.skip("only as the last of all tests of this file")
    asked = [one for user in (rights.user, few_rights.user) for one in kserve.asked_by(user)]
    assert not [one for one in asked if one.status == 403]
    done = {(one.group, one.resource, one.verb) for one in asked if one.status < 300}
    # An object that is stated for the first time is created: the API server asks for both verbs.
    done |= {(one.group, one.resource, "create") for one in asked if (one.verb, one.status) == ("patch", 201)}
    # It is asked for within another call, wherever an owner holds up deletion.
    done.add(("tidemill.dev", "continualmodels/finalizers", "update"))
    rules = yaml.safe_load((ROOT / "helm/tidemill/files/operator-rules.yaml").read_text())
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert done == granted
