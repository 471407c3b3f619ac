"""`tidemill dataset` from the command line, on snapshots in a folder."""

import json
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from tests.cli.test_slices import call, stored

from tidemill.artifacts import PredictionShape, TensorSpec
from tidemill.artifacts.manifest import Manifest, encode_manifest
from tidemill.control.state import LoopStatus, Version, encode_status
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import to_ms
from tidemill.events.records import Decision, Request
from tidemill.testing.training import START, TAKEN_AT, snapshot_of, snapshot_rows, tiny_resource
from tidemill.training.frozen import open_frozen
from tidemill.training.snapshot import Snapshot, snapshots_folder
from tidemill.wiring import Local

MODEL = "phone-inspection"


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of version r1, which is not there, of the only model of an installation."""
    stored(tmp_path, monkeypatch, tiny_resource())
    return tmp_path / ".tidemill" / "artifacts" / "default" / MODEL / "r1"


@pytest.fixture
def older(version: Path) -> Snapshot:
    return snapshot_of(snapshots_folder(version), snapshot_rows(tiny_resource(), 120, fresh=20), as_of=to_ms(START))


@pytest.fixture
def newer(version: Path) -> Snapshot:
    moved = snapshot_rows(tiny_resource(), 200, fresh=60).with_columns(pl.col("brightness") + 1)
    first = pl.when(pl.col("event_id") == "e4").then(pl.lit('{"defect": "scratch"}')).otherwise("label")
    return snapshot_of(snapshots_folder(version), moved.with_columns(label=first), disputed=3)


def trained(version: Path, snapshot: str) -> None:
    """A version that was trained on the snapshot, by its manifest alone."""
    tensor = TensorSpec(name="x", dtype="float32", shape=(None, 1))
    manifest = Manifest(
        version=version.name,
        model=f"default.{MODEL}",
        codec="tiny_model:Codec",
        prediction=PredictionShape(type="classification", classes=("ok", "scratch")),
        created_at="2026-01-02T00:00:00+00:00",
        run=version.name,
        snapshot=snapshot,
        inputs=(tensor,),
        outputs=(tensor,),
    )
    version.mkdir(parents=True)
    (version / "manifest.json").write_bytes(encode_manifest(manifest))


@pytest.mark.usefixtures("version")
def test_a_model_without_runs_has_no_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "dataset", "list", MODEL)
    assert (status, out.strip()) == (0, "no dataset yet: a run takes the first snapshot")
    status, _, err = call(capsys, "dataset", "freeze", MODEL, "golden")
    assert status == 3
    assert "has no champion whose snapshot could be taken" in err
    assert "--snapshot" in err


def test_datasets_are_listed_newest_first_with_names_and_versions(
    version: Path, older: Snapshot, newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(version, older.digest)
    call(capsys, "dataset", "freeze", MODEL, "golden", "--snapshot", newer.digest[:12])
    status, out, _ = call(capsys, "dataset", "list", MODEL)
    assert status == 0
    _, frozen, second, last = out.splitlines()
    assert "golden" in frozen
    assert second.split() == [newer.digest[:12], "2026-01-02", "00:00:00", "140", "0", "60"]
    assert last.split() == [older.digest[:12], "2026-01-01", "00:00:00", "100", "0", "20", "r1"]
    _, out, _ = call(capsys, "dataset", "list", MODEL, "-o", "json")
    found = json.loads(out)
    assert [one["at"] for one in found[1:]] == [TAKEN_AT, to_ms(START)]
    assert (found[0]["names"], found[2]["trained"]) == (["golden"], ["r1"])


def test_a_damaged_record_does_not_hide_the_others(
    older: Snapshot, newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    (newer.folder / "snapshot.json").write_bytes(b"{")
    status, out, _ = call(capsys, "dataset", "list", MODEL)
    assert status == 0
    assert older.digest[:12] in out
    assert f"{newer.digest[:12]} cannot be read" in out


def test_a_frozen_name_that_was_damaged_does_not_hide_the_others(
    version: Path, older: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("golden", "silver"):
        call(capsys, "dataset", "freeze", MODEL, name, "--snapshot", older.digest)
    (version.parent / "frozen" / "golden.json").write_text("{")
    status, out, _ = call(capsys, "dataset", "list", MODEL)
    assert status == 0
    assert "silver" in out
    assert "golden cannot be read: " in out
    assert call(capsys, "dataset", "show", MODEL, "silver")[0] == 0
    assert call(capsys, "dataset", "diff", MODEL, older.digest[:9], "silver")[0] == 0
    status, _, err = call(capsys, "dataset", "show", MODEL, "golden")
    assert status == 1
    assert "golden.json is no record of a frozen dataset" in err


def test_a_dataset_is_shown_by_the_beginning_of_its_digest(newer: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "dataset", "show", MODEL, newer.digest[:6])
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert ["scratch", "101", "71", "0", "30"] in lines
    assert ["station-0", "67", "47", "0", "20"] in lines
    assert ["disputed", "3"] in lines
    assert "Delta version 3 of lake/events: c/events/0 to 199" in out
    assert "2026-01-01 00:00:00 to 2026-01-01 00:03:19" in out
    _, out, _ = call(capsys, "dataset", "show", MODEL, newer.digest, "-o", "json")
    found = json.loads(out)
    assert found["record"] == json.loads(msgspec.json.encode(newer.record))
    assert found["classes"][0] == {"name": "scratch", "rows": 101, "new": 71, "replay": 0, "fresh": 30}


def test_without_a_snapshot_the_fresh_rows_of_the_champion_are_frozen(
    version: Path, older: Snapshot, newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(version, older.digest)
    store = LocalResourceStore(version.parents[3] / "resources")
    champion = Version(version="r1", artifact=str(version), since=0)
    seen = store.get(f"default.{MODEL}")
    store.put_status(
        f"default.{MODEL}", encode_status(LoopStatus(created_at=0, champion=champion)), version=seen.version
    )
    status, out, _ = call(capsys, "dataset", "freeze", MODEL, "golden", "-o", "json")
    assert status == 0
    said = json.loads(out)
    assert (said["frozen"]["of"], said["frozen"]["rows"], said["trained_on"]) == (older.digest, 20, [])
    _, out, _ = call(capsys, "dataset", "show", MODEL, "gold")
    assert f"golden (by {said['frozen']['by']}, " in out
    whole = ("--snapshot", newer.digest, "--part", "all")
    _, out, _ = call(capsys, "dataset", "freeze", MODEL, "silver", *whole)
    versions = f"versions of {newer.digest[:12]} were trained on 140 of them"
    assert f"{versions} and the champion was trained on 100 of them: there those versions look too good" in out


def test_a_word_that_means_no_dataset_or_several_is_refused(
    newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("golden-a", "30"), ("golden-b", "40")):
        call(capsys, "dataset", "freeze", MODEL, name, "--snapshot", newer.digest, "--rows", rows)
    status, _, err = call(capsys, "dataset", "freeze", MODEL, "golden-a", "--snapshot", newer.digest, "--rows", "9")
    assert status == 4
    assert "golden-a is frozen already" in err
    assert "another name" in err
    status, _, err = call(capsys, "dataset", "show", MODEL, "gold")
    assert status == 2
    assert "gold may be any of golden-a, golden-b" in err
    status, _, err = call(capsys, "dataset", "show", MODEL, "goldena")
    assert status == 3
    assert "did you mean golden-a" in err


def test_two_datasets_differ_in_rows_labels_and_inputs(
    older: Snapshot, newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "dataset", "diff", MODEL, older.digest, newer.digest)
    assert status == 0
    assert "120 → 200 rows: 120 in both, 0 only before, 80 only after" in out
    assert 'station-1 e4: {"defect": "ok"} → {"defect": "scratch"}' in out
    assert ["brightness", "1.000", "0.5", "1.5", "0.0%", "0.0%"] in [line.split() for line in out.splitlines()]
    _, out, _ = call(capsys, "dataset", "diff", MODEL, older.digest, newer.digest, "-o", "json")
    found = json.loads(out)["differences"]
    assert (found["only_after"], found["shifts"][0]["name"], found["shifts"][0]["distance"]) == (80, "brightness", 1)


def test_rows_are_frozen_under_a_name_and_what_to_do_with_it_is_said(
    version: Path, newer: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--snapshot", newer.digest, "--part", "all", "--per-class", "20", "--until", "2026-01-01T00:02:00")
    status, out, _ = call(capsys, "dataset", "freeze", MODEL, "golden", *options)
    assert status == 0
    assert f"golden: 40 rows of {newer.digest[:12]} (all parts, until 2026-01-01T00:02:00+00:00" in out
    assert "were trained on 40 of them" in out
    assert "spec.gates.frozen: {dataset: golden}" in out
    kept = open_frozen(version.parent / "frozen", "golden").frame()
    assert kept["event_id"].to_list() == [f"e{number}" for number in range(80, 120)]
    status, _, err = call(capsys, "dataset", "freeze", MODEL, "silver", "--snapshot", newer.digest, "--part", "replay")
    assert status == 2
    assert "no row is chosen by part replay" in err
    assert "hint: the snapshot has 60 fresh, 140 new rows" in err


def test_a_dataset_to_learn_from_again_is_asked_for_by_its_whole_digest(
    capsys: pytest.CaptureFixture[str], older: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def answer(_: Local, resource: object, request: Request, deadline_s: float) -> Decision:
        asked.append(request)
        about: dict[str, Any] = {
            "model": request.model,
            "subject": "r1",
            "reason": "a drill",
            "answers": request.request_id,
        }
        return Decision(decision_id="d1", kind="start-run", time=0, **about)

    monkeypatch.setattr(Local, "ask", answer)
    assert call(capsys, "retrain", MODEL, "--reason", "a drill", "--snapshot", older.digest[:12])[0] == 0
    assert asked[0].arguments["snapshot"] == older.digest
    status, _, err = call(capsys, "retrain", MODEL, "--reason", "a drill", "--snapshot", "gone")
    assert (status, len(asked)) == (3, 1)
    assert "there is no dataset 'gone'" in err
