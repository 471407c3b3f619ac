"""What every resource store promises; run over the double and over the files of one machine."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill.control.protocols import ResourceStore
from tidemill.control.store import CODE_ANNOTATION, LocalResourceStore, resource_yaml
from tidemill.core.errors import Conflict, InvalidInput, NotFound, SpecError
from tidemill.testing.loop import example_resource
from tidemill.testing.store import MemoryResourceStore

MODEL = "default.phone-inspection"


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ResourceStore:
    makers: dict[str, Callable[[], ResourceStore]] = {
        "memory": MemoryResourceStore,
        "local": lambda: LocalResourceStore(tmp_path / "resources"),
    }
    return makers[request.param]()


def test_what_was_put_is_got_and_has_no_status_yet(store: ResourceStore) -> None:
    resource = example_resource()
    store.put(resource, code="/code")
    found = store.get(MODEL)
    assert found.resource == resource
    assert (found.status, found.code) == (None, "/code")


def test_an_empty_store_lists_nothing(store: ResourceStore) -> None:
    assert list(store.list()) == []


def test_models_are_listed_in_the_order_of_their_ids(store: ResourceStore) -> None:
    for name in ("b", "a", "c"):
        store.put(example_resource(name))
    assert [found.resource.id for found in store.list()] == ["default.a", "default.b", "default.c"]


def test_a_model_that_is_not_there_is_not_found(store: ResourceStore) -> None:
    with pytest.raises(NotFound):
        store.get(MODEL)
    with pytest.raises(NotFound):
        store.put_status(MODEL, b"{}", version="1")


def test_a_status_is_written_once_per_version(store: ResourceStore) -> None:
    first = store.put(example_resource())
    second = store.put_status(MODEL, b'{"a":1}', version=first.version)
    assert second.version != first.version
    with pytest.raises(Conflict):
        store.put_status(MODEL, b'{"a":2}', version=first.version)
    assert store.get(MODEL).status == b'{"a":1}'


def test_a_changed_resource_keeps_its_status_and_refuses_a_stale_one(store: ResourceStore) -> None:
    first = store.put_status(MODEL, b"{}", version=store.put(example_resource()).version)
    changed = store.put(example_resource(paused=True))
    assert changed.status == b"{}"
    assert changed.resource.spec.paused
    with pytest.raises(Conflict):
        store.put_status(MODEL, b'{"a":1}', version=first.version)


def test_of_writers_with_the_same_version_one_wins(store: ResourceStore) -> None:
    version = store.put(example_resource()).version

    def write(number: int) -> bool:
        try:
            store.put_status(MODEL, b'{"writer":%d}' % number, version=version)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1


def test_a_deleted_model_is_gone_with_its_status(store: ResourceStore) -> None:
    store.put_status(MODEL, b"{}", version=store.put(example_resource()).version)
    store.delete(MODEL)
    store.delete(MODEL)
    assert list(store.list()) == []
    assert store.put(example_resource()).status is None


def test_files_hold_what_a_person_wrote_and_where_the_code_is(tmp_path: Path) -> None:
    store = LocalResourceStore(tmp_path)
    store.put(example_resource(), code="/code")
    text = store.path(MODEL).read_text()
    assert CODE_ANNOTATION in text
    assert "cooldown: 5m" in text
    assert "allowedLateness" not in text  # a default that nobody wrote
    assert "annotations" not in resource_yaml(store.get(MODEL).resource)


def test_a_second_process_sees_the_same_models_and_versions(tmp_path: Path) -> None:
    written = LocalResourceStore(tmp_path).put(example_resource())
    assert LocalResourceStore(tmp_path).get(MODEL) == written


def test_a_file_changed_by_hand_is_a_change(tmp_path: Path) -> None:
    store = LocalResourceStore(tmp_path)
    version = store.put(example_resource()).version
    path = store.path(MODEL)
    path.write_text(path.read_text().replace("cooldown: 5m", "cooldown: 6m"))
    assert store.get(MODEL).version != version
    assert store.get(MODEL).resource.spec.triggers.cooldown.total_seconds() == 360


@pytest.mark.parametrize("content", ["a: [", "kind: Pod", "\udcff"])
def test_one_broken_file_does_not_hide_the_other_models(tmp_path: Path, content: str) -> None:
    store = LocalResourceStore(tmp_path)
    store.put(example_resource())
    (tmp_path / "default.broken.yaml").write_bytes(content.encode(errors="surrogateescape"))
    assert [found.resource.id for found in store.list()] == [MODEL]
    with pytest.raises(SpecError, match=r"default\.broken\.yaml"):
        store.get("default.broken")


def test_a_lost_status_file_is_no_status(tmp_path: Path) -> None:
    store = LocalResourceStore(tmp_path)
    store.put_status(MODEL, b"{}", version=store.put(example_resource()).version)
    (tmp_path / f"{MODEL}.status.json").unlink()
    assert store.get(MODEL).status is None


@pytest.mark.parametrize("model", ["../x", "a/b", ".hidden", ""])
def test_an_id_that_would_leave_the_folder_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(InvalidInput):
        LocalResourceStore(tmp_path).get(model)
