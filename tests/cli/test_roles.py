"""The roles: each starts with what it was given, and ends when it is told to."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.cli import main
from tidemill.control.store import resource_yaml
from tidemill.testing.loop import example_resource

# Stands in for the worker: says with what it was started, and waits until it is told to end.
PROGRAM = """
import sys
from tidemill.wiring import Local
role = sys.argv[1]
def run(self, *given, **named):
    stop = next((one for one in given if hasattr(one, "wait")), None)
    models = [one.id for one in given if hasattr(one, "id")]
    print(role, self.settings.kafka, models, named, flush=True)
    if stop is not None:
        stop.wait(30)
        print("ended", flush=True)
setattr(Local, role, run)
from tidemill.cli import main
main(*sys.argv[1:])
"""


@pytest.fixture
def resource(tmp_path: Path) -> Path:
    file = tmp_path / "model.yaml"
    file.write_text(resource_yaml(example_resource()))
    return file


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"TIDEMILL_KAFKA": "broker:9092", "PATH": ""},
    )


@pytest.mark.parametrize(
    ("role", "number"),
    [
        ("ingest", signal.SIGTERM),
        ("outcomes", signal.SIGTERM),
        ("watch", signal.SIGTERM),
        ("control", signal.SIGTERM),
        ("control", signal.SIGINT),
    ],
)
def test_a_role_runs_until_it_is_told_to_end(role: str, number: signal.Signals, resource: Path, tmp_path: Path) -> None:
    arguments = () if role == "control" else ("--resource", str(resource))
    process = start(tmp_path, role, *arguments)
    assert process.stdout is not None
    models = [] if role == "control" else ["default.phone-inspection"]
    assert process.stdout.readline() == f"{role} broker:9092 {models} {{}}\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "ended\n"), err


def test_alerts_is_a_role_too(resource: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "alerts", "run", "--resource", str(resource))
    assert process.stdout is not None
    assert process.stdout.readline() == "alerts broker:9092 ['default.phone-inspection'] {}\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "ended\n"), err


def test_serve_is_told_what_and_where(resource: Path, tmp_path: Path) -> None:
    arguments = ("--resource", str(resource), "--version", "v1", "--artifact", "/artifacts/v1", "--port", "8080")
    out, err = start(tmp_path, "serve", *arguments).communicate(timeout=20)
    named = {"version": "v1", "artifact": "/artifacts/v1", "port": 8080}
    assert out == f"serve broker:9092 ['default.phone-inspection'] {named}\n", err


def test_feedback_is_told_where_to_listen(tmp_path: Path) -> None:
    out, err = start(tmp_path, "feedback", "--port", "8081").communicate(timeout=20)
    assert out == "feedback broker:9092 [] {}\n", err


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a stack."""
    monkeypatch.chdir(tmp_path)
    for name in ("TIDEMILL_STATE", "TIDEMILL_KAFKA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_role_without_its_resource_is_a_usage_error(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, err = call(capsys, "ingest")
    assert (status, "--resource" in err) == (2, True)


def test_a_role_with_a_broken_resource_says_what_is_wrong(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "broken.yaml").write_text("kind: Pod")
    status, err = call(capsys, "watch", "--resource", "broken.yaml")
    assert (status, "broken.yaml" in err) == (2, True)


def test_control_without_a_stack_says_how_to_start_one(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, err = call(capsys, "control")
    assert (status, "tidemill up" in err) == (5, True)
