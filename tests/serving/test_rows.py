"""Requests become typed rows, or an error that names row and field."""

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.ingest.parse import EventParser
from tidemill.serving.rows import MAX_ROWS, RowReader
from tidemill.spec.model import ContinualModel
from tidemill.testing.serving import instance, picture, served_resource

READER = RowReader(served_resource())


def refused(*instances: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        READER.read(list(instances))
    return caught.value.message


def test_a_row_is_the_event_as_it_would_be_on_the_topic() -> None:
    (row,) = READER.read([instance(shift=2, note="x", flash=True)])
    assert (row.entity, row.event_id) == ("A", "17")
    assert row.values == {"image": picture(), "exposure_ms": 4.0, "shift": 2, "note": "x", "flash": True}


def test_optional_fields_and_the_event_id_may_be_absent() -> None:
    (row,) = READER.read([instance(event_id=None)])
    assert row.event_id is None
    assert row.values["shift"] is row.values["note"] is row.values["flash"] is None


def test_fields_that_the_resource_does_not_declare_are_ignored() -> None:
    (row,) = READER.read([instance(captured_at="2030-01-01T00:00:00Z", operator="ada")])
    assert "operator" not in row.values


def test_whole_numbers_are_taken_for_numbers_and_ids() -> None:
    (row,) = READER.read([instance(exposure_ms=4, event_id=17)])
    assert row.values["exposure_ms"] == 4.0
    assert row.event_id == "17"


def test_an_entity_of_type_int_is_written_as_text() -> None:
    resource = served_resource()
    content = resource.model_dump(mode="json", by_alias=True)
    content["spec"]["events"]["entity"]["type"] = "int"
    reader = RowReader(ContinualModel.model_validate(content))
    assert reader.read([instance(station=7)])[0].entity == "7"
    with pytest.raises(InvalidInput, match="row 0, field station"):
        reader.read([instance(station="A")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exposure_ms": "4"}, "row 1, field exposure_ms: Expected `float`, got `str`"),
        ({"exposure_ms": True}, "row 1, field exposure_ms: Expected `float`, got `bool`"),
        ({"exposure_ms": 1001.0}, "row 1, field exposure_ms: 1001 is above 1000"),
        ({"exposure_ms": float("nan")}, "row 1, field exposure_ms: is not between -1e+150 and 1e+150"),
        ({"shift": 4}, "row 1, field shift: 4 is above 3"),
        ({"shift": 1.5}, "row 1, field shift: Expected `int | null`, got `float`"),
        ({"image": "%%%"}, "row 1, field image: Invalid base64 encoded string"),
        ({"image": 5}, "row 1, field image: Expected `bytes`, got `int`"),
        ({"image": None}, "row 1, field image: is required (a row has station, event_id, image"),
        ({"station": None}, "row 1, field station: is required"),
        ({"station": ""}, "row 1, field station: Expected `str` of length >= 1"),
        ({"station": "A" * 513}, "row 1, field station: Expected `str` of length <= 512"),
        ({"event_id": {}}, "row 1, field event_id: Expected `int | str | null`, got `object`"),
        ({"image": base64.b64encode(b"x" * (5 << 20)).decode()}, "row 1, field image: 5242880 bytes; at most 4194304"),
    ],
)
def test_what_does_not_fit_is_refused_with_row_and_field(changes: dict[str, Any], said: str) -> None:
    assert said in refused(instance(), instance(**changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused_without_bounds_too(value: float) -> None:
    fields = [{"name": "exposure_ms", "type": "float"}]
    events = {"entity": {"name": "station"}, "timestamp": "captured_at", "fields": fields}
    reader = RowReader(served_resource(events=events, features={}))
    with pytest.raises(InvalidInput, match="row 0, field exposure_ms: is not between"):
        reader.read([{"station": "A", "exposure_ms": value}])


@pytest.mark.parametrize("instances", [None, [], {}, "x", 5])
def test_a_request_must_hold_a_list_of_rows(instances: Any) -> None:
    with pytest.raises(InvalidInput, match="at least one row"):
        READER.read(instances)


def test_a_row_must_be_an_object() -> None:
    assert refused(instance(), 5) == "row 1: Expected `object`, got `int`"


def test_too_many_rows_are_refused() -> None:
    assert f"at most {MAX_ROWS} are taken" in refused(*([instance()] * (MAX_ROWS + 1)))


def test_columns_are_rows() -> None:
    rows = [instance(), instance(station="B", event_id="18")]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert READER.from_columns(columns) == READER.read(rows)


def test_an_image_in_a_column_may_be_its_own_bytes() -> None:
    columns: dict[str, list[Any]] = {"station": ["A"], "exposure_ms": [4.0], "image": [picture()]}
    assert READER.from_columns(columns)[0].values["image"] == picture()


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="differ in length"):
        READER.from_columns({"station": ["A", "B"], "exposure_ms": [4.0]})
    with pytest.raises(InvalidInput, match="no inputs"):
        READER.from_columns({})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(READER.names, json_values)) | json_values, max_size=3))
def test_whatever_comes_is_a_row_or_a_refusal(instances: list[Any]) -> None:
    with suppress(InvalidInput):
        assert len(READER.read(instances)) == len(instances)


ENUMS: list[dict[str, Any]] = [
    {"name": "shade", "type": "string", "enum": ["light", "dark"]},
    {"name": "line", "type": "int", "enum": [1, 2], "required": False},
]
PLAIN: list[dict[str, Any]] = [
    *ENUMS,
    {"name": "heat", "type": "float"},
    {"name": "share", "type": "float", "min": 0, "max": 1, "required": False},
    {"name": "count", "type": "int"},
    {"name": "tight", "type": "int", "min": 1.5, "max": 1e300, "required": False},
    {"name": "word", "type": "string"},
    {"name": "flag", "type": "bool", "required": False},
]


def plain_resource(fields: list[dict[str, Any]]) -> ContinualModel:
    events = {"entity": {"name": "station", "type": "int"}, "timestamp": "captured_at", "fields": fields}
    return served_resource(events=events, features={}, triggers={})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shade": "grey"}, "row 0, field shade: is none of light, dark"),
        ({"line": 3}, "row 0, field line: is none of 1, 2"),
    ],
)
def test_a_value_that_events_may_not_have_is_refused_in_requests(changes: dict[str, Any], said: str) -> None:
    reader = RowReader(plain_resource(ENUMS))
    assert reader.read([{"station": 7, "shade": "dark", "line": 2}])[0].values == {"shade": "dark", "line": 2}
    with pytest.raises(InvalidInput) as caught:
        reader.read([{"station": 7, "shade": "dark"} | changes])
    assert caught.value.message == said


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["light", "dark"]) | st.text(max_size=3),
    "int": st.integers(0, 4) | st.integers() | st.sampled_from([2.0, 1 << 63, -(1 << 63), 1 << 64]),
    "float": st.floats(0, 1) | st.floats() | st.integers(),
    "bool": st.booleans(),
}


def fields_of(*, required: bool) -> dict[str, st.SearchStrategy[Any]]:
    return {field["name"]: VALUES[field["type"]] for field in PLAIN if field.get("required", True) is required}


@given(
    st.fixed_dictionaries({"station": VALUES["int"]} | fields_of(required=True), optional=fields_of(required=False)),
)
def test_the_plain_fields_of_a_row_that_is_answered_are_those_of_an_event_that_is_taken_in(row: dict[str, Any]) -> None:
    resource = plain_resource(PLAIN)
    with suppress(InvalidInput):
        (answered,) = RowReader(resource).read([row])
        event = EventParser(resource).parse(json.dumps(row | {"captured_at": 1}).encode(), 1)
        assert (event.entity, event.values) == (answered.entity, answered.values)


def fetching_reader(folder: Path) -> RowReader:
    fields = [{"name": "image", "type": "image", "uris": [f"file://{folder}/"]}]
    fields.append({"name": "exposure_ms", "type": "float"})
    events = {"entity": {"name": "station"}, "id": "event_id", "timestamp": "captured_at", "fields": fields}
    return RowReader(served_resource(events=events))


def test_a_picture_may_be_given_by_an_allowed_uri_or_by_value(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    reader = fetching_reader(tmp_path)
    assert (READER.fetches, reader.fetches) == (False, True)
    rows = reader.read([instance(image=f"file://{tmp_path}/a.png"), instance()])
    assert [row.values["image"] for row in rows] == [picture()] * 2


@pytest.mark.parametrize("name", ["../a.png", "missing.png"])
def test_a_picture_that_may_not_be_fetched_is_refused_with_row_and_field(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="row 1, field image: "):
        fetching_reader(tmp_path).read([instance(), instance(image=f"file://{tmp_path}/{name}")])


def test_a_uri_is_no_picture_where_the_resource_allows_none() -> None:
    assert "row 0, field image" in refused(instance(image="s3://pictures/a.png"))
