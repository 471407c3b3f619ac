from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tidemill.events.sources import Source
from tidemill.ingest.batch import MAX_KEPT_BYTES, Batch, make_batch
from tidemill.ingest.parse import EventParser
from tidemill.ingest.tables import EVENT_COLUMNS, events_schema
from tidemill.spec import model
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
        return make_batch(records, begin, EventParser(resource), events_schema(resource))

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
    (kept, pointer) = batch({A: [raw(0, b"x" * MAX_KEPT_BYTES), raw(1, b"x" * (MAX_KEPT_BYTES + 1))]}).quarantined
    assert (len(kept.value), kept.truncated) == (MAX_KEPT_BYTES, False)
    assert (pointer.value, pointer.truncated, pointer.offset) == (b"", True, 1)


def test_key_and_headers_of_a_bad_record_are_kept(batch: Callable[..., Batch]) -> None:
    (record,) = batch({A: [raw(0, None, key=b"\xff", headers=[("a", b"\x00"), ("b", None)])]}).quarantined
    assert (record.key, record.headers, record.value) == (b"\xff", [("a", b"\x00"), ("b", b"")], b"")


def test_a_replay_from_quarantine_keeps_its_origin(batch: Callable[..., Batch], event_json: EventJson) -> None:
    headers = [("origin", b"c/t/0@17")]
    found = batch({A: [raw(0, event_json(), headers=headers), raw(1, event_json())]})
    assert found.events["origin"].to_list() == ["c/t/0@17", None]


def test_no_event_field_can_take_the_name_of_a_fixed_column(make_resource: Callable[..., ContinualModel]) -> None:
    assert tuple(EVENT_COLUMNS) == model.EVENT_COLUMNS
    for name in EVENT_COLUMNS:
        with pytest.raises(ValidationError, match=f"field {name} has the name of a column"):
            make_resource("m", id=None, fields=[{"name": "image", "type": "image"}, {"name": name, "type": "string"}])
