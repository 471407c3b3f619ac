"""A run's dataset as it is kept."""

import json
from pathlib import Path

import polars as pl
import pytest

from tidemill.core.errors import Corrupt, InvalidInput, NotFound
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import snapshot_record, snapshot_rows, tiny_resource
from tidemill.training.checks import check, complaints
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


def test_a_good_snapshot_has_no_complaints(snapshot: Snapshot, resource: ContinualModel) -> None:
    check(snapshot.frame(), snapshot.record, resource)


def test_too_few_rows_are_told_with_how_rows_come_to_count(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource, count=70, fresh=60)
    with pytest.raises(InvalidInput, match=r"10 rows to train on, at least 50 .* newest 60 are held out"):
        check(frame, snapshot_record(frame), resource)


def test_no_rows_at_all_are_told_too(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource).clear()
    assert any("0 rows to train on" in complaint for complaint in complaints(frame, snapshot_record(frame), resource))


def test_a_class_that_is_missing_is_named(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource).with_columns(label=pl.lit('{"defect": "ok"}'))
    with pytest.raises(InvalidInput, match=r"training rows of class scratch \(0\)"):
        check(frame, snapshot_record(frame), resource)


def test_a_bool_label_has_two_classes(resource: ContinualModel) -> None:
    resource = tiny_resource(labels={"fields": [{"name": "defect", "type": "bool"}]})
    frame = snapshot_rows(tiny_resource())
    both = frame.with_columns(
        label=pl.when(pl.col("offset") % 2 == 0).then(pl.lit('{"defect": true}')).otherwise(pl.lit('{"defect": false}'))
    )
    assert complaints(both, snapshot_record(both), resource) == []
    one = frame.with_columns(label=pl.lit('{"defect": false}'))
    assert complaints(one, snapshot_record(one), resource) == ["fewer than 5 training rows of class found (0)"]


def test_many_labels_of_no_known_class_are_told(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource)
    found = complaints(frame, snapshot_record(frame, invalid_labels=40), resource)
    assert found == ["40 labels state none of the classes ok, scratch"]


def test_pictures_that_cannot_be_read_are_named(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource).with_columns(
        image=pl.when(pl.col("offset") < 6).then(pl.lit(b"no picture")).otherwise("image")
    )
    (found,) = complaints(frame, snapshot_record(frame), resource)
    assert found.startswith("6 of 200 pictures cannot be read: e0 (")
    assert found.endswith("and 3 more")


def test_a_row_that_is_both_trained_on_and_held_out_is_a_leak(resource: ContinualModel) -> None:
    frame = snapshot_rows(resource)
    twice = pl.concat([frame, frame.tail(3).with_columns(part=pl.lit("new"))])
    assert complaints(twice, snapshot_record(twice), resource) == ["3 events are both trained on and held out"]


def test_an_input_that_is_the_label_is_a_leak() -> None:
    fields = [{"name": "image", "type": "image"}, {"name": "defect", "type": "string"}]
    events = {"entity": {"name": "station"}, "timestamp": "t", "id": "event_id", "fields": fields}
    frame = snapshot_rows(tiny_resource()).with_columns(defect=pl.lit("ok"))
    found = complaints(frame, snapshot_record(frame), tiny_resource(events=events))
    assert found == ["defect is both an input and a label: the model would be told the answer"]
