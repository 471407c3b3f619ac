"""Every door leads to the same guarded pipeline: here on the API of Kubeflow Pipelines, by its own client."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tidemill.control.kfp_runner import PIPELINE, KfpRunner
from tidemill.control.runs import COMPILED, run_of
from tidemill.testing.kfp import KfpApi
from tidemill.testing.loop import LoopBench, example_resource

TRIGGERS = {
    "schedule": {"cron": "0 * * * *"},
    "drift": {"tolerance": 0.2, "every": "1s"},
    "performance": {},
    "volume": {"newLabels": 1000},
    "newClass": {"minExamples": 50},
    "cooldown": "5m",
}
FORM = {"model": "default.phone-inspection", "reason": "to see", "force": False, "skip_gates": False, "snapshot": ""}


@pytest.fixture
def api() -> Iterator[KfpApi]:
    made = KfpApi()
    yield made
    made.close()


@pytest.fixture
def serving(api: KfpApi) -> LoopBench:
    """A champion serves, its cooldown is over, and runs are Kubeflow's."""
    bench = LoopBench(example_resource(triggers=TRIGGERS))
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    bench.runner = KfpRunner(api.url, model=bench.resource.id, compiled=COMPILED)  # type: ignore[assignment]
    bench.restart()
    return bench


def performance(bench: LoopBench) -> None:
    bench.signal("error", kind="performance", subject="errors", message="the mean loss has risen")


def volume(bench: LoopBench) -> None:
    bench.labelled = 1000


def new_class(bench: LoopBench) -> None:
    bench.new_classes = {"fold": 50}


DOORS: dict[str, Callable[[LoopBench], Any]] = {
    "schedule": lambda bench: bench.clock.advance(3600),
    "drift": lambda bench: bench.signal(),
    "performance": performance,
    "volume": volume,
    "newClass": new_class,
    "manual": lambda bench: bench.write("retrain", reason="a drill"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_cause_starts_one_run_of_the_compiled_pipeline(api: KfpApi, serving: LoopBench, door: str) -> None:
    DOORS[door](serving)
    serving.tick(4)
    (run,) = api.runs.values()
    status = serving.status.run
    assert status is not None
    assert (status.cause, run["display_name"]) == (door, status.run)
    reference = run["pipeline_version_reference"]
    assert api.pipelines[reference["pipeline_id"]]["display_name"] == PIPELINE
    assert api.files[reference["pipeline_version_id"]] == COMPILED.read_bytes()
    given = run["runtime_config"]["parameters"]
    assert (given["model"], given["reason"]) == (serving.resource.id, status.reason)


def by_form(api: KfpApi, bench: LoopBench) -> tuple[str, str]:
    """A run created as the KFP UI does: only the form's parameters, a name of its own. Its id for us, and its claim."""
    client = KfpRunner(api.url, model=bench.resource.id, compiled=COMPILED)
    pipeline, version = client._uploaded()
    made = client._client.run_pipeline(
        client._client.create_experiment("Default").experiment_id,
        "Run of retrain (7c1f)",
        params=FORM,
        pipeline_id=pipeline,
        version_id=version,
    )
    run = run_of("Run of retrain (7c1f)", made.run_id)
    return run, bench.write("claim", request_id=f"{run}-claim-{made.run_id}", run=run, reason=FORM["reason"])


def test_a_run_from_the_form_is_granted_and_its_end_is_seen(api: KfpApi, serving: LoopBench) -> None:
    run, claim = by_form(api, serving)
    serving.tick()
    assert serving.answer(claim).kind == "grant"
    status = serving.status.run
    assert status is not None
    assert (status.run, status.cause, status.ours) == (run, "pipeline", False)
    api.show("Run of retrain (7c1f)", "RUNNING", step="train")
    serving.tick()
    assert serving.status.run is not None
    assert serving.status.run.step == "train"
    api.show("Run of retrain (7c1f)", "FAILED", step="train", error="OOMKilled")  # a killed pod says nothing itself
    serving.tick(40)
    assert serving.status.run is None
    failed = next(one for one in serving.log.decisions() if one.kind == "run-failed")
    assert (failed.subject, failed.reason) == (run, "train failed: OOMKilled")


def test_two_doors_at_the_same_time_give_one_training(api: KfpApi, serving: LoopBench) -> None:
    run, claim = by_form(api, serving)
    serving.signal()
    serving.tick(4)
    assert serving.answer(claim).kind == "grant"
    assert [one["display_name"] for one in api.runs.values()] == ["Run of retrain (7c1f)"]
    second, again = by_form(api, serving)
    serving.tick()
    refused = serving.answer(again)
    assert (refused.kind, refused.reason) == ("refuse", f"already running: {run}")
    assert second != run
