"""What the operator remembers of the API server: reads cost nothing, and nothing old takes the place of what is new."""

from typing import Any

import pytest

from tidemill.cluster import Kind, Manifest
from tidemill.cluster.watched import WatchedCluster
from tidemill.core.errors import Conflict
from tidemill.testing.cluster import InMemoryCluster

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


@pytest.fixture
def server() -> InMemoryCluster:
    return InMemoryCluster()


@pytest.fixture
def memory(server: InMemoryCluster) -> WatchedCluster:
    found = WatchedCluster(server, [CONFIG_MAP])
    found.fill()
    return found


def config_map(name: str = "a", **metadata: Any) -> Manifest:
    meta = {"name": name, "namespace": "default", "labels": {"tidemill.dev/model": "phones"}, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"x": "1"}}


def test_reads_of_what_is_watched_cost_no_call(server: InMemoryCluster, memory: WatchedCluster) -> None:
    memory.apply(config_map(), CONFIG_MAP)
    before = len(server.calls)
    assert (memory.get(CONFIG_MAP, "default", "a") or {})["data"] == {"x": "1"}
    assert len(memory.list(CONFIG_MAP, labels={"tidemill.dev/model": "phones"})) == 1
    assert memory.list(CONFIG_MAP, labels={"tidemill.dev/model": "others"}) == []
    assert len(server.calls) == before


def test_an_event_that_is_older_than_ones_own_write_changes_nothing(memory: WatchedCluster) -> None:
    old = memory.apply(config_map(), CONFIG_MAP)
    new = memory.apply(config_map() | {"data": {"x": "2"}}, CONFIG_MAP)
    assert not memory.seen(CONFIG_MAP, old)
    assert memory.get(CONFIG_MAP, "default", "a") == new


def test_after_a_conflict_it_knows_what_is_there_and_what_is_gone(
    server: InMemoryCluster, memory: WatchedCluster
) -> None:
    for name in ("a", "b"):
        memory.apply(config_map(name), CONFIG_MAP)
    server.as_manager("somebody").apply(config_map() | {"data": {"y": "3"}}, CONFIG_MAP)
    server.delete(CONFIG_MAP, "default", "b")
    for name in ("a", "b"):
        with pytest.raises(Conflict):
            memory.apply(config_map(name, resourceVersion="1"), CONFIG_MAP)
    assert (memory.get(CONFIG_MAP, "default", "a") or {})["data"] == {"x": "1", "y": "3"}
    assert memory.get(CONFIG_MAP, "default", "b") is None
    assert ("get", "ConfigMap") not in server.calls


def test_of_the_managers_only_who_they_are_and_of_what_is_kept(memory: WatchedCluster) -> None:
    managed = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:rules": {"f:weight": {}}}}}
    seen = config_map(managedFields=[managed], resourceVersion="7", uid="u")
    memory.seen(CONFIG_MAP, seen)
    (kept,) = (memory.get(CONFIG_MAP, "default", "a") or {})["metadata"]["managedFields"]
    assert kept == {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": None}}
    assert seen["metadata"]["managedFields"] == [managed]


def test_of_a_strangers_object_only_that_it_is_there_is_kept(server: InMemoryCluster) -> None:
    memory = WatchedCluster(server, [CONFIG_MAP], whole=())
    memory.seen(CONFIG_MAP, config_map(labels={"team": "x"}, resourceVersion="7", uid="u"))
    found = memory.get(CONFIG_MAP, "default", "a") or {}
    assert "data" not in found
    assert found["metadata"]["labels"] == {"team": "x"}
