"""The compiled pipeline."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.retrain import COMPILED
from tidemill.retrain.steps import STEPS

kfp_warns = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPILED.read_text())
    return content


@kfp_warns
def test_the_committed_yaml_is_what_the_code_compiles_to(tmp_path: Path) -> None:
    from tidemill.retrain.pipeline import compile_to

    compile_to(tmp_path / "retrain.yaml")
    assert COMPILED.read_text() == (tmp_path / "retrain.yaml").read_text(), "run: python -m tidemill.retrain.pipeline"


def test_it_lies_where_the_repository_says() -> None:
    assert Path(__file__).parents[2] / "pipelines" / "retrain.yaml" == COMPILED


def test_every_parameter_is_plain_and_has_a_default(compiled: dict[str, Any]) -> None:
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert {name: found["parameterType"] for name, found in parameters.items()} == {
        "model": "STRING",
        "reason": "STRING",
        "force": "BOOLEAN",
        "skip_gates": "BOOLEAN",
        "snapshot": "STRING",
        "image": "STRING",
    }
    assert all("defaultValue" in found for found in parameters.values())


def test_the_steps_have_the_designs_names(compiled: dict[str, Any]) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == set(STEPS)


def test_nothing_is_cached(compiled: dict[str, Any]) -> None:
    components = [compiled["root"], *compiled["components"].values()]
    tasks = [task for part in components for task in part.get("dag", {}).get("tasks", {}).values()]
    steps = [task for task in tasks if task["componentRef"]["name"].removeprefix("comp-") in STEPS]
    assert len(steps) == len(STEPS)
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in steps)


def test_conditions_look_at_single_unnamed_outputs(compiled: dict[str, Any]) -> None:
    """On a named output the local runner takes the condition for false, and the run ends green without a word."""
    text = COMPILED.read_text()
    conditions = [line.strip() for line in text.splitlines() if line.strip().startswith("condition:")]
    assert len(conditions) == 2
    assert all("-Output'] ==" in condition for condition in conditions)


def test_steps_install_nothing(compiled: dict[str, Any]) -> None:
    for executor in compiled["deploymentSpec"]["executors"].values():
        assert "pip" not in " ".join(executor["container"]["command"])


def test_a_components_body_only_hands_over(compiled: dict[str, Any]) -> None:
    for executor in compiled["deploymentSpec"]["executors"].values():
        body = executor["container"]["command"][-1].split('"""')[2]
        assert "from tidemill.retrain import entry" in body
        assert body.count("entry.run(") == 1
