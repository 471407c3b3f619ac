"""The whole stack of one machine, from the shell, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tidemill.core.exposition import read_metrics
from tidemill.stack.running import what_runs
from tidemill.stack.supervisor import ProcessSeen, ProcessWanted
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually

pytestmark = [pytest.mark.stack, pytest.mark.kafka, pytest.mark.redis, pytest.mark.envoy]

PARTS = ("envoy", "kafka", "redis")

# Starts a child of its own that would run for an hour, tells its pid, and waits.
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])"


class Machine:
    """Commands on one state folder, and what runs because of them."""

    def __init__(self, state: Path, **settings: str) -> None:
        self.state = state
        self.env = {**os.environ, "TIDEMILL_STATE": str(state)}
        self.env |= {f"TIDEMILL_{name.upper()}": value for name, value in settings.items()}
        self.started: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tidemill.cli", *arguments]
        return subprocess.run(
            command, env=self.env, cwd=self.state.parent, capture_output=True, text=True, timeout=120, check=False
        )

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tidemill.cli", *arguments]
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        process = subprocess.Popen(command, env=self.env, cwd=self.state.parent, stdout=pipe, stderr=merged, text=True)
        self.started.append(process)
        return process

    def up(self) -> "subprocess.Popen[str]":
        """The stack, in a process that the test can send signals to; returns once it is ready."""
        process = self.popen("up", "--no-control")

        def is_ready() -> bool:
            assert process.poll() is None, process.communicate()[0]
            stack = what_runs(self.state)
            return stack is not None and stack.pid == process.pid

        eventually(is_ready, deadline_s=120)
        return process

    def end(self) -> None:
        """Everything that the test has started is over, and nothing is left of it."""
        self.run("down")
        for process in self.started:
            process.communicate(timeout=30)
        self.nothing_is_left()

    def processes(self) -> Mapping[str, ProcessSeen]:
        return {one.name: one for one in FileSupervisor(self.state / "processes").observe()}

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
    made.end()


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Machine]:
    """A machine that starts everything itself."""
    made = Machine(tmp_path / "state")
    yield made
    made.end()


def test_everything_starts_is_shown_survives_a_kill_and_ends(whole: Machine) -> None:
    assert whole.run("up", "--detach", "--no-control").returncode == 0
    stack = json.loads((whole.state / "stack.json").read_text())
    assert {name: one.state for name, one in whole.processes().items()} == dict.fromkeys(PARTS, "ready")
    only_loopback(whole.processes())
    status = json.loads(whole.run("status", "--output", "json").stdout)
    assert (status["running"], [one["name"] for one in status["processes"]]) == (True, list(PARTS))
    cluster = (whole.state / "kafka/data/meta.properties").read_text()
    parts_are_told_of(whole)

    os.kill(stack["pid"], signal.SIGKILL)
    whole.nothing_is_left()
    assert whole.run("status").returncode == 3

    again = whole.up()
    assert json.loads((whole.state / "stack.json").read_text())["settings"] == stack["settings"], "its ports are kept"
    assert (whole.state / "kafka/data/meta.properties").read_text() == cluster
    assert whole.run("down").stdout.strip() == "ended"
    assert again.wait(0.5) == 0
    assert whole.left() == []
    assert not (whole.state / "stack.json").exists()
    assert whole.run("down").stdout.strip() == "nothing runs"


def parts_are_told_of(whole: Machine) -> None:
    """What each part costs, and where Prometheus hears of it."""
    file = whole.state / "prometheus" / "targets.json"
    eventually(lambda: file.exists() and "up" in file.read_text(), deadline_s=10)
    ((address,), labels) = next((one["targets"], one["labels"]) for one in json.loads(file.read_text()))
    assert labels == {"process": "up", "role": "up", "model": ""}
    told = read_metrics(address)
    assert {of["process"] for of, ready in told["tidemill_child_ready"] if ready} == set(PARTS)
    assert all(size > 1e6 for _, size in told["tidemill_child_resident_memory_bytes"])


def only_loopback(shown: Mapping[str, ProcessSeen]) -> None:
    for one in shown.values():
        assert one.pid is not None
        listening = {c.laddr.ip for c in psutil.Process(one.pid).connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening, one.name
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}, one.name


def test_kafka_and_redis_of_ones_own_are_used_and_not_started(machine: Machine, kafka: str) -> None:
    machine.up()
    assert list(machine.processes()) == ["envoy"]
    shown = json.loads(machine.run("config", "--output", "json").stdout)
    origins = {one["name"]: (one["value"], one["origin"]) for one in shown}
    assert origins["kafka"] == (kafka, "environment")
    assert origins["endpoint"][1] == str(machine.state / "stack.json")


def test_a_second_up_finds_the_first(machine: Machine) -> None:
    ups = [machine.popen("up", "--detach", "--no-control") for _ in range(2)]
    said = [up.communicate(timeout=60)[0] for up in ups]
    assert [up.returncode for up in ups] == [0, 0], said
    third = machine.run("up", "--output", "json")
    assert third.returncode == 0
    assert json.loads(third.stdout)["pid"] == json.loads((machine.state / "stack.json").read_text())["pid"]
    assert "it runs already" in third.stderr
    assert len([line for line in machine.left() if "--config-path" in line]) == 1


def test_what_files_want_runs_with_the_settings_and_a_crash_is_repaired_and_shown(machine: Machine, kafka: str) -> None:
    machine.up()
    supervisor, told = FileSupervisor(machine.state / "processes"), machine.state / "told"
    program = f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(os.environ['TIDEMILL_KAFKA'])"
    supervisor.want(ProcessWanted(name="role", argv=(sys.executable, "-c", f"{program}; time.sleep(600)")))
    eventually(lambda: told.is_file() and told.read_text() == kafka)

    pid = machine.processes()["role"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: machine.processes()["role"].restarts == 1)
    seen = machine.processes()["role"]
    assert (seen.state, seen.exit_status) == ("ready", -9)

    supervisor.want(ProcessWanted(name="broken", argv=("/does/not/exist",)))
    eventually(lambda: machine.processes()["broken"].state == "failing")
    # It is started again now and then, and is not failing at that moment.
    eventually(lambda: machine.run("status").returncode == 1)


def test_a_killed_supervisor_takes_everything_along_and_a_task_never_runs_twice(machine: Machine) -> None:
    first = machine.up()
    supervisor = FileSupervisor(machine.state / "processes")
    supervisor.want(ProcessWanted(name="task", argv=(sys.executable, "-c", PARENT), kind="task"))
    eventually(lambda: len([line for line in machine.left() if "sleep(3600)" in line]) == 2)
    first.kill()
    machine.nothing_is_left()

    machine.up()
    eventually(lambda: machine.processes()["task"].state == "ended")
    assert machine.processes()["task"].exit_status == -signal.SIGKILL
    assert not any("sleep(3600)" in line for line in machine.left())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(machine: Machine, number: signal.Signals) -> None:
    up = machine.up()
    up.send_signal(number)
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
    stale = {"pid": 2**22 + 1, "started": "", "settings": {"endpoint": "http://127.0.0.1:1"}}
    (machine.state / "stack.json").write_text(json.dumps(stale))
    assert machine.run("status").returncode == 3
    machine.up()
    assert what_runs(machine.state) is not None
