"""What MLflow itself shows of a version."""

from pathlib import Path
from typing import Any

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


def test_a_card_that_is_too_long_for_mlflow_is_cut_at_a_line_and_says_so(uri: str) -> None:
    registry = MlflowRegistry(uri)
    registry.register("default.long", "v1", "/models/v1", description="a line of the card\n" * 600)
    (found,) = registry.versions("default.long")
    assert len(found.description) <= 5000
    assert found.description.endswith("a line of the card\n\n… the rest stands in `card.md` of the version's artifact.")


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated", "create_model_version"])
@pytest.mark.parametrize("done", [False, True])
def test_a_registration_that_is_cut_off_at_any_call_is_ended_by_the_next_one(
    uri: str, monkeypatch: pytest.MonkeyPatch, call: str, done: bool
) -> None:
    from mlflow.tracking import MlflowClient

    model = f"default.{call}-{done}"
    own = getattr(MlflowClient, call)

    def cut(*arguments: Any, **named: Any) -> None:
        if done:
            own(*arguments, **named)
        raise KeyboardInterrupt

    def register() -> None:
        MlflowRegistry(uri).register(
            model, "v1", "/models/v1", metrics={"error": 0.25}, parameters={"trainer.epochs": "3"}, description="# one"
        )

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, cut)
        with pytest.raises(KeyboardInterrupt):
            register()
    register()
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions(f"name = '{model}'")
    experiment = client.get_experiment_by_name(model)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (version.run_id, run.info.status) == (run.info.run_id, "FINISHED")
    assert (run.data.metrics, run.data.params) == ({"error": 0.25}, {"trainer.epochs": "3"})
    assert len(client.get_metric_history(run.info.run_id, "error")) == 1
