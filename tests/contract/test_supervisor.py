"""What every process supervisor does: the one behind `tidemill up`, with real processes, and the double."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tidemill.core.errors import InvalidInput
from tidemill.stack.supervisor import ProcessSeen, ProcessSupervisor, ProcessWanted
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.process import supervise
from tidemill.testing.supervisor import SupervisorDouble

# Runs until the file that its name stands for says with which status to end; a service finds it once.
PROGRAM = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
while not file.exists():
    time.sleep(0.01)
status = int(file.read_text())
file.unlink()
sys.exit(status)
"""


class Case(NamedTuple):
    supervisor: ProcessSupervisor
    end: Callable[[str, int], None]
    folder: Path

    def process(self, name: str, kind: str = "service", **more: object) -> ProcessWanted:
        argv = (sys.executable, "-S", "-c", PROGRAM, str(self.folder / name))
        return ProcessWanted(name=name, argv=argv, kind=kind, **more)  # type: ignore[arg-type]

    def see(self, name: str) -> ProcessSeen | None:
        return next((seen for seen in self.supervisor.observe() if seen.name == name), None)

    def once(self, name: str, condition: Callable[[ProcessSeen], bool]) -> ProcessSeen:
        def found() -> ProcessSeen | None:
            seen = self.see(name)
            return seen if seen is not None and condition(seen) else None

        seen = eventually(found)
        assert seen is not None
        return seen


@pytest.fixture(params=["real", "double"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "double":
        double = SupervisorDouble()
        yield Case(double, double.end, tmp_path)
        return
    over = threading.Event()

    def end(name: str, status: int) -> None:
        part = tmp_path / f"{name}.part"
        part.write_text(str(status))
        part.rename(tmp_path / name)

    thread = threading.Thread(target=supervise, args=(tmp_path, over), kwargs={"env": {}, "folder": tmp_path})
    thread.start()
    try:
        yield Case(FileSupervisor(tmp_path / "processes"), end, tmp_path)
    finally:
        over.set()
        thread.join()


def test_what_is_wanted_runs(case: Case) -> None:
    case.supervisor.want(case.process("a"))
    assert case.see("a") is not None
    seen = case.once("a", lambda one: one.state == "ready")
    assert seen.pid is not None
    assert seen.restarts == 0
    assert seen.exit_status is None


def test_wanting_the_same_twice_changes_nothing(case: Case) -> None:
    case.supervisor.want(case.process("a"))
    first = case.once("a", lambda one: one.state == "ready")
    case.supervisor.want(case.process("a"))
    case.supervisor.want(case.process("b"))
    case.once("b", lambda one: one.state == "ready")
    assert case.see("a") == first


def test_processes_are_ordered_by_name(case: Case) -> None:
    for name in ("c", "a", "b"):
        case.supervisor.want(case.process(name))
    assert [seen.name for seen in case.supervisor.observe()] == ["a", "b", "c"]


def test_what_is_no_longer_wanted_is_gone(case: Case) -> None:
    case.supervisor.want(case.process("a"))
    case.once("a", lambda one: one.state == "ready")
    case.supervisor.unwant("a")
    eventually(lambda: case.see("a") is None)


def test_unknown_names_are_no_error(case: Case) -> None:
    case.supervisor.unwant("never-heard-of")
    assert list(case.supervisor.observe()) == []


def test_a_change_replaces_the_process(case: Case) -> None:
    case.supervisor.want(case.process("a"))
    first = case.once("a", lambda one: one.state == "ready")
    case.supervisor.want(case.process("a", env={"COLOUR": "blue"}))
    second = case.once("a", lambda one: one.state == "ready" and one.pid != first.pid)
    assert second.restarts == 0


def test_a_service_that_ends_is_started_again(case: Case) -> None:
    case.supervisor.want(case.process("a"))
    first = case.once("a", lambda one: one.state == "ready")
    case.end("a", 3)
    second = case.once("a", lambda one: one.restarts == 1 and one.state == "ready")
    assert second.exit_status == 3
    assert second.pid != first.pid


@pytest.mark.parametrize("status", [0, 7])
def test_a_task_runs_once_and_its_exit_status_is_kept(case: Case, status: int) -> None:
    case.supervisor.want(case.process("t", kind="task"))
    case.once("t", lambda one: one.state == "ready")
    case.end("t", status)
    seen = case.once("t", lambda one: one.state == "ended")
    assert (seen.exit_status, seen.pid, seen.restarts) == (status, None, 0)
    case.supervisor.want(case.process("t", kind="task"))
    case.supervisor.want(case.process("later"))
    case.once("later", lambda one: one.state == "ready")
    assert case.see("t") == seen
    case.supervisor.unwant("t")
    eventually(lambda: case.see("t") is None)


@pytest.mark.parametrize("name", ["", "../a", ".hidden", "a/b"])
def test_a_name_that_cannot_be_a_files_is_refused(case: Case, name: str) -> None:
    with pytest.raises(InvalidInput):
        case.supervisor.want(case.process(name))
