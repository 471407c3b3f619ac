from base64 import b64encode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.sources import Source
from tidemill.ingest import parse
from tidemill.ingest.batch import BatchReader
from tidemill.ingest.parse import EventParser, Rejected
from tidemill.spec.model import ContinualModel

NOW = 1_790_000_000_000
EventJson = Callable[..., bytes]


@pytest.fixture
def parser(resource: ContinualModel) -> EventParser:
    return EventParser(resource)


def test_a_good_event_has_its_values_and_the_statistics_of_its_picture(
    parser: EventParser, event_json: EventJson, image: str
) -> None:
    event = parser.parse(event_json(image=image, shift=2, operator="Mö", rework=False, unknown={"a": [1]}), NOW)
    assert (event.entity, event.event_id, event.event_time) == ("A", "e1", NOW)
    assert list(event.values) == ["exposure_ms", "shift", "operator", "rework", "brightness", "contrast"]
    assert [event.values[name] for name in ("exposure_ms", "shift", "operator", "rework")] == [8.5, 2, "Mö", False]
    assert 0.4 < float(event.values["brightness"] or 0) < 0.6
    assert str(event.images["image"])[2:6] == "\\x89"


def test_what_is_not_required_may_be_absent_or_null(parser: EventParser, event_json: EventJson) -> None:
    event = parser.parse(event_json()[:-1] + b',"shift":null,"image":null}', NOW)
    assert event.images == {"image": None}
    assert {name: value for name, value in event.values.items() if name != "exposure_ms"} == dict.fromkeys(
        ["shift", "operator", "rework", "brightness", "contrast"]
    )


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"station": None}, "station", "is required"),
        ({"station": 3}, "station", "a string is expected, not a number"),
        ({"station": ""}, "station", "0 characters"),
        ({"station": "x" * 513}, "station", "513 characters"),
        ({"event_id": None}, "event_id", "is required"),
        ({"event_id": [1]}, "event_id", "not a list"),
        ({"event_id": True}, "event_id", "not a truth value"),
        ({"captured_at": None}, "captured_at", "is required"),
        ({"captured_at": "yesterday"}, "captured_at", "ISO 8601"),
        ({"captured_at": "2026-10-01T10:00:00"}, "captured_at", "time zone"),
        ({"captured_at": "2026-10-01"}, "captured_at", "time zone"),
        ({"captured_at": 1.5}, "captured_at", "a whole number"),
        ({"captured_at": -1}, "captured_at", "1970"),
        ({"captured_at": 10**15}, "captured_at", "1970 to 9999"),
        ({"captured_at": 10**30}, "captured_at", "64 bits"),
        ({"captured_at": NOW + 60_001}, "captured_at", "60.001 s after its arrival"),
        ({"exposure_ms": None}, "exposure_ms", "is required"),
        ({"exposure_ms": "8"}, "exposure_ms", "a number is expected, not a string"),
        ({"exposure_ms": True}, "exposure_ms", "not a truth value"),
        ({"exposure_ms": -0.1}, "exposure_ms", "-0.1 is below 0"),
        ({"exposure_ms": 1000.5}, "exposure_ms", "1000.5 is above 1000"),
        ({"exposure_ms": 10**400}, "exposure_ms", "1e+150"),
        ({"shift": 1.5}, "shift", "a whole number"),
        ({"shift": 2**63}, "shift", "64 bits"),
        ({"operator": {"a": 1}}, "operator", "not an object"),
        ({"rework": 1}, "rework", "true or false"),
        ({"image": 7}, "image", "base64"),
        ({"image": "a"}, "image", "base64"),
        ({"image": "äöü="}, "image", "base64"),
        ({"image": b64encode(b"GIF89a").decode()}, "image", "no picture"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(
    parser: EventParser, event_json: EventJson, fields: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(Rejected) as rejected:
        parser.parse(event_json(**fields), NOW)
    assert rejected.value.field == field
    assert reason in rejected.value.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"),
        (b"", "no JSON"),
        (b"[1]", "not a list"),
        (b'"text"', "not a string"),
        (b"null", "not null"),
        (b'{"a":"\xff"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":1},{"b":2}', "no JSON"),
    ],
)
def test_what_is_no_object_is_rejected_as_a_whole(parser: EventParser, value: bytes | None, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        parser.parse(value, NOW)
    assert rejected.value.field is None
    assert reason in rejected.value.reason


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-10-01T10:00:00Z", 1_790_848_800_000),
        ("2026-10-01T12:00:00+02:00", 1_790_848_800_000),
        ("2026-10-01T10:00:00.123456Z", 1_790_848_800_123),
        ("2026-10-01 10:00:00.5+00:00", 1_790_848_800_500),
        (1_790_848_800_000, 1_790_848_800_000),
        (1_790_848_800_000.0, 1_790_848_800_000),
    ],
)
def test_times_are_iso_8601_with_a_zone_or_milliseconds(
    parser: EventParser, event_json: EventJson, text: str | float, milliseconds: int
) -> None:
    assert parser.parse(event_json(captured_at=text), milliseconds).event_time == milliseconds


def test_an_event_time_may_lie_ahead_by_max_future(parser: EventParser, event_json: EventJson) -> None:
    assert parser.parse(event_json(captured_at=NOW + 60_000), NOW).event_time == NOW + 60_000


def test_an_entity_of_whole_numbers_is_its_decimal_text(make_resource: Callable[..., ContinualModel]) -> None:
    parser = EventParser(make_resource("ints", entity={"name": "station", "type": "int"}, id=None))
    event = parser.parse(msgspec.json.encode({"station": 7, "captured_at": NOW, "exposure_ms": 1}), NOW)
    assert (event.entity, event.event_id) == ("7", None)


def test_a_picture_above_the_limit_is_rejected_before_it_is_decoded(
    parser: EventParser, event_json: EventJson, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.setattr(parse, "MAX_PICTURE_BYTES", 100)
    with pytest.raises(Rejected, match="at most 100"):
        parser.parse(event_json(image=image), NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
FIELDS = ["station", "event_id", "captured_at", "image", "exposure_ms", "shift", "operator", "rework"]
NEARLY = st.fixed_dictionaries(
    {"station": st.just("A") | JSON, "event_id": st.just("e") | JSON, "captured_at": st.just(NOW) | JSON},
    optional=dict.fromkeys(FIELDS[3:], JSON),
)


def raw(offset: int, value: bytes | None, timestamp: int) -> Any:
    headers = [("origin", b"\xff"), ("other", None)]
    return SimpleNamespace(offset=offset, value=value, timestamp=timestamp, key=None, headers=headers)


@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=50) | (JSON | NEARLY).map(msgspec.json.encode),
            st.just(NOW) | st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=5,
    )
)
def test_whatever_arrives_is_either_an_event_or_quarantined(
    make_resource: Callable[..., ContinualModel], found: list[tuple[bytes | None, int]]
) -> None:
    resource = make_resource("anything")
    source = Source("c", "t", 0)
    raws = [raw(offset, value, timestamp) for offset, (value, timestamp) in enumerate(found)]
    batch = BatchReader(resource).read({source: raws}, {source: 0})
    offsets = batch.events["offset"].to_list() + batch.quarantine["offset"].to_list()
    assert sorted(offsets) == list(range(len(found)))
    for record in batch.quarantined:
        assert record.value == (found[record.offset][0] or b"")
