"""A run's dataset as it is kept."""

import json
from pathlib import Path

import polars as pl
import pytest

from tidemill.core.errors import Corrupt, NotFound
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import snapshot_record, snapshot_rows
from tidemill.training.snapshot import (
    Snapshot,
    open_snapshot,
    rows_and_labels,
    write_snapshot,
)

REFERENCE = pl.DataFrame({"entity": ["a", "b"], "brightness": [0.25, 0.5]})


def read_all(folder: Path, digest: str) -> None:
    found = open_snapshot(folder, digest)
    found.frame()
    found.reference()


@pytest.fixture
def snapshot(tmp_path: Path, resource: ContinualModel) -> Snapshot:
    frame = snapshot_rows(resource)
    return write_snapshot(tmp_path / "snapshots", frame, REFERENCE, snapshot_record(frame))


def test_what_was_written_is_opened_by_its_digest(snapshot: Snapshot, resource: ContinualModel) -> None:
    found = open_snapshot(snapshot.folder.parent, snapshot.digest)
    assert found == snapshot
    assert found.frame().equals(snapshot_rows(resource))


def test_the_same_content_is_one_snapshot_and_other_content_another(
    snapshot: Snapshot, resource: ContinualModel
) -> None:
    frame = snapshot_rows(resource)
    folder = snapshot.folder.parent
    assert write_snapshot(folder, frame, REFERENCE, snapshot_record(frame)).digest == snapshot.digest
    other = write_snapshot(folder, frame.head(100), REFERENCE, snapshot_record(frame.head(100)))
    assert sorted(path.name for path in folder.iterdir()) == sorted([snapshot.digest, other.digest])


def test_the_record_says_what_the_rows_came_from(snapshot: Snapshot) -> None:
    found = json.loads((snapshot.folder / "snapshot.json").read_text())
    assert found["events"]["delta_version"] == 3
    assert found["labels"]["offsets"] == {"c/labels/0": 199}
    assert "available_at + maturity <= as_of" in found["query"]


@pytest.mark.parametrize("name", ["rows.parquet", "reference.parquet", "snapshot.json"])
def test_a_changed_byte_is_refused(snapshot: Snapshot, name: str) -> None:
    path = snapshot.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=name.replace(".", r"\.")):
        read_all(snapshot.folder.parent, snapshot.digest)


def test_an_unknown_digest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_snapshot(tmp_path, "0" * 64)


def test_the_reference_comes_back_as_it_was(snapshot: Snapshot) -> None:
    assert snapshot.reference().equals(REFERENCE)


def test_rows_have_the_declared_fields_and_features_and_nothing_of_the_label(resource: ContinualModel) -> None:
    rows, labels = rows_and_labels(snapshot_rows(resource).head(2), resource)
    assert [set(row) for row in rows] == [{"image", "brightness", "contrast"}] * 2
    assert isinstance(rows[0]["image"], bytes)
    assert labels == [{"defect": "ok"}, {"defect": "scratch"}]
