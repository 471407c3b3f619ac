"""`tidemill health` at the shell: what it shows, and its exit status."""

import json
from pathlib import Path

import pytest

from tidemill.cli import main
from tidemill.cli.health import shown
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock
from tidemill.core.exposition import note_metrics
from tidemill.core.settings import load_settings
from tidemill.stack.supervisor import ProcessSeen
from tidemill.testing.loop import example_resource
from tidemill.watch.scraping import scrape

M = "default.phone-inspection"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = load_settings()[0].state
    LocalResourceStore(found / "resources").put(example_resource())
    return found


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main("health", "phone-inspection", "--over", "0.1", *arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "?"),
        (0.0123, "share", "1.23%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (1, "up", "yes"),
        (0, "up", "no"),
        (0, "1 if not", "yes"),
        (12345, "records", "12,345 records"),
        (0.01234, "s", "0.0123 s"),
        (float("inf"), "s", "inf s"),
    ],
)
def test_values_are_read_by_people(value: float | None, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_where_nothing_runs_that_is_what_is_bad(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-o", "json") == 1
    told = json.loads(capsys.readouterr().out)
    states = {line["what"]: line["state"] for line in told["lines"]}
    assert {what for what, grade in states.items() if grade == "bad"} == {"control", "ingest", "outcomes", "watch"}
    assert "ok" not in states.values()
    assert told["counts"]["bad"] == 4


def test_the_worst_comes_first_and_a_count_last(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["bad", "control"]
    assert lines[-1].startswith(f"{M}: 4 bad, ")


def test_it_looks_again_until_it_is_told_to_end(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter([None, None, KeyboardInterrupt()])

    def sleep(self: SystemClock, seconds: float) -> None:
        if (one := next(pauses)) is not None:
            raise one

    monkeypatch.setattr(SystemClock, "sleep", sleep)
    assert run("--watch", "-o", "json") == 1
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["model"] for one in looks] == [M, M]


def test_a_process_is_known_before_it_tells_anything_and_others_models_are_left_out(state: Path) -> None:
    note_metrics(state, f"{M}-watch", "127.0.0.1:9", role="watch", model=M)
    note_metrics(state, "default.other-ingest", "127.0.0.1:9", role="ingest", model="default.other")
    seen = [
        ProcessSeen(name=f"{M}-ingest", state="starting", pid=1),
        ProcessSeen(name=f"{M}-serve-v1", state="failing", restarts=3),
        ProcessSeen(name=f"{M}-feast", state="ended", exit_status=0),
        ProcessSeen(name=f"{M}.r1", state="ready", pid=2),
        ProcessSeen(name="default.other-ingest", state="ready", pid=3),
        ProcessSeen(name="control", state="ready", pid=4),
        ProcessSeen(name="kafka", state="ready", pid=5),
    ]
    found = scrape(state, M, seen, SystemClock())
    assert [(one.name.removeprefix(M), one.role, one.state) for one in found.processes] == [
        ("control", "control", "ready"),
        ("-ingest", "ingest", "starting"),
        ("-serve-v1", "serve", "failing"),
    ]
    assert [one.name for one in scrape(state, M, (), SystemClock()).processes] == [f"{M}-watch"]
