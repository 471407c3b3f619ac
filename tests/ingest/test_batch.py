from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tidemill.events.records import encode
from tidemill.events.sources import Source
from tidemill.ingest.batch import MAX_KEPT_BYTES, Batch, BatchReader
from tidemill.ingest.tables import EVENT_COLUMNS
from tidemill.spec import inputs
from tidemill.spec.model import ContinualModel

A, B = Source("c", "t", 0), Source("c", "t", 1)
NOW = 1_790_000_000_123
EventJson = Callable[..., bytes]


def raw(offset: int, value: bytes | None, **fields: Any) -> Any:
    made = {"offset": offset, "value": value, "timestamp": NOW, "key": b"k", "headers": [], **fields}
    return SimpleNamespace(**made)


@pytest.fixture
def batch(resource: ContinualModel) -> Callable[..., Batch]:
    def make(records: dict[Source, list[Any]]) -> Batch:
        begin = dict.fromkeys(records, 0)
        return BatchReader(resource).read(records, begin)

    return make


def test_good_and_bad_records_are_sorted_into_their_tables(batch: Callable[..., Batch], event_json: EventJson) -> None:
    found = batch({A: [raw(0, event_json()), raw(3, b"bad")], B: [raw(7, event_json(exposure_ms=-1))]})
    assert found.events.select("source", "offset").rows() == [(str(A), 0)]
    assert found.quarantine.select("source", "offset", "field").rows() == [
        (str(A), 3, None),
        (str(B), 7, "exposure_ms"),
    ]
    assert (found.begin, found.upto) == ({A: 0, B: 0}, {A: 3, B: 7})


def test_times_are_kept_to_the_millisecond(batch: Callable[..., Batch], event_json: EventJson) -> None:
    row = batch({A: [raw(0, event_json(captured_at=NOW - 86_400_000))]}).events.row(0, named=True)
    assert round(row["event_time"].timestamp() * 1000) == NOW - 86_400_000
    assert round(row["available_at"].timestamp() * 1000) == NOW
    assert row["event_date"] == row["event_time"].date()


def test_a_value_above_one_mebibyte_is_quarantined_as_a_pointer(batch: Callable[..., Batch]) -> None:
    most = MAX_KEPT_BYTES - len(b"k")
    (kept, pointer) = batch({A: [raw(0, b"x" * most), raw(1, b"x" * (most + 1))]}).quarantined
    assert (len(kept.value), kept.truncated) == (most, False)
    assert (pointer.key, pointer.value, pointer.truncated, pointer.offset) == (b"k", b"", True, 1)


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (b"k" * (3 << 20), []),
        (b"k", [("h", b"x" * (3 << 20))]),
        (b"k", [("\0" * (3 << 20), b"")]),
        (None, [("", None)] * 500_000),
        (b"k" * MAX_KEPT_BYTES, [("h", b"x")] * 9),
    ],
)
def test_a_bad_record_fits_into_a_record_whatever_it_carries(
    batch: Callable[..., Batch], key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    (record,) = batch({A: [raw(0, b"x" * 99, key=key, headers=[("origin", b"c/t/0/1"), *headers])]}).quarantined
    assert len(encode(record)) < 2 * MAX_KEPT_BYTES
    assert record.truncated
    assert record.origin == "c/t/0/1"


def test_a_reason_is_cut(make_resource: Callable[..., ContinualModel], event_json: EventJson) -> None:
    allowed = [f"value-{number}" for number in range(100)]
    fields = [{"name": "exposure_ms", "type": "float"}, {"name": "x", "type": "string", "enum": allowed}]
    resource = make_resource("m", features={"windows": []}, fields=fields)
    (record,) = BatchReader(resource).read({A: [raw(0, event_json(x="other"))]}, {A: 0}).quarantined
    assert (len(record.reason), record.reason[:12], record.reason[-1]) == (300, "is none of v", "…")


def test_key_and_headers_of_a_bad_record_are_kept(batch: Callable[..., Batch]) -> None:
    (record,) = batch({A: [raw(0, None, key=b"\xff", headers=[("a", b"\x00"), ("b", None)])]}).quarantined
    assert (record.key, record.headers, record.value) == (b"\xff", [("a", b"\x00"), ("b", b"")], b"")


def test_a_replay_from_quarantine_keeps_its_origin(batch: Callable[..., Batch], event_json: EventJson) -> None:
    headers = [("origin", b"c/t/0/17")]
    found = batch({A: [raw(0, event_json(), headers=headers), raw(1, event_json())]})
    assert found.events["origin"].to_list() == ["c/t/0/17", None]


@pytest.mark.parametrize(
    "origin",
    [
        b"web",
        b"",
        b"/",
        b"c/t/0",
        b"c/t/0/",
        b"c/t/0/x",
        b"c/t/0/-1",
        b"c/t/0/017",
        b"c/t/0/1_7",
        b"c//0/17",
        b"\xff/t/0/17",
        b"c/t/0/%d" % (1 << 63),
        b"c/t/0/" + b"9" * 5000,
        "c/t/0/\u0661".encode(),
    ],
)
def test_a_header_of_a_producer_that_is_no_place_makes_no_replay(
    batch: Callable[..., Batch], event_json: EventJson, origin: bytes
) -> None:
    found = batch({A: [raw(n, value, headers=[("origin", origin)]) for n, value in enumerate([event_json(), b"bad"])]})
    assert found.events["origin"].to_list() == [None]
    assert found.quarantined[0].origin is None


def test_no_event_field_can_take_the_name_of_a_fixed_column(make_resource: Callable[..., ContinualModel]) -> None:
    assert tuple(EVENT_COLUMNS) == inputs.EVENT_COLUMNS
    for name in EVENT_COLUMNS:
        with pytest.raises(ValidationError, match=f"field {name} has the name of a column"):
            make_resource("m", id=None, fields=[{"name": "image", "type": "image"}, {"name": name, "type": "string"}])
