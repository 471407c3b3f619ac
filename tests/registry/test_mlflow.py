"""What MLflow itself shows of a version."""

from pathlib import Path

import pytest

from tidemill.core.errors import Unavailable
from tidemill.registry.mlflow import VERSION_TAG, MlflowRegistry

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def test_a_versions_run_shows_its_figures_and_its_experiment_has_a_place(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    MlflowRegistry(uri).register(
        "default.m", "v1", "/models/default/m/v1", tags={"tidemill.cause": "drift"}, metrics={"error": 0.25}
    )
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions("name = 'default.m'")
    assert version.source == "/models/default/m/v1"
    assert version.tags == {VERSION_TAG: "v1", "tidemill.cause": "drift"}
    run = client.get_run(version.run_id or "")
    assert run.data.metrics == {"error": 0.25}
    assert client.get_experiment(run.info.experiment_id).artifact_location == "/models/default/m"


def test_versions_that_others_registered_are_left_out(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, uri)
    client.create_registered_model("default.shared")
    client.create_model_version("default.shared", source="/elsewhere")
    registry = MlflowRegistry(uri)
    assert list(registry.versions("default.shared")) == []
    client.set_registered_model_alias("default.shared", "champion", "1")
    assert registry.aliases("default.shared") == {}


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="MLflow at"):
        MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db").versions("default.m")
