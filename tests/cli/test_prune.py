"""`tidemill prune` from the command line."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.test_dataset import MODEL, older, trained, version  # noqa: F401  (fixtures)
from tests.cli.test_slices import call

from tidemill.artifacts import version_folders
from tidemill.control.state import LoopStatus, Run, Version, encode_status
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock
from tidemill.testing.clock import ManualClock
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.training import START
from tidemill.training.snapshot import Snapshot
from tidemill.wiring import Local

ID = f"default.{MODEL}"
LATER = ManualClock(START + timedelta(days=60))


def serving(folder: Path, champion: str | None, run: Run | None = None) -> None:
    """Control has said what serves, and whether a run is in flight."""
    store = LocalResourceStore(folder / "resources")
    found = None if champion is None else Version(version=champion, artifact="", since=0)
    status = LoopStatus(created_at=0, champion=found, run=run)
    store.put_status(ID, encode_status(status), version=store.get(ID).version)


@pytest.fixture
def installed(version: Path, older: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Versions r1, r2 and r3, all of one snapshot; r2 serves."""
    registry = MemoryRegistry(SystemClock())
    for name in ("r1", "r2", "r3"):
        trained(version.with_name(name), older.digest)
        registry.register(ID, name, str(version.with_name(name)))
    monkeypatch.setattr(Local, "registry", registry)
    monkeypatch.setattr("tidemill.wiring.SystemClock", lambda: LATER)
    serving(version.parents[3], "r2")
    return version.parent


def names(folder: Path) -> list[str]:
    return [path.name for path in version_folders(folder)]


def test_what_would_go_is_shown_and_nothing_goes(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "prune", MODEL, "--keep", "1", "--dry-run")
    assert status == 0
    assert "version r1" in " ".join(out.split())
    assert "would go" in out
    assert names(installed) == ["r1", "r2", "r3"]


def test_it_goes_and_lineage_still_tells_of_it(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "prune", MODEL, "--keep", "1", "-o", "json")
    assert status == 0
    assert json.loads(out)["versions"] == ["r1"]
    assert names(installed) == ["r2", "r3"], "r2 serves, and r3 is the newest"
    status, out, _ = call(capsys, "lineage", MODEL, "r1")
    assert status == 0
    assert "files gone=2026-03-02" in out
    _, out, _ = call(capsys, "prune", MODEL, "--keep", "1")
    assert "nothing of default.phone-inspection may go" in out


def test_what_is_younger_stays(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", MODEL, "--keep", "1", "--older-than", "90d")[0] == 0
    assert names(installed) == ["r1", "r2", "r3"]


@pytest.mark.parametrize("champion", ["r2", None])
def test_it_refuses_while_a_run_is_in_flight_or_nothing_serves(
    installed: Path, capsys: pytest.CaptureFixture[str], champion: str | None
) -> None:
    run = Run(run="r4", cause="drift", reason="it fell", started_at=0) if champion else None
    serving(installed.parents[2], champion, run)
    status, _, err = call(capsys, "prune", MODEL, "--keep", "1")
    assert status == 2
    assert ("r4 is in flight" if champion else "no version serves") in err
    assert names(installed) == ["r1", "r2", "r3"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("age", "said"), [("a while", "1h30m"), ("59m", "too short")])
def test_an_age_that_is_none_or_too_short_is_refused(capsys: pytest.CaptureFixture[str], age: str, said: str) -> None:
    status, _, err = call(capsys, "prune", MODEL, "--older-than", age)
    assert status == 2
    assert said in err
