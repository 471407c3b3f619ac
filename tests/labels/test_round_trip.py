"""What was exported is imported as it was, in every format, and no spreadsheet finds a formula in it."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.check import LabelCheck
from tidemill.labels.columns import Columns
from tidemill.labels.csv_file import CsvRows, CsvWriter
from tidemill.labels.exporting import export_labels, rows_reader
from tidemill.labels.lines import Format, open_labels
from tidemill.labels.said import statement
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource

FIELDS = [
    {"name": "defect", "type": "class"},
    {"name": "box", "type": "box"},
    {"name": "sure", "type": "bool"},
    {"name": "depth", "type": "float"},
    {"name": "count", "type": "int"},
    {"name": "entity", "type": "string"},  # the name of a column that says something else
]
RESOURCE = example_resource(labels={"fields": FIELDS})
CHECK = LabelCheck(RESOURCE, clock=ManualClock())
PICTURE = (640, 480)

CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.one_of(
    st.text(CHARS, max_size=20),
    st.sampled_from(
        ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "'", '"', ";=1", "a\r\nb", "null", "{}"]
    ),
)
ID = TEXT.filter(bool)
SIDE = st.integers(0, 1 << 20).map(lambda n: n / 64)
BOX = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], SIDE, SIDE, SIDE.filter(bool), SIDE.filter(bool))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
VALUE = st.fixed_dictionaries(
    {
        "defect": st.sampled_from(["ok", "scratch"]),
        "sure": st.booleans(),
        "depth": st.floats(allow_nan=False, allow_infinity=False),
        "count": st.integers(-(2**53), 2**53),
        "entity": TEXT,
    },
    optional={"box": st.none() | BOX, "note": PLAIN, "=cmd": PLAIN},
)
ABOUT = st.one_of(
    st.fixed_dictionaries({"prediction_id": ID}),
    st.fixed_dictionaries({"entity": ID, "event_id": ID}),
    st.fixed_dictionaries({"entity": ID, "event_id": ID, "prediction_id": ID}),
)
LABELS = st.lists(
    st.builds(
        lambda value, about, labeller, time: Label(value=value, labeller=labeller, time=time, **about),
        VALUE,
        ABOUT,
        TEXT,
        st.none() | st.integers(0, 1_700_000_000_000),
    ),
    max_size=5,
)


def read(path: Path, kind: Format) -> list[Label]:
    with open_labels(path) as file:
        rows = list(rows_reader(kind, RESOURCE, Columns(RESOURCE))(file))
    return [CHECK(row.said).label for row in rows if row.said is not None or pytest.fail(f"{row.place}: {row.why}")]


@pytest.mark.parametrize("kind", Format)
@given(labels=LABELS)
def test_a_round_trip_gives_the_same_labels(kind: Format, labels: list[Label], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"labels.{kind}"
    assert export_labels(labels, path, kind, RESOURCE, PICTURE) == len(labels)
    found = read(path, kind)
    assert found == labels
    assert [statement(label) for label in found] == [statement(label) for label in labels]


@given(LABELS)
def test_no_cell_of_text_begins_as_a_formula_does(labels: list[Label]) -> None:
    out = io.StringIO(newline="")
    writer = CsvWriter(out, RESOURCE)
    for label in labels:
        writer.write(label)
    header, *rows = csv.reader(io.StringIO(out.getvalue(), newline=""))
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            if name not in {"depth", "count"}:  # numbers stay numbers
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), name


def test_a_number_below_zero_stays_one(tmp_path: Path) -> None:
    value = {"defect": "ok", "sure": True, "depth": -0.5, "count": -3, "entity": "-3"}
    export_labels([Label(value=value, entity="-7", event_id="=1")], tmp_path / "a.csv", Format.CSV, RESOURCE)
    header, row = csv.reader((tmp_path / "a.csv").read_text().splitlines())
    cells = dict(zip(header, row, strict=True))
    assert (cells["depth"], cells["count"]) == ("-0.5", "-3")
    assert (cells["entity"], cells["event_id"], cells["value.entity"]) == ("'-7", "'=1", "'-3")


def test_a_name_that_ends_in_gz_is_packed_and_read_back(tmp_path: Path) -> None:
    value = {"defect": "ok", "sure": True, "depth": 1.5, "count": 1, "entity": ""}
    labels = [Label(value=value, prediction_id=str(n)) for n in range(3)]
    path = tmp_path / "labels.jsonl.gz"
    export_labels(labels, path, Format.JSONL, RESOURCE)
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 3
    assert read(path, Format.JSONL) == labels


def test_a_box_needs_the_pictures_size_for_label_studio_and_leaves_no_file_without(tmp_path: Path) -> None:
    label = Label(value={"box": [0, 0, 1, 1]}, prediction_id="p")
    with pytest.raises(InvalidInput, match="size") as refused:
        export_labels([label], tmp_path / "a.json", Format.LABEL_STUDIO, RESOURCE)
    assert "--picture" in (refused.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_a_spreadsheet_protected_is_read_as_it_is_shown() -> None:
    content = b"prediction_id,value.entity,defect\np,'=1+1,ok\nq,'tis,ok\n"
    rows = CsvRows(Columns(RESOURCE))(io.BytesIO(content))
    assert [row.said["value"]["entity"] for row in rows if row.said] == ["=1+1", "'tis"]
