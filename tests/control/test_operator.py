"""A ContinualModel on a cluster becomes objects, turns and a status that people can read."""

import json
from typing import Any

import pytest

from tidemill.cluster import Manifest
from tidemill.control.cluster_events import EVENT
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.control.cluster_provision import FINALIZER, ORPHAN
from tidemill.control.provision import topics_of
from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.settings import Settings
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.loop import example_resource
from tidemill.testing.operator import OperatorBench

PHONES = example_resource("phones")


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster(unknown=(KAFKA_TOPIC, SCALED_OBJECT))


@pytest.fixture
def bench(cluster: InMemoryCluster) -> OperatorBench:
    bench = OperatorBench(cluster)
    # A person's own manager: what it says is not the operator's to take back.
    bench.cluster = cluster.as_manager("kubectl")
    return bench


def names(cluster: InMemoryCluster, kind: Any) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.list(kind, "default")]


def annotate(bench: OperatorBench, **annotations: str) -> None:
    found = bench.model(PHONES)
    meta = {"name": "phones", "namespace": "default", "annotations": annotations}
    bench.cluster.as_manager("annotate").apply(  # type: ignore[attr-defined]
        {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": meta}, MODEL
    )


def delete(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    """As the API server does with an object that has finalizers."""
    marked = {"metadata": {"name": "phones", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    cluster.as_manager("server").apply(marked, MODEL)
    bench.rounds(2)


def test_a_model_gets_its_resource_its_workers_and_its_topics(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    assert names(cluster, DEPLOYMENT) == ["phones-ingest", "phones-outcomes", "phones-watch"]
    assert names(cluster, CONFIG_MAP) == ["phones-resource", "tidemill-settings"]
    topics = topics_of(PHONES)
    assert {topics.events, topics.labels, topics.decisions, topics.requests} <= bench.topics.keys()


def test_what_is_made_is_owned_by_the_model_and_runs_restricted(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    uid = bench.model(PHONES)["metadata"]["uid"]
    for one in cluster.list(DEPLOYMENT, "default"):
        assert [owner["uid"] for owner in one["metadata"]["ownerReferences"]] == [uid]
        pod = one["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_password_is_written_anywhere(cluster: InMemoryCluster) -> None:
    secret = Settings(kafka="kafka.example:9092", redis="rediss://app:hunter2@redis.example:6379/0")
    bench = OperatorBench(cluster, secret)
    bench.apply(PHONES)
    bench.rounds()
    objects = [*cluster.list(CONFIG_MAP), *cluster.list(DEPLOYMENT), *cluster.list(MODEL)]
    assert "hunter2" not in json.dumps(objects)
    assert "TIDEMILL_KAFKA" in cluster.get(CONFIG_MAP, "default", "tidemill-settings")["data"]  # type: ignore[index]


def test_the_status_reads_like_a_sentence(bench: OperatorBench) -> None:
    bench.apply(PHONES)
    bench.rounds(2)
    status = bench.model(PHONES)["status"]
    assert status["phase"] == "Bootstrapping"
    assert status["observedGeneration"] == bench.model(PHONES)["metadata"]["generation"]
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Valid": "True",
        "Operating": "True",
        "Provisioned": "True",
        "Ready": "False",
        "Progressing": "False",
        "TrafficAsAsked": "True",
    }


def test_a_condition_keeps_its_time_while_it_does_not_change(bench: OperatorBench) -> None:
    bench.apply(PHONES)
    bench.rounds()
    before = bench.condition(PHONES, "Ready")["lastTransitionTime"]
    bench.rounds(5)
    assert bench.condition(PHONES, "Ready")["lastTransitionTime"] == before


def test_nothing_is_written_while_nothing_changes(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds(3)
    cluster.calls.clear()
    bench.rounds(20)
    written = [call for call in cluster.calls if call[0] not in {"get", "list"}]
    # What was seen last is told now and then, for people; nothing else is.
    assert {kind for _, kind in written} <= {"ContinualModel"}
    assert len(written) <= 20


def test_a_deleted_worker_is_made_again(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    cluster.delete(DEPLOYMENT, "default", "phones-watch")
    bench.rounds(2)
    assert "phones-watch" in names(cluster, DEPLOYMENT)


def test_an_edit_by_somebody_else_is_reported_and_left(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    edited: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "phones-outcomes", "namespace": "default"},
        "spec": {"replicas": 0},
    }
    cluster.as_manager("kubectl-edit").apply(edited, DEPLOYMENT, force=True)
    bench.rounds(3)
    found = cluster.get(DEPLOYMENT, "default", "phones-outcomes")
    assert found is not None
    assert found["spec"]["replicas"] == 0
    told = bench.condition(PHONES, "Provisioned")
    assert (told["status"], told["reason"]) == ("False", "ForeignEdit")
    assert "kubectl-edit" in told["message"]


def test_a_worker_that_is_needed_no_more_is_deleted(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    routed = example_resource("phones", alerts={"routes": [{"name": "team", "urlEnv": "TEAM_CHAT"}]})
    bench.apply(routed)
    bench.rounds()
    assert "phones-alerts" in names(cluster, DEPLOYMENT)
    bench.apply(PHONES)
    bench.rounds(2)
    assert "phones-alerts" not in names(cluster, DEPLOYMENT)


def test_an_invalid_resource_is_told_so_with_the_path_and_stops_no_other(
    bench: OperatorBench, cluster: InMemoryCluster
) -> None:
    bench.apply(PHONES)
    wrong = example_resource("wrong").model_dump(mode="json", by_alias=True, exclude_unset=True)
    wrong["metadata"]["namespace"] = "default"
    wrong["spec"]["gates"] = {"slices": [{"by": "colour", "metric": "recall", "maxGap": 0.1}]}
    bench.cluster.apply(wrong, MODEL)
    bench.rounds(3)
    told = cluster.get(MODEL, "default", "wrong")
    assert told is not None
    condition = next(one for one in told["status"]["conditions"] if one["type"] == "Valid")
    assert condition["status"] == "False"
    assert "colour is no group" in condition["message"]
    assert bench.model(PHONES)["status"]["phase"] == "Bootstrapping"
    cluster.calls.clear()
    bench.rounds(5)
    assert ("apply", "ContinualModel") not in [one for one in cluster.calls if "wrong" in one]


def test_an_annotation_is_one_request_however_often_it_is_looked_at(bench: OperatorBench) -> None:
    bench.apply(PHONES)
    bench.rounds()
    annotate(bench, **{"tidemill.dev/retrain": '{"id": "a1", "reason": "new camera", "by": "ann"}'})
    bench.rounds(4)
    bench.restart()
    bench.rounds(4)
    asked = bench.logs["default.phones"].asked
    assert [(one.kind, one.by, one.arguments["reason"]) for one in asked] == [("retrain", "ann", "new camera")]
    answer = bench.model(PHONES)["status"]["requests"]["retrain"]
    assert (answer["id"], answer["state"]) == ("a1", "answered")
    assert "start" in answer["answer"]


def test_another_id_is_another_request(bench: OperatorBench) -> None:
    bench.apply(PHONES)
    bench.rounds()
    annotate(bench, **{"tidemill.dev/pause": "p1 lunch"})
    bench.rounds(2)
    annotate(bench, **{"tidemill.dev/pause": "p2 dinner"})
    bench.rounds(2)
    assert [one.arguments["reason"] for one in bench.logs["default.phones"].asked] == ["lunch", "dinner"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "x", "resaon": "typo"}', "unknown key"),
        ('{"reason": "no id"}', "needs an id"),
        ("{", "no JSON"),
        ('{"id": "x", "reason": 3}', "reason must be text"),
        ("x" * 1001, "at most 1,000"),
        ("../../etc x", "needs an id"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_refused_in_the_status(bench: OperatorBench, text: str, said: str) -> None:
    bench.apply(PHONES)
    bench.rounds()
    annotate(bench, **{"tidemill.dev/abort": text})
    bench.rounds(2)
    answer = bench.model(PHONES)["status"]["requests"]["abort"]
    assert answer["state"] == "refused"
    assert said in answer["answer"]
    assert bench.logs["default.phones"].asked == []


def test_decisions_are_events_told_once(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    annotate(bench, **{"tidemill.dev/retrain": "r1 because"})
    bench.rounds(3)
    reasons = [one["reason"] for one in cluster.list(EVENT, "default")]
    assert reasons.count("StartRun") == 1


def test_a_deleted_model_is_let_go_once_its_runs_and_traffic_are_taken_back(
    bench: OperatorBench, cluster: InMemoryCluster
) -> None:
    bench.apply(PHONES)
    bench.rounds()
    assert bench.model(PHONES)["metadata"]["finalizers"] == [FINALIZER]
    delete(bench, cluster)
    assert bench.model(PHONES)["metadata"].get("finalizers", []) == []


def test_a_deletion_that_is_held_up_says_why_in_the_status(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    driver: Any = bench.drivers[PHONES.id]
    driver.unavailable = True
    delete(bench, cluster)
    told = bench.condition(PHONES, "Withdrawn")
    assert (told["status"], told["reason"]) == ("False", "TriedAgain")
    assert told["message"]
    driver.unavailable = False
    bench.rounds(3)
    assert bench.model(PHONES)["metadata"].get("finalizers", []) == []


def test_an_orphaned_model_leaves_what_it_made_without_an_owner(bench: OperatorBench, cluster: InMemoryCluster) -> None:
    bench.apply(PHONES)
    bench.rounds()
    annotate(bench, **{ORPHAN: "true"})
    delete(bench, cluster)
    cluster.delete(MODEL, "default", "phones")
    assert names(cluster, DEPLOYMENT) == ["phones-ingest", "phones-outcomes", "phones-watch"]


@pytest.mark.parametrize("failure", [Unavailable("429"), InvalidInput("422")])
def test_a_failing_call_is_told_and_tried_again_later(
    bench: OperatorBench, cluster: InMemoryCluster, failure: Exception
) -> None:
    bench.apply(PHONES)
    bench.rounds()
    cluster.delete(DEPLOYMENT, "default", "phones-watch")
    real = cluster.apply

    def refuse(manifest: Manifest, kind: Any, **options: Any) -> Manifest:
        if kind == DEPLOYMENT:
            raise failure
        return real(manifest, kind, **options)

    cluster.apply = refuse  # type: ignore[method-assign]
    bench.rounds(3)
    cluster.apply = real  # type: ignore[method-assign]
    bench.rounds(5)
    assert "phones-watch" in names(cluster, DEPLOYMENT)
    assert bench.condition(PHONES, "Provisioned")["status"] == "True"
