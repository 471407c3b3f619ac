"""Processes that have imported what the steps need."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tidemill.retrain import entry, warm
from tidemill.testing import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks of a process with torch in it: Linux only")


def alive(folder: Path) -> list[str]:
    """Processes that were started with this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text():
                found.append(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Far deeper than the 108 characters that a socket's address may have.
    return tmp_path / ("deep" * 30) / "warm"


@pytest.fixture
def process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    monkeypatch.setenv(warm.FOLDER, "")  # put back afterwards
    started = warm.start(folder)
    assert started is not None
    yield started
    started.kill()
    started.wait(10)
    if started.stdin:
        started.stdin.close()


def test_without_warm_processes_nothing_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(warm.FOLDER, raising=False)
    assert warm.hand_over("claim", {}) is None


def test_where_they_are_gone_the_step_is_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(warm.FOLDER, str(tmp_path))
    assert warm.hand_over("claim", {}) is None
    assert "claim runs without a warm process" in capsys.readouterr().out


def test_a_step_that_fails_there_fails_here_and_its_output_is_ours(
    process: "subprocess.Popen[bytes]", folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    eventually(lambda: (folder / "light").exists(), deadline_s=30)
    with pytest.raises(RuntimeError, match=r"claim failed: .*unexpected keyword argument 'nothing'"):
        entry.run("claim", nothing=1)
    assert "TypeError" in capfd.readouterr().err


@pytest.mark.timeout(90)
def test_a_step_whose_process_died_is_run_here_and_does_not_wait_for_ever(
    process: "subprocess.Popen[bytes]",
) -> None:
    (torch,) = eventually(psutil.Process(process.pid).children, deadline_s=60)
    torch.kill()
    assert warm.hand_over("train", {}) is None


def test_they_end_with_the_process_that_started_them(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    eventually(lambda: (folder / "light").exists(), deadline_s=30)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    eventually(lambda: not alive(folder), deadline_s=120)


def test_what_is_imported_before_a_fork_starts_no_thread_of_its_own() -> None:
    """But those of allocators, which are made for forks, and the one with which Polars would clean spilled files."""
    modules = [module for names in warm._IMPORTS.values() for module in names]
    program = (
        "import importlib, pathlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "for task in pathlib.Path('/proc/self/task').iterdir(): print('thread:' + (task / 'comm').read_text().strip())"
    )
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=env, check=True, capture_output=True, timeout=200, text=True
    )
    threads = [line.removeprefix("thread:") for line in found.stdout.splitlines() if line.startswith("thread:")]
    assert set(threads[1:]) <= {"jemalloc_bg_thd", "polars-ooc-clea"}
