"""Retention done to folders: what goes, in which order, and what a crash in between leaves."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_dataset import trained

from tidemill.artifacts import version_folders
from tidemill.control.clearing import Clearing, Places, clear, look, places_of, sweep
from tidemill.control.protocols import RunSeen
from tidemill.control.retention import Going, Rule, may_go
from tidemill.control.runs import write_run
from tidemill.control.state import LoopStatus, Version
from tidemill.core.clock import to_ms
from tidemill.core.errors import Unavailable
from tidemill.core.settings import Settings
from tidemill.registry import CLEARED_TAG
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import LoopBench
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.training import START, TAKEN_AT, snapshot_of, snapshot_rows, tiny_resource
from tidemill.training.frozen import freeze, frozen_folder

MODEL = "default.phone-inspection"
NOW = START + timedelta(days=100)
RULE = Rule(timedelta(days=30), 1)
STATUS = LoopStatus(created_at=0, champion=Version(version="r3", artifact="", since=0))


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(ManualClock())


@pytest.fixture
def places(tmp_path: Path, registry: MemoryRegistry) -> Places:
    """Versions r1 to r3, each of its own snapshot, a snapshot of a failed run, and one that rows were frozen of."""
    made = Places(MODEL, tmp_path / "default" / "phone-inspection", tmp_path / "runs")
    rows = snapshot_rows(tiny_resource(), 80, fresh=20)
    for number in range(5):
        taken = snapshot_of(made.snapshots, rows, seed=number)
        if number < 3:
            run = f"r{number + 1}"
            trained(made.versions / run, taken.digest)
            registry.register(MODEL, run, str(made.versions / run))
            write_run(made.runs / run, RunSeen(run=run, state="succeeded"))
    freeze(frozen_folder(made.versions / "any"), "golden", taken, rows.head(30), query="", by="ann", now=START)
    write_run(made.runs / "r0", RunSeen(run="r0", state="failed"))
    (made.versions / ".r0.failed").write_text("train failed: no memory")
    return made


def left(places: Places) -> dict[str, list[str]]:
    folders = {"versions": places.versions, "snapshots": places.snapshots, "runs": places.runs}
    return {name: sorted(path.name for path in folder.iterdir()) for name, folder in folders.items()}


def goes(places: Places) -> Going:
    there = look(places)
    recent = {name: to_ms(START) for name in there.runs}  # the files are of today
    there = type(there)(there.versions, there.snapshots, recent, there.frozen)
    return may_go(there, STATUS, {}, RULE, NOW)


def test_what_there_is_is_seen_with_times_and_needs(places: Places) -> None:
    found = look(places)
    assert list(found.versions) == ["r1", "r2", "r3"]
    assert {one.made_at for one in found.versions.values()} == {to_ms(START + timedelta(days=1))}
    assert set(found.snapshots.values()) == {TAKEN_AT}
    assert {one.snapshot for one in found.versions.values()} < found.snapshots.keys()
    assert set(found.runs) == {"r0", "r1", "r2", "r3"}
    assert found.frozen is not None
    assert len(found.frozen) == 1


def test_what_is_damaged_is_of_no_known_age_and_a_damaged_name_hides_what_is_frozen(places: Places) -> None:
    (places.versions / "r1" / "manifest.json").write_text("{")
    digest = next(path for path in places.snapshots.iterdir())
    (digest / "snapshot.json").write_text("{")
    (frozen_folder(places.versions / "any") / "golden.json").write_text("{")
    found = look(places)
    assert found.versions["r1"].made_at is None
    assert found.snapshots[digest.name] is None
    assert found.frozen is None


def test_it_goes_and_the_registry_keeps_its_lineage(places: Places, registry: MemoryRegistry) -> None:
    kept = {look(places).versions["r3"].snapshot, *(look(places).frozen or ())}
    clear(places, goes(places), registry, NOW)
    assert left(places) == {"versions": ["frozen", "r3", "snapshots"], "snapshots": sorted(kept), "runs": ["r3"]}
    marked = {one.version: one.tags.get(CLEARED_TAG) for one in registry.versions(MODEL)}
    assert marked == {"r1": NOW.isoformat(), "r2": NOW.isoformat(), "r3": None}


def test_a_crash_at_any_call_leaves_no_half_version_and_the_next_time_ends_it(
    places: Places, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, fuse = [0], [0]

    def crashing(owner: Any, name: str) -> None:
        own = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == fuse[0]:
                raise KeyboardInterrupt
            return own(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    crashing(registry, "mark_cleared")
    crashing(Path, "rename")
    crashing(shutil, "rmtree")
    whole = {folder: len(list(folder.iterdir())) for folder in version_folders(places.versions)}
    wanted = goes(places)
    for at in range(1, 40):
        calls[0], fuse[0] = 0, at
        try:
            sweep(places, to_ms(NOW - RULE.older_than))
            clear(places, goes(places), registry, NOW)
        except KeyboardInterrupt:
            there = version_folders(places.versions)
            assert all(len(list(folder.iterdir())) == whole[folder] for folder in there)
            snapshots = {path.name for path in places.snapshots.iterdir()}
            assert all(json.loads((one / "manifest.json").read_text())["snapshot"] in snapshots for one in there)
            continue
        break
    assert at > 3
    assert len(wanted.versions) == 2
    assert left(places)["versions"] == ["frozen", "r3", "snapshots"]
    assert len(left(places)["snapshots"]) == 2
    assert left(places)["runs"] == ["r3"]


def test_what_never_became_whole_goes_only_when_it_is_old(places: Places) -> None:
    (places.snapshots / ".0a1b.partial").mkdir()
    sweep(places, before=0)
    assert ".0a1b.partial" in left(places)["snapshots"]
    sweep(places, before=2**60)
    assert ".0a1b.partial" not in left(places)["snapshots"]


def test_a_disk_that_refuses_is_told_and_nothing_more_goes(
    places: Places, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(Unavailable, match="read-only"):
        clear(places, goes(places), registry, NOW)
    assert left(places)["versions"] == [".r0.failed", "frozen", "r1", "r2", "r3", "snapshots"]


def test_it_is_done_each_hour_and_not_while_a_run_is_in_flight(places: Places, registry: MemoryRegistry) -> None:
    clock = ManualClock(NOW)
    clearing = Clearing(lambda: places, registry, RULE, clock)
    clearing(STATUS)
    assert len(version_folders(places.versions)) == 3, "control has just started"
    clock.advance(61)
    clearing(STATUS)
    assert [path.name for path in version_folders(places.versions)] == ["r3"]
    trained(places.versions / "r2", "")
    clock.advance(3500)
    clearing(STATUS)
    assert len(version_folders(places.versions)) == 2
    clock.advance(101)
    clearing(STATUS)
    assert len(version_folders(places.versions)) == 1


def test_an_unread_manifest_keeps_every_snapshot(places: Places) -> None:
    (places.versions / "r1" / "manifest.json").write_text("{")
    found = goes(places)
    assert (found.versions, found.snapshots) == (("r2",), ())


def test_versions_in_a_store_elsewhere_are_told_of_and_stop_nothing_else(registry: MemoryRegistry) -> None:
    bench, settings = LoopBench(), Settings(artifacts="s3://models")
    bench.clearing = Clearing(lambda: places_of(bench.resource, settings), registry, RULE, bench.clock)
    bench.bootstrap()
    bench.clock.advance(61)
    bench.tick(2, every_s=3)
    assert bench.status.phase == "Serving"
    (trouble,) = bench.status.seen.troubles
    assert trouble.startswith("retention: s3://models")
