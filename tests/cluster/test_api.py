"""What every `Cluster` promises; run over the double, and over a real API server where there is one (slow)."""

import contextlib
from itertools import count

import pytest

from tidemill.cluster import Cluster, Foreign, Kind, Manifest
from tidemill.core.errors import Conflict, Unsupported
from tidemill.testing import eventually
from tidemill.testing.cluster import InMemoryCluster

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
ABSENT = Kind("example.com/v1", "Absent", "absents")

Site = tuple[Cluster, Cluster, str]
"""A cluster, the same one as another field manager, and a namespace that is empty."""


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "memory":
        cluster = InMemoryCluster(unknown=[ABSENT])
        return cluster, cluster.as_manager("somebody"), "here"
    real = request.getfixturevalue("cluster")
    return real, real.as_manager("somebody"), request.getfixturevalue("plane").namespace()


def config_map(namespace: str, name: str = "one", labels: dict[str, str] | None = None, **data: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_what_is_not_there_is_none_and_its_deletion_no_error(site: Site) -> None:
    cluster, _, here = site
    assert cluster.get(CONFIG_MAP, here, "nothing") is None
    cluster.delete(CONFIG_MAP, here, "nothing")


def test_what_was_stated_is_got_as_its_answer_said(site: Site) -> None:
    cluster, _, here = site
    stated = cluster.apply(config_map(here, a="1"), CONFIG_MAP)
    found = cluster.get(CONFIG_MAP, here, "one")
    assert found is not None
    assert found["data"] == stated["data"] == {"a": "1"}
    assert found["metadata"]["resourceVersion"] == stated["metadata"]["resourceVersion"]
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")


def test_stating_the_same_again_changes_nothing(site: Site) -> None:
    cluster, _, here = site
    versions = {cluster.apply(config_map(here, a="1"), CONFIG_MAP)["metadata"]["resourceVersion"] for _ in range(3)}
    assert len(versions) == 1


def test_a_field_that_is_no_longer_stated_goes_and_others_fields_stay(site: Site) -> None:
    cluster, somebody, here = site
    cluster.apply(config_map(here, a="1", b="2"), CONFIG_MAP)
    somebody.apply(config_map(here, theirs="3"), CONFIG_MAP)
    assert cluster.apply(config_map(here, a="1"), CONFIG_MAP)["data"] == {"a": "1", "theirs": "3"}


def test_a_field_that_somebody_took_is_foreign_until_it_is_forced(site: Site) -> None:
    cluster, somebody, here = site
    cluster.apply(config_map(here, a="1", b="2"), CONFIG_MAP)
    somebody.apply(config_map(here, a="9"), CONFIG_MAP, force=True)
    with pytest.raises(Foreign) as raised:
        cluster.apply(config_map(here, a="1", b="2"), CONFIG_MAP)
    assert raised.value.managers == ("somebody",)
    assert raised.value.fields == (".data.a",)
    assert cluster.apply(config_map(here, a="1", b="2"), CONFIG_MAP, force=True)["data"] == {"a": "1", "b": "2"}


def test_a_field_that_somebody_states_alike_is_shared(site: Site) -> None:
    cluster, somebody, here = site
    cluster.apply(config_map(here, a="1"), CONFIG_MAP)
    somebody.apply(config_map(here, a="1"), CONFIG_MAP)
    assert cluster.apply(config_map(here, a="1"), CONFIG_MAP)["data"] == {"a": "1"}
    with pytest.raises(Foreign):
        cluster.apply(config_map(here, a="2"), CONFIG_MAP)


def test_a_shared_field_stays_when_one_of_the_two_takes_it_back(site: Site) -> None:
    cluster, somebody, here = site
    cluster.apply(config_map(here, a="1", b="2"), CONFIG_MAP)
    somebody.apply(config_map(here, a="1"), CONFIG_MAP)
    assert cluster.apply(config_map(here, b="2"), CONFIG_MAP)["data"] == {"a": "1", "b": "2"}


def test_an_old_resource_version_is_a_conflict_and_changes_nothing(site: Site) -> None:
    cluster, _, here = site
    old = cluster.apply(config_map(here, a="1"), CONFIG_MAP)["metadata"]["resourceVersion"]
    cluster.apply(config_map(here, a="2"), CONFIG_MAP)
    late = config_map(here, a="3")
    late["metadata"]["resourceVersion"] = old
    with pytest.raises(Conflict) as raised:
        cluster.apply(late, CONFIG_MAP)
    assert not isinstance(raised.value, Foreign)
    found = cluster.get(CONFIG_MAP, here, "one")
    assert found is not None
    assert found["data"] == {"a": "2"}


def test_a_resource_version_of_what_is_gone_is_a_conflict(site: Site) -> None:
    cluster, _, here = site
    late = config_map(here, a="1")
    late["metadata"]["resourceVersion"] = cluster.apply(config_map(here), CONFIG_MAP)["metadata"]["resourceVersion"]
    cluster.delete(CONFIG_MAP, here, "one")
    with pytest.raises(Conflict):
        cluster.apply(late, CONFIG_MAP)
    assert cluster.get(CONFIG_MAP, here, "one") is None


def test_objects_are_listed_by_their_labels_in_the_order_of_their_names(site: Site) -> None:
    cluster, _, here = site
    for name, team in (("c", "x"), ("a", "x"), ("b", "y")):
        cluster.apply(config_map(here, name, {"team": team, "all": "1"}), CONFIG_MAP)
    found = cluster.list(CONFIG_MAP, here, labels={"team": "x", "all": "1"})
    assert [one["metadata"]["name"] for one in found] == ["a", "c"]
    assert all((one["apiVersion"], one["kind"]) == ("v1", "ConfigMap") for one in found)
    everywhere = [one["metadata"]["name"] for one in cluster.list(CONFIG_MAP, labels={"team": "y"})]
    assert "b" in everywhere


def deployment(namespace: str, replicas: int) -> Manifest:
    labels = {"app": "a"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod},
    }


def test_a_generation_counts_changes_of_the_spec_alone(site: Site) -> None:
    cluster, _, here = site
    first = cluster.apply(deployment(here, 0), DEPLOYMENT)["metadata"]["generation"]
    labelled = deployment(here, 0)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert cluster.apply(labelled, DEPLOYMENT)["metadata"]["generation"] == first
    assert cluster.apply(deployment(here, 1), DEPLOYMENT)["metadata"]["generation"] == first + 1


def test_a_status_is_stated_apart_and_leaves_the_spec(site: Site) -> None:
    cluster, _, here = site
    cluster.apply(deployment(here, 0), DEPLOYMENT)
    condition = {"type": "Played", "status": "True", "reason": "Test", "message": ""}
    meta = {"name": "a", "namespace": here}
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "status": {"conditions": [condition]}}
    cluster.apply(status, DEPLOYMENT, part="status", force=True)
    found = cluster.get(DEPLOYMENT, here, "a")
    assert found is not None
    assert found["spec"]["replicas"] == 0
    assert "Played" in [one["type"] for one in found["status"]["conditions"]]


def test_the_status_of_what_is_not_there_cannot_be_stated(site: Site) -> None:
    cluster, _, here = site
    meta = {"name": "nothing", "namespace": here}
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "status": {"replicas": 1}}
    with pytest.raises(Unsupported):
        cluster.apply(status, DEPLOYMENT, part="status")


def test_what_an_object_owns_goes_with_it(site: Site) -> None:
    cluster, _, here = site
    owner = cluster.apply(config_map(here, "owner"), CONFIG_MAP)
    owned = config_map(here, "owned")
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ]
    cluster.apply(owned, CONFIG_MAP)
    cluster.delete(CONFIG_MAP, here, "owner")
    eventually(lambda: cluster.get(CONFIG_MAP, here, "owned") is None, deadline_s=60)


def test_a_kind_that_is_not_served_is_unsupported(site: Site) -> None:
    cluster, _, here = site
    assert cluster.serves(CONFIG_MAP)
    assert cluster.serves(DEPLOYMENT)
    assert not cluster.serves(ABSENT)
    unknown = {"apiVersion": "example.com/v1", "kind": "Absent", "metadata": {"name": "a", "namespace": here}}
    with pytest.raises(Unsupported):
        cluster.apply(unknown, ABSENT)
    with pytest.raises(Unsupported):
        cluster.list(ABSENT, here)


def test_two_who_read_the_same_version_do_not_both_write(site: Site) -> None:
    cluster, _, here = site
    read = cluster.apply(config_map(here, n="0"), CONFIG_MAP)["metadata"]["resourceVersion"]
    written = count()
    for value in ("1", "2"):
        wanted = config_map(here, n=value)
        wanted["metadata"]["resourceVersion"] = read
        with contextlib.suppress(Conflict):
            cluster.apply(wanted, CONFIG_MAP)
            next(written)
    assert next(written) == 1
