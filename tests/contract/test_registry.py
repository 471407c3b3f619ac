"""What every registry promises; run over the double and over MLflow on SQLite."""

import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Conflict, NotFound
from tidemill.registry import CLEARED_TAG, Registry
from tidemill.registry.mlflow import MlflowRegistry
from tidemill.testing.registry import MemoryRegistry


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow file for the module: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(params=["memory", "mlflow"])
def registry(request: pytest.FixtureRequest, database: str) -> Registry:
    return MemoryRegistry(SystemClock()) if request.param == "memory" else MlflowRegistry(database)


@pytest.fixture
def model(topic_prefix: str) -> str:
    return f"default.{topic_prefix}"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_model_that_nobody_registered_has_no_versions_and_no_aliases(registry: Registry, model: str) -> None:
    assert list(registry.versions(model)) == []
    assert registry.aliases(model) == {}


def test_versions_come_back_oldest_first_with_artifact_and_lineage(registry: Registry, model: str) -> None:
    registry.register(model, "v9", "/models/v9", tags={"tidemill.cause": "initial"}, metrics={"error": 0.1})
    registry.register(model, "v10", "/models/v10")
    found = registry.versions(model)
    assert [(version.version, version.artifact) for version in found] == [("v9", "/models/v9"), ("v10", "/models/v10")]
    assert found[0].tags["tidemill.cause"] == "initial"
    assert found[0].created_at <= found[1].created_at


def test_registering_the_same_again_changes_nothing(registry: Registry, model: str) -> None:
    for _ in range(2):
        registry.register(model, "v1", "/models/v1", tags={"a": "b"})
    assert len(registry.versions(model)) == 1


def test_a_version_keeps_its_artifact(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1")
    with pytest.raises(Conflict, match="/models/v1"):
        registry.register(model, "v1", "/elsewhere/v1")


def test_a_new_version_has_no_alias(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1")
    assert registry.aliases(model) == {}


def test_an_alias_is_set_moved_and_taken_away(registry: Registry, model: str) -> None:
    for version in ("v1", "v2"):
        registry.register(model, version, f"/models/{version}")
    registry.set_alias(model, "champion", "v1")
    registry.set_alias(model, "candidate", "v2")
    assert registry.aliases(model) == {"champion": "v1", "candidate": "v2"}
    registry.set_alias(model, "champion", "v2")
    registry.set_alias(model, "previous", "v1")
    registry.set_alias(model, "candidate", None)
    assert registry.aliases(model) == {"champion": "v2", "previous": "v1"}


def test_taking_away_an_alias_that_is_not_set_is_no_error(registry: Registry, model: str) -> None:
    registry.set_alias(model, "candidate", None)
    assert registry.aliases(model) == {}


def test_an_alias_needs_a_version_that_is_there(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1")
    with pytest.raises(NotFound, match="v2"):
        registry.set_alias(model, "champion", "v2")


def test_models_do_not_see_each_other(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1")
    registry.set_alias(model, "champion", "v1")
    assert list(registry.versions(f"{model}-b")) == []
    assert registry.aliases(f"{model}-b") == {}


def test_a_version_keeps_its_card_and_the_words_of_the_first_registration(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1", description="# one", parameters={"trainer.epochs": "3"})
    registry.register(model, "v1", "/models/v1", description="# two")
    assert [found.description for found in registry.versions(model)] == ["# one"]


def test_a_version_whose_files_are_gone_keeps_its_lineage_and_says_since_when(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1", tags={"tidemill.cause": "initial"}, description="# one")
    for _ in range(2):
        registry.mark_cleared(model, "v1", SystemClock().now())
    (found,) = registry.versions(model)
    assert (found.tags["tidemill.cause"], found.description) == ("initial", "# one")
    assert found.tags[CLEARED_TAG].endswith("+00:00")


def test_a_version_with_an_alias_is_not_marked_nor_one_that_is_unknown(registry: Registry, model: str) -> None:
    registry.register(model, "v1", "/models/v1")
    registry.set_alias(model, "previous", "v1")
    with pytest.raises(Conflict, match="has an alias"):
        registry.mark_cleared(model, "v1", SystemClock().now())
    with pytest.raises(NotFound):
        registry.mark_cleared(model, "v2", SystemClock().now())
    assert CLEARED_TAG not in registry.versions(model)[0].tags
