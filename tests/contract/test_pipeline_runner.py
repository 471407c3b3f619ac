"""What every pipeline runner promises; over the double, processes of one machine, and the API of Kubeflow Pipelines."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from tidemill.control.kfp_runner import KfpRunner
from tidemill.control.local_runner import LocalRunner
from tidemill.control.protocols import PipelineRunner, RunSeen
from tidemill.control.runs import run_folder, write_run
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.retrain import COMPILED
from tidemill.stack.runner import Runner
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.kfp import KfpApi
from tidemill.testing.runner import ScriptedRunner

MODEL = "default.a"
RUN = "r20260102-030405"
PARAMETERS: Mapping[str, str | bool] = {"model": "default.a", "reason": "a test's", "skip_gates": True}

# Stands in for the pipeline: tells that it runs, then does what the test puts into a file.
SCRIPT = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "runs" / sys.argv[5] / sys.argv[3]
folder.mkdir(parents=True, exist_ok=True)
with (folder / "started").open("a") as file:
    file.write(sys.argv[7] + chr(10))
while not (folder / "obey").exists():
    time.sleep(0.02)
sys.exit(int((folder / "obey").read_text()))
"""


class Bench(Protocol):
    @property
    def runner(self) -> PipelineRunner: ...
    def step(self) -> bool:
        """Let the processes go on; always False, so that it can stand in a condition."""
        ...

    def show(self, seen: RunSeen) -> None: ...
    def die(self, run: str) -> None: ...
    def parameters(self, run: str) -> list[dict[str, str | bool]]: ...


class ScriptedBench:
    def __init__(self) -> None:
        self.runner = ScriptedRunner()

    def step(self) -> bool:
        return False

    def show(self, seen: RunSeen) -> None:
        self.runner.show(seen)

    def die(self, run: str) -> None:
        self.runner.show(RunSeen(run=run, state="failed", error="exit status 7"))

    def parameters(self, run: str) -> list[dict[str, str | bool]]:
        return [self.runner.started[run]] if run in self.runner.started else []


class LocalBench:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.processes = Runner(state, env=os.environ, folder=state, clock=SystemClock())
        self.processes.follow_files(True)
        command = (sys.executable, "-c", SCRIPT, str(state))
        self.runner = LocalRunner(FileSupervisor(state / "processes"), state=state, model=MODEL, command=command)

    def step(self) -> bool:
        self.processes.step()
        return False

    def show(self, seen: RunSeen) -> None:
        write_run(run_folder(self.state, MODEL, seen.run), seen)
        if seen.state in {"succeeded", "failed"}:
            self._obey(seen.run, 0 if seen.state == "succeeded" else 1)

    def die(self, run: str) -> None:
        self._obey(run, 7)

    def parameters(self, run: str) -> list[dict[str, str | bool]]:
        file = run_folder(self.state, MODEL, run) / "started"
        return [msgspec.json.decode(line) for line in file.read_text().splitlines()] if file.exists() else []

    def _obey(self, run: str, status: int) -> None:
        partial = run_folder(self.state, MODEL, run) / "obey.partial"
        partial.write_text(str(status))
        partial.replace(partial.with_name("obey"))


class KfpBench:
    """KFP's own client over a server with its API."""

    def __init__(self) -> None:
        self.api = KfpApi()
        self.runner = KfpRunner(self.api.url, model=MODEL, compiled=COMPILED)

    def step(self) -> bool:
        return False

    def show(self, seen: RunSeen) -> None:
        self.api.show(seen.run, seen.state.upper(), step=seen.step, error=seen.error)

    def die(self, run: str) -> None:
        self.api.show(run, "FAILED", error="exit status 7")

    def parameters(self, run: str) -> list[dict[str, str | bool]]:
        found = [one for one in self.api.runs.values() if one["display_name"] == run]
        return [one["runtime_config"]["parameters"] for one in found]


@pytest.fixture(params=["scripted", "local", "kfp"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "scripted":
        yield ScriptedBench()
        return
    if request.param == "kfp":
        cluster = KfpBench()
        yield cluster
        cluster.api.close()
        return
    bench = LocalBench(tmp_path)
    yield bench
    bench.processes.close()


def shown(bench: Bench, run: str, *states: str) -> RunSeen:
    def found() -> RunSeen | None:
        bench.step()
        return next((seen for seen in bench.runner.observe() if seen.run == run and seen.state in states), None)

    seen = eventually(found)
    assert seen is not None
    return seen


def running(bench: Bench) -> None:
    bench.runner.start(RUN, PARAMETERS)
    eventually(lambda: bench.step() or bench.parameters(RUN))
    bench.show(RunSeen(run=RUN, state="running", step="train"))
    shown(bench, RUN, "running")


def test_nothing_was_started_and_nothing_is_shown(bench: Bench) -> None:
    assert list(bench.runner.observe()) == []


def test_a_started_run_is_shown_before_it_says_anything(bench: Bench) -> None:
    bench.runner.start(RUN, PARAMETERS)
    assert shown(bench, RUN, "pending").run == RUN


def test_a_run_gets_its_parameters_once_however_often_it_is_started(bench: Bench) -> None:
    running(bench)
    bench.runner.start(RUN, PARAMETERS)
    bench.step()
    assert bench.parameters(RUN) == [dict(PARAMETERS)]


def test_a_run_shows_its_step(bench: Bench) -> None:
    running(bench)
    assert shown(bench, RUN, "running").step == "train"


def test_a_run_that_succeeded_stays_shown_until_it_is_forgotten(bench: Bench) -> None:
    running(bench)
    bench.show(RunSeen(run=RUN, state="succeeded"))
    shown(bench, RUN, "succeeded")
    bench.runner.stop(RUN)
    eventually(lambda: bench.step() or not bench.runner.observe())


def test_a_run_that_failed_says_where_and_why(bench: Bench) -> None:
    running(bench)
    bench.show(RunSeen(run=RUN, state="failed", step="train", error="no rows"))
    seen = shown(bench, RUN, "failed")
    assert (seen.step, seen.error) == ("train", "no rows")


def test_a_run_that_dies_without_a_word_has_failed(bench: Bench) -> None:
    running(bench)
    bench.die(RUN)
    assert "exit status 7" in (shown(bench, RUN, "failed").error or "")


def test_a_run_that_is_stopped_is_gone(bench: Bench) -> None:
    running(bench)
    bench.runner.stop(RUN)
    eventually(lambda: bench.step() or not bench.runner.observe())


def test_stopping_what_is_not_there_is_no_error(bench: Bench) -> None:
    bench.runner.stop(RUN)
    bench.runner.stop(RUN)


def test_a_run_that_is_over_is_not_run_again(tmp_path: Path) -> None:
    write_run(run_folder(tmp_path, MODEL, RUN), RunSeen(run=RUN, state="succeeded"))
    bench = LocalBench(tmp_path)
    bench.runner.start(RUN, PARAMETERS)
    bench.step()
    assert list(bench.runner.observe()) == []
    bench.processes.close()


def test_runs_of_models_with_similar_names_are_kept_apart(tmp_path: Path) -> None:
    supervisor = FileSupervisor(tmp_path / "processes")
    first, second = (LocalRunner(supervisor, state=tmp_path, model=model) for model in ("default.a", "default.a-b"))
    second.start(RUN, PARAMETERS)
    assert list(first.observe()) == []
    assert [seen.run for seen in second.observe()] == [RUN]


@pytest.fixture
def api() -> Iterator[KfpApi]:
    made = KfpApi()
    yield made
    made.close()


def test_the_pipeline_is_uploaded_once_for_each_content(api: KfpApi, tmp_path: Path) -> None:
    for model in ("default.a", "default.b"):
        KfpRunner(api.url, model=model, compiled=COMPILED).start(RUN, {"model": model})
    assert len(api.pipelines) == 1
    assert [content == COMPILED.read_bytes() for content in api.files.values()].count(True) == len(api.versions)
    other = tmp_path / "retrain.yaml"
    other.write_text(COMPILED.read_text() + "# another\n")
    before = len(api.versions)
    KfpRunner(api.url, model="default.c", compiled=other).start(RUN, {"model": "default.c"})
    assert len(api.versions) == before + 1


def test_a_run_of_the_kfp_ui_is_shown_under_an_id_of_its_own_and_those_of_other_models_are_not(api: KfpApi) -> None:
    runner = KfpRunner(api.url, model=MODEL, compiled=COMPILED)
    runner.start(RUN, PARAMETERS)
    ours = api.named(RUN)
    for name, model in (("Run of retrain (1f2e)", MODEL), ("another", "default.other")):
        form = {"model": model, "reason": "started by hand"}
        api._run({**ours, "display_name": name, "runtime_config": {"parameters": form}})
    by_hand = api.named("Run of retrain (1f2e)")
    assert [seen.run for seen in runner.observe()] == [f"kfp-{by_hand['run_id'][:8]}", RUN]


@pytest.mark.slow
def test_runs_that_are_forgotten_and_older_ones_of_others_are_read_no_more(
    api: KfpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = KfpRunner(api.url, model=MODEL, compiled=COMPILED)
    runner.start("r20250101-000000", PARAMETERS)
    ours = api.named("r20250101-000000")
    for number in range(150):
        api._run({**ours, "display_name": f"r20250101-{number:06}"})
        api._run({**ours, "pipeline_version_reference": {"pipeline_id": "another"}})
    for run in api.runs.values():
        is_ours = run["pipeline_version_reference"] == ours["pipeline_version_reference"]
        run |= {"storage_state": "ARCHIVED" if is_ours else "AVAILABLE", "created_at": "2025-01-01T00:00:00Z"}
    read: list[str] = []
    answer = api._answer

    def counted(method: str, path: str, *rest: Any) -> Any:
        status, found = answer(method, path, *rest)
        read.extend(run["display_name"] for run in found.get("runs", []))
        return status, found

    monkeypatch.setattr(api, "_answer", counted)
    assert list(runner.observe()) == []
    assert len(read) == 150, "at the first look those of others are read once"
    runner.start(RUN, PARAMETERS)
    for _ in range(2):
        read.clear()
        assert [seen.run for seen in runner.observe()] == [RUN]
    assert read == [RUN]
    runner.start("r20250101-000007", PARAMETERS)
    assert len(api.runs) == 302, "one that is forgotten is not started again"


def test_a_run_that_was_terminated_or_killed_has_failed_and_says_so(api: KfpApi) -> None:
    runner = KfpRunner(api.url, model=MODEL, compiled=COMPILED)
    runner.start(RUN, PARAMETERS)
    api.show(RUN, "CANCELED")
    (seen,) = runner.observe()
    assert (seen.state, seen.error) == ("failed", "it was terminated")


def test_an_api_that_does_not_answer_is_unavailable(api: KfpApi) -> None:
    runner = KfpRunner(api.url, model=MODEL, compiled=COMPILED)
    api.close()
    with pytest.raises(Unavailable, match=r"does not answer"):
        runner.observe()
