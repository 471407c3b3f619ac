"""The holder of child processes, with real ones: how soon it reacts, what it survives, what it leaves behind."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Corrupt
from tidemill.core.exposition import metrics_told, note_metrics
from tidemill.stack.guard import Guard
from tidemill.stack.launch import signal_group, spawn
from tidemill.stack.logs import bound, last_lines
from tidemill.stack.readiness import is_ready
from tidemill.stack.runner import LOGS_EVERY_S, Runner
from tidemill.stack.supervisor import ProcessWanted
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock

SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable, "-S", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('armed', flush=True); time.sleep(600)",
)  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path, env={"OURS": "yes"}, folder=tmp_path, clock=SystemClock())
    made.follow_files(True)
    yield made
    made.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> FileSupervisor:
    return FileSupervisor(tmp_path / "processes")


def until(runner: Runner, name: str, state: str | None, deadline_s: float = 10.0) -> None:
    """Step until a process is in this state; None: until it is gone."""

    def reached() -> bool:
        runner.step()
        seen = runner.observe().get(name)
        return (seen.state if seen else None) == state

    eventually(reached, deadline_s)


def test_a_wanted_process_runs_within_two_steps(runner: Runner, supervisor: FileSupervisor) -> None:
    supervisor.want(ProcessWanted(name="a", argv=SLEEPER))
    runner.step()
    (seen,) = supervisor.observe()
    assert (seen.state, seen.pid is not None) == ("ready", True)
    supervisor.unwant("a")
    runner.step()
    assert supervisor.observe()[0].state == "ending"
    until(runner, "a", None)
    assert supervisor.observe() == []


def test_a_step_without_news_costs_next_to_nothing(runner: Runner, supervisor: FileSupervisor) -> None:
    for number in range(10):
        supervisor.want(ProcessWanted(name=f"p{number}", argv=SLEEPER))
    runner.step()
    clock, before = SystemClock(), os.times()
    start = clock.monotonic()
    for _ in range(100):
        runner.step()
    used = sum(os.times()[:2]) - sum(before[:2])
    assert used < 0.5, "a hundred steps are five seconds of the loop: that would be a tenth of a core"
    assert clock.monotonic() - start < 5


def test_a_child_gets_its_environment_working_folder_and_log(
    runner: Runner, supervisor: FileSupervisor, tmp_path: Path
) -> None:
    program = "import os; print(os.environ['OURS'], os.environ['ITS'], os.getcwd())"
    argv = (sys.executable, "-c", program)
    supervisor.want(ProcessWanted(name="t", argv=argv, env={"ITS": "own"}, kind="task"))
    until(runner, "t", "ended")
    (seen,) = supervisor.observe()
    assert Path(seen.log).read_text() == f"yes own {tmp_path}\n"
    assert seen.exit_status == 0


def test_what_ignores_sigterm_is_killed_after_its_grace(runner: Runner, supervisor: FileSupervisor) -> None:
    supervisor.want(ProcessWanted(name="s", argv=STUBBORN, grace_s=0.2))
    runner.step()
    eventually(lambda: "armed" in runner.log("s").read_text())
    supervisor.unwant("s")
    until(runner, "s", None, deadline_s=5)


def test_what_a_process_started_ends_with_it(runner: Runner, supervisor: FileSupervisor) -> None:
    program = f"import subprocess; print(subprocess.Popen({list(SLEEPER)}).pid, flush=True)"
    supervisor.want(ProcessWanted(name="t", argv=(sys.executable, "-c", program), kind="task"))
    until(runner, "t", "ended")
    grandchild = int(runner.log("t").read_text())
    eventually(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie")


def test_a_process_is_ready_when_its_url_answers_200(runner: Runner, supervisor: FileSupervisor) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        status = 503

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}/ready"
        try:
            supervisor.want(ProcessWanted(name="w", argv=SLEEPER, ready=url))
            runner.step()
            assert not is_ready(url)
            runner.step()
            assert runner.observe()["w"].state == "starting"
            Handler.status = 200
            until(runner, "w", "ready")
        finally:
            server.shutdown()


def test_a_process_is_ready_when_its_socket_takes_connections(tmp_path: Path) -> None:
    path = tmp_path / "with space"
    url = f"unix://{quote(str(path))}"
    with socket.socket(socket.AF_UNIX) as server:
        assert not is_ready(url)
        server.bind(str(path))
        assert not is_ready(url)
        server.listen()
        assert is_ready(url)


def test_a_file_that_cannot_be_read_stops_nothing(runner: Runner, supervisor: FileSupervisor, tmp_path: Path) -> None:
    supervisor.want(ProcessWanted(name="a", argv=SLEEPER))
    runner.step()
    pid = runner.observe()["a"].pid
    for broken in ("{", '{"name": "other", "argv": ["x"]}', '{"name": "a", "argv": []}'):
        (tmp_path / "processes/wanted/a.json").write_text(broken)
        runner.step()
        assert runner.observe()["a"].pid == pid
    supervisor.want(ProcessWanted(name="b", argv=SLEEPER))
    until(runner, "b", "ready")


def test_a_program_that_does_not_exist_is_told_in_the_log(runner: Runner, supervisor: FileSupervisor) -> None:
    supervisor.want(ProcessWanted(name="n", argv=("/no/such/program",)))
    until(runner, "n", "failing")
    assert runner.observe()["n"].exit_status == 1
    assert "cannot be run: No such file" in runner.log("n").read_text()


def test_a_record_of_a_task_that_was_damaged_is_told_and_not_run_again(tmp_path: Path) -> None:
    runner = Runner(tmp_path, env={}, folder=tmp_path, clock=SystemClock())
    try:
        (tmp_path / "processes/tasks/t.json").write_text("{")
        with pytest.raises(Corrupt, match=r"t\.json"):
            runner.follow_files(True)
    finally:
        runner.close()


def test_a_log_is_bounded_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 1000)
        writer.flush()
        assert not bound(log, 1000)
        writer.write(b"last\n")
        writer.flush()
        assert bound(log, 1000)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert last_lines(tmp_path / "a.log.1").endswith("last")
    assert last_lines(tmp_path / "none") == ""


def test_a_leash_ends_the_child_of_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from tidemill.stack.launch import spawn\n"
        f"print(spawn({SLEEPER!r}, log=pathlib.Path({str(tmp_path / 'log')!r})).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_a_guard_ends_only_what_is_left_when_its_owner_goes(tmp_path: Path) -> None:
    guard = Guard()
    kept, left = (spawn(SLEEPER, log=tmp_path / name) for name in ("kept", "left"))
    try:
        for process in (kept, left):
            guard.watch(process.pid)
        guard.forget(kept.pid)
        guard.close()
        assert left.wait(5) == -signal.SIGKILL
        assert kept.poll() is None
    finally:
        signal_group(kept.pid, signal.SIGKILL)
        kept.wait(5)
    assert not signal_group(kept.pid, signal.SIGTERM)


def test_prometheus_is_told_of_processes_as_they_come_and_go(tmp_path: Path, supervisor: FileSupervisor) -> None:
    clock = ManualClock()
    runner = Runner(tmp_path, env={}, folder=tmp_path, clock=clock)
    runner.follow_files(True)
    file = tmp_path / "prometheus" / "targets.json"

    def targets() -> list[str]:
        clock.advance(LOGS_EVERY_S)
        runner.step()
        return [one["labels"]["process"] for one in json.loads(file.read_text())]

    try:
        note_metrics(tmp_path, "stranger", "127.0.0.1:7", role="ingest")
        assert targets() == []
        supervisor.want(ProcessWanted(name="a", argv=SLEEPER))
        note_metrics(tmp_path, "a", "127.0.0.1:8", role="ingest", model="default.m")
        runner.step()
        assert targets() == ["a"]
        pid = runner.observe()["a"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: targets() == ["a"] and runner.observe()["a"].pid != pid, 10)  # dead, and wanted still
        supervisor.unwant("a")
        eventually(lambda: targets() == [], 10)
        assert [one.process for one in metrics_told(tmp_path)] == ["stranger"]
    finally:
        runner.close()
