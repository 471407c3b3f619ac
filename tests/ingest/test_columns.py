"""The quick way takes only what the row parser takes, with equal values; and it takes what is plainly good."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.ingest.columns import ColumnReader
from tidemill.ingest.parse import EventParser, Rejected
from tidemill.ingest.tables import events_schema
from tidemill.spec.model import ContinualModel

NOW = 1_790_000_000_000
FIELDS = [
    {"name": "image", "type": "image", "required": False},
    {"name": "x", "type": "float", "min": -5.5, "max": 1000},
    {"name": "y", "type": "float", "required": False},
    {"name": "n", "type": "int", "required": False, "min": -2.5, "max": 7.5},
    {"name": "big", "type": "int", "required": False},
    {"name": "class", "type": "string", "required": False, "enum": ["a", "b"]},
    {"name": "grade", "type": "int", "required": False, "enum": [1, 2, 30], "max": 20},
    {"name": "text", "type": "string", "required": False},
    {"name": "ok", "type": "bool", "required": False},
]


@pytest.fixture(scope="module")
def model(make_resource: Callable[..., ContinualModel]) -> ContinualModel:
    return make_resource("columns", features={}, fields=FIELDS)


def raw(value: bytes | None, timestamp: int = NOW, offset: int = 0) -> Any:
    return SimpleNamespace(offset=offset, value=value, timestamp=timestamp, key=None, headers=[])


def read(model: ContinualModel, *raws: Any) -> tuple[list[dict[str, Any]], list[int]]:
    frame, others = ColumnReader(model, events_schema(model)).read(raws)
    return list(frame.iter_rows(named=True)), [one.offset for one in others]


def text(**fields: str) -> bytes:
    """An event whose fields are given as JSON text."""
    event = {"station": '"A"', "event_id": '"e1"', "captured_at": str(NOW), "x": "8.5", **fields}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in event.items()) + "}").encode()


GOOD = [
    text(),
    text(captured_at='"2026-09-21T14:13:20Z"'),
    text(event_id="7", y="null", n="7", big=str(2**63 - 1), grade="2", text='"ä\\n"', ok="true"),
    text(**{"class": '"b"'}, y="-1e10", image="null"),
    text(unknown='{"a": [1, 2]}'),
]


@pytest.mark.parametrize("value", GOOD)
def test_what_is_plainly_good_goes_the_quick_way(model: ContinualModel, value: bytes) -> None:
    rows, others = read(model, raw(value))
    assert (len(rows), others) == (1, [])


def test_what_is_not_sure_is_left_in_its_order(model: ContinualModel, image: str) -> None:
    values = [text(), b"no", text(image=f'"{image}"'), text(captured_at=str(NOW + 60_001)), text(n="1.0"), text()]
    rows, others = read(model, *(raw(value, offset=offset) for offset, value in enumerate(values)))
    assert [row["offset"] for row in rows] == [0, 5]
    assert sorted(others) == [1, 2, 3, 4]


def test_where_each_event_has_a_picture_all_go_to_the_row_parser(make_resource: Callable[..., ContinualModel]) -> None:
    model = make_resource("pictures", features={"image": ["brightness"]}, fields=[{"name": "image", "type": "image"}])
    assert read(model, raw(text())) == ([], [0])


NUMBER = st.one_of(
    st.integers().map(str),
    st.integers(-3, 40).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        ["1.0", "-0", "1e3", "1E+2", "01", "1.", "-", "1e999", "9" * 400, "9" * 5000, "1e150", "NaN", "7.5"]
    ),
    st.sampled_from([str(2**63), str(-(2**63)), str(-(2**63) - 1), str(NOW), "9007199254740993", str(10**150)]),
)
STRING = st.one_of(
    st.text().map(lambda found: msgspec.json.encode(found).decode()),
    st.sampled_from(
        ['"a"', '"b"', '"\\ud800"', '"' + "x" * 513 + '"', '"' + "😀" * 512 + '"', '""', '"\x01"', '"\\u0000"']
    ),
    st.sampled_from(['"2026-09-21T14:13:20Z"', '"2026-09-21T14:13:20"', '"20260921T141320+0200"', '"2026-W39-1"']),
)
VALUE = st.one_of(NUMBER, STRING, st.sampled_from(["null", "true", "false", "[]", "{}", '{"a":1e999}', "[1,]", "tru"]))
NAMES = st.sampled_from(["station", "event_id", "captured_at", *(str(field["name"]) for field in FIELDS), "unknown"])
EVENT = st.lists(st.tuples(NAMES, VALUE), max_size=4).map(
    lambda pairs: (
        text()[:-1] + b"".join(f',"{name}":{value}'.encode("utf-8", "surrogatepass") for name, value in pairs) + b"}"
    )
)


@given(EVENT | st.binary(max_size=30), st.sampled_from([NOW, NOW, NOW, -1, 2**63 - 1, 0]))
@settings(max_examples=400)
@example(text(x="-5.6"), NOW)
@example(text(x="1000.5"), NOW)
@example(text(n="-3"), NOW)
@example(text(n="8"), NOW)
@example(text(grade="30"), NOW)
@example(text(grade="3"), NOW)
@example(text(station='""'), NOW)
@example(text(captured_at=str(NOW + 60_001)), NOW)
@example(text(unknown="1e999"), NOW)
@example(text()[:-1] + b',"unknown":"\xff"}', NOW)
@example(text(unknown='"\\ud800"'), NOW)
def test_the_quick_way_takes_only_what_the_row_parser_takes_with_equal_values(
    model: ContinualModel, value: bytes, timestamp: int
) -> None:
    rows, _ = read(model, raw(value, timestamp))
    try:
        event = EventParser(model).parse(value, timestamp)
    except Rejected:
        assert rows == []
        return
    for row in rows:
        assert (row["entity"], row["event_id"], to_ms(row["event_time"])) == (
            event.entity,
            event.event_id,
            event.event_time,
        )
        taken = {name: row[name] for name in event.values}
        assert taken == event.values
        assert {name: type(found) for name, found in taken.items()} == {
            name: type(found) for name, found in event.values.items()
        }
