"""The whole stack of one machine, from the shell, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tidemill.stack.supervisor import ProcessWanted
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually

pytestmark = [pytest.mark.stack, pytest.mark.kafka, pytest.mark.redis, pytest.mark.envoy]

# Starts a child of its own that would run for an hour, tells its pid, and waits.
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])"


class Machine:
    """Commands on one state folder, and what runs because of them."""

    def __init__(self, state: Path, **settings: str) -> None:
        self.state = state
        self.env = {**os.environ, "TIDEMILL_STATE": str(state)}
        self.env |= {f"TIDEMILL_{name.upper()}": value for name, value in settings.items()}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tidemill.cli", *arguments]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), env=self.env, cwd=self.state.parent, capture_output=True, text=True, timeout=120
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--output", "json").stdout)

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        argv, folder = self.command(*arguments), self.state.parent
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(argv, env=self.env, cwd=folder, stdout=pipe, stderr=merged, text=True)

    def processes(self) -> Mapping[str, dict[str, Any]]:
        return {one["name"]: one for one in self.json("status")["processes"]}

    def left(self) -> list[str]:
        """Every process that was started for this state folder, however deep."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TIDEMILL_STATE") == str(self.state) and process.status() != "zombie":
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def nothing_is_left(self) -> None:
        eventually(lambda: not self.left(), deadline_s=5)


@pytest.fixture
def machine(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[Machine]:
    """A machine that uses the tests' Kafka and Redis as external ones, so that only Envoy is to be started."""
    made = Machine(tmp_path / "state", kafka=kafka, redis=redis_url)
    yield made
    made.run("down")
    made.nothing_is_left()


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Machine]:
    """A machine that starts everything itself."""
    made = Machine(tmp_path / "state")
    yield made
    made.run("down")
    made.nothing_is_left()


def test_everything_starts_is_shown_survives_a_kill_and_ends(whole: Machine) -> None:
    up = whole.run("up", "--detach", "--no-control")
    assert up.returncode == 0, up.stdout + up.stderr
    stack = json.loads((whole.state / "stack.json").read_text())
    shown = whole.processes()
    assert {name: one["state"] for name, one in shown.items()} == dict.fromkeys(("envoy", "kafka", "redis"), "ready")
    only_loopback(shown)
    cluster = (whole.state / "kafka/data/meta.properties").read_text()

    os.kill(stack["pid"], signal.SIGKILL)
    whole.nothing_is_left()
    assert whole.run("status").returncode == 3
    assert {one["name"]: one["value"] for one in whole.json("config")}["kafka"] is None

    assert whole.run("up", "--detach", "--no-control").returncode == 0
    again = json.loads((whole.state / "stack.json").read_text())
    assert again["pid"] != stack["pid"]
    assert (whole.state / "kafka/data/meta.properties").read_text() == cluster
    assert whole.run("down").returncode == 0
    assert whole.left() == []
    assert not (whole.state / "stack.json").exists()


def only_loopback(shown: Mapping[str, dict[str, Any]]) -> None:
    for one in shown.values():
        listening = [
            c.laddr.ip for c in psutil.Process(one["pid"]).connections("tcp") if c.status == psutil.CONN_LISTEN
        ]
        assert listening, one["name"]
        assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}, one["name"]


def test_kafka_and_redis_of_ones_own_are_used_and_not_started(machine: Machine, kafka: str) -> None:
    assert machine.run("up", "--detach", "--no-control").returncode == 0
    assert list(machine.processes()) == ["envoy"]
    origins = {one["name"]: (one["value"], one["origin"]) for one in machine.json("config")}
    assert origins["kafka"] == (kafka, "environment")
    assert origins["endpoint"][1] == str(machine.state / "stack.json")


def test_a_second_up_finds_the_first(machine: Machine) -> None:
    first, second = machine.popen("up", "--detach", "--no-control"), machine.popen("up", "--detach", "--no-control")
    said = [first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]]
    assert (first.returncode, second.returncode) == (0, 0), said
    pid = json.loads((machine.state / "stack.json").read_text())["pid"]
    third = machine.run("up", "--output", "json")
    assert third.returncode == 0
    assert json.loads(third.stdout)["pid"] == pid
    assert "it runs already" in third.stderr
    assert [line for line in machine.left() if "envoy" in line] == [
        next(line for line in machine.left() if "envoy" in line)
    ]


def test_what_files_want_runs_with_the_settings_and_a_crash_is_repaired_and_shown(machine: Machine, kafka: str) -> None:
    told = machine.state / "told"
    tell = f"pathlib.Path({str(told)!r}).write_text(os.environ['TIDEMILL_KAFKA'])"
    program = f"import os, pathlib, time; {tell}; time.sleep(99)"
    assert machine.run("up", "--detach", "--no-control").returncode == 0
    FileSupervisor(machine.state / "processes").want(ProcessWanted(name="role", argv=(sys.executable, "-c", program)))
    eventually(lambda: told.is_file() and told.read_text() == kafka)

    os.kill(machine.processes()["role"]["pid"], signal.SIGKILL)
    eventually(lambda: machine.processes()["role"]["restarts"] == 1)
    seen = machine.processes()["role"]
    assert (seen["state"], seen["exit_status"]) == ("ready", -9)


def test_a_service_that_cannot_run_makes_status_fail(machine: Machine) -> None:
    assert machine.run("up", "--detach", "--no-control").returncode == 0
    FileSupervisor(machine.state / "processes").want(ProcessWanted(name="broken", argv=("/does/not/exist",)))
    eventually(lambda: machine.run("status").returncode == 1)
    assert "cannot be run" in Path(machine.processes()["broken"]["log"]).read_text()


def test_a_killed_supervisor_takes_everything_along_and_a_task_never_runs_twice(machine: Machine) -> None:
    assert machine.run("up", "--detach", "--no-control").returncode == 0
    supervisor = FileSupervisor(machine.state / "processes")
    task = ProcessWanted(name="task", argv=(sys.executable, "-c", PARENT), kind="task")
    supervisor.want(task)
    eventually(lambda: len([line for line in machine.left() if "sleep(3600)" in line]) == 2)

    os.kill(json.loads((machine.state / "stack.json").read_text())["pid"], signal.SIGKILL)
    machine.nothing_is_left()

    assert machine.run("up", "--detach", "--no-control").returncode == 0
    eventually(lambda: machine.processes()["task"]["state"] == "ended")
    assert machine.processes()["task"]["exit_status"] == -signal.SIGKILL
    assert not any("sleep(3600)" in line for line in machine.left())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(machine: Machine, number: signal.Signals) -> None:
    up = machine.popen("up", "--no-control")
    eventually(lambda: (machine.state / "stack.json").exists(), deadline_s=30)
    os.kill(up.pid, number)
    said, _ = up.communicate(timeout=30)
    assert up.returncode == 0, said
    assert "Traceback" not in said
    assert machine.left() == []


def test_a_taken_port_is_named_and_nothing_is_left(machine: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        machine.env["TIDEMILL_ENVOY_PORT"] = str(port)
        up = machine.run("up", "--no-control")
        doctor = machine.run("doctor")
    assert up.returncode == 4
    assert f"error: port {port}" in up.stderr
    assert "hint:" in up.stderr
    assert doctor.returncode == 1
    assert f"{port} is taken" in doctor.stdout
    assert machine.left() == []


def test_a_part_that_fails_shows_the_end_of_its_log(machine: Machine, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "redis-server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho out of cheese\nexit 3\n")
    broken.chmod(0o755)
    machine.env["PATH"] = f"{broken.parent}:{machine.env['PATH']}"
    del machine.env["TIDEMILL_REDIS"]
    up = machine.run("up", "--detach", "--no-control")
    assert up.returncode == 5
    assert "redis ended with status 3\nout of cheese" in up.stderr
    assert str(machine.state / "logs/redis.log") in up.stderr
    assert machine.left() == []


def test_a_server_of_ones_own_that_does_not_answer_is_named(machine: Machine) -> None:
    machine.env["TIDEMILL_REDIS"] = "redis://:secret@127.0.0.1:1/0"
    up = machine.run("up", "--no-control")
    assert up.returncode == 5
    assert "redis://:***@127.0.0.1:1/0 does not answer" in up.stderr
    assert "secret" not in up.stderr


def test_a_left_over_stack_file_is_not_believed(machine: Machine) -> None:
    machine.state.mkdir()
    stale = {"pid": 2**22 + 1, "started": "", "settings": {"kafka": "127.0.0.1:1"}}
    (machine.state / "stack.json").write_bytes(msgspec.json.encode(stale))
    assert machine.run("status").returncode == 3
    assert machine.run("up", "--detach", "--no-control").returncode == 0
    assert machine.run("down").stdout.strip() == "ended"
    assert machine.run("down").stdout.strip() == "nothing runs"
