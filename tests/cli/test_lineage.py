"""`tidemill lineage` from the command line: a lake, snapshots and manifests in a folder."""

import json
from pathlib import Path

import polars as pl
import pytest
from tests.cli.test_dataset import MODEL, older, trained, version  # noqa: F401  (fixtures)
from tests.cli.test_slices import call

from tidemill.core.clock import SystemClock
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.outcomes.tables import OUTCOMES, PREDICTIONS
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.training import EVENTS, LABELS, START, events_frame, labels_frame
from tidemill.training.snapshot import Snapshot
from tidemill.wiring import Local

ID = f"default.{MODEL}"


def fill(lake: Path, name: str, schema: dict[str, pl.DataType], rows: pl.DataFrame) -> None:
    table = LakeTable(table_uri(str(lake), ID, name), schema, pipeline="tests")
    table.append(rows, {Source.parse(rows["source"][0]): int(rows["offset"].max())})  # type: ignore[arg-type]


@pytest.fixture
def installed(version: Path, older: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:  # noqa: F811
    """r1 is trained on a snapshot and registered; an event of it was answered by r1, and judged."""
    trained(version, older.digest)
    registry = MemoryRegistry(SystemClock())
    registry.register(ID, "r1", str(version), tags={"tidemill.cause": "drift", "tidemill.reason": "it fell"})
    registry.set_alias(ID, "champion", "r1")
    monkeypatch.setattr(Local, "registry", registry)
    lake, events = tmp_path / ".tidemill" / "lake", events_frame(12)
    fill(lake, "events", EVENTS, events)
    fill(lake, "labels", LABELS, labels_frame(events))
    entity = events.filter(pl.col("event_id") == "e5")["entity"][0]
    made = {"source": "c/predictions/0", "offset": 0, "prediction_id": "p5", "version": "r1", "entity": entity}
    made |= {"event_id": "e5", "predicted_at": START, "available_at": START, "output": '{"class": "ok"}'}
    fill(lake, "predictions", PREDICTIONS, pl.DataFrame([made], schema=PREDICTIONS))
    judged = {"source": "c/outcomes/0", "offset": 0, "prediction_id": "p5", "version": "r1", "revision": 0, "loss": 1.0}
    fill(lake, "outcomes", OUTCOMES, pl.DataFrame([judged], schema=OUTCOMES))
    return older


def traced(capsys: pytest.CaptureFixture[str], identity: str) -> tuple[str, list[str], list[str]]:
    status, out, err = call(capsys, "lineage", MODEL, identity, "--output", "json")
    assert status == 0, err
    found = json.loads(out)

    def ids(facts: list[dict[str, str]]) -> list[str]:
        return [f"{one['kind']} {one['id']}" for one in facts]

    return f"{found['subject']['kind']} {found['subject']['id']}", ids(found["back"]), ids(found["forth"])


def test_a_version_leads_to_its_snapshot_and_its_answers(
    capsys: pytest.CaptureFixture[str], installed: Snapshot
) -> None:
    assert traced(capsys, "r1") == (
        "version r1",
        ["run r1", f"snapshot {installed.digest}"],
        ["prediction of r1", "outcome of r1"],
    )


def test_a_snapshot_is_found_by_the_beginning_of_its_digest(
    capsys: pytest.CaptureFixture[str], installed: Snapshot
) -> None:
    assert traced(capsys, installed.digest[:8]) == (f"snapshot {installed.digest}", [], ["version r1"])


@pytest.mark.parametrize("identity", ["e5", "c/events/0@5"])
def test_an_event_leads_to_labels_snapshots_versions_and_predictions(
    capsys: pytest.CaptureFixture[str], installed: Snapshot, identity: str
) -> None:
    subject, back, forth = traced(capsys, identity)
    assert (subject, back) == ("event c/events/0@5", ["label c/labels/0@5"])
    assert forth == [f"snapshot {installed.digest}", "version r1", "prediction p5"]


def test_a_prediction_leads_back_to_its_data_and_on_to_its_outcome(
    capsys: pytest.CaptureFixture[str], installed: Snapshot
) -> None:
    subject, back, forth = traced(capsys, "p5")
    assert subject == "prediction p5"
    assert back == ["event c/events/0@5", "version r1", "run r1", f"snapshot {installed.digest}"]
    assert forth == ["outcome p5/0"]


@pytest.mark.usefixtures("installed")
def test_what_is_nothing_is_told_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "lineage", MODEL, "r2")
    assert status == 3
    assert "has no version, snapshot, prediction, event 'r2'" in err
    assert "did you mean r1?" in err
    status, out, _ = call(capsys, "lineage", MODEL, "r1")
    assert status == 0
    assert "made from" in out
