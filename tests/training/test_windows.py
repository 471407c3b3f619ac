"""Window features of a dataset's rows: as served, else as they stood at the event's time."""

import json
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.pictures import PictureStore
from tidemill.features.tiles import window_values
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.dataset import content, labelled, split
from tidemill.training.snapshot import rows_and_labels
from tidemill.training.windows import FROM, with_windows

FEATURES: dict[str, Any] = {
    "image": ["brightness", "contrast"],
    "windows": [
        {"name": "seen", "agg": "count", "over": ["1m", "1h"]},
        {"name": "light", "of": "brightness", "agg": "mean", "over": ["1m"]},
        {"name": "newest", "of": "brightness", "agg": "last", "over": ["1m"]},
    ],
}
NAMES = ["seen_1m", "seen_1h", "light_1m", "newest_1m"]
SERVED = {"seen_1m": 41, "seen_1h": 42, "light_1m": 0.5, "newest_1m": None, "brightness": 0.1}
LATER = to_ms(START + timedelta(days=1))
NO_PICTURES = PictureStore("none")


@pytest.fixture(scope="module")
def resource() -> ContinualModel:
    return tiny_resource(features=FEATURES)


def predictions_frame(*predictions: dict[str, Any]) -> pl.DataFrame:
    """Predictions of event e4, a second after it, unless told otherwise."""
    usual = {
        "source": "c/predictions/0",
        "entity": "station-1",
        "event_id": "e4",
        "predicted_at": START + timedelta(seconds=5),
        "available_at": START + timedelta(seconds=6),
        "features": json.dumps(SERVED),
        "feature_status": "PRESENT",
    }
    rows = [usual | {"offset": number, "prediction_id": f"p{number}"} | one for number, one in enumerate(predictions)]
    return pl.DataFrame(rows, schema=PREDICTIONS, orient="row")


def windows_of(
    resource: ContinualModel, *predictions: dict[str, Any], as_of: int | None = None
) -> dict[str, dict[str, Any]]:
    """By event id what `with_windows` gives of eight events of three stations."""
    events = events_frame(8)
    logged = predictions_frame(*predictions).lazy() if predictions else None
    found = with_windows(events, events.lazy(), resource, predictions=logged, as_of=as_of)
    assert found["event_id"].to_list() == events["event_id"].to_list()
    return {row["event_id"]: row for row in found.select("event_id", *NAMES, FROM).iter_rows(named=True)}


def values(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in NAMES]


def test_a_window_over_labels_sees_those_that_had_arrived_at_the_events_time() -> None:
    said = {"name": "said", "agg": "count", "of": "label.defect", "over": ["1h"]}
    resource = tiny_resource(features=FEATURES | {"windows": [*FEATURES["windows"], said]})
    events = events_frame(8)
    labels = labels_frame(events, after_s=1.0).with_columns(event_time=events["event_time"])
    found = with_windows(events, events.lazy(), resource, labels=labels.lazy())
    arrived = [
        labels.filter((pl.col("entity") == row["entity"]) & (pl.col("available_at") <= row["event_time"])).height
        for row in events.iter_rows(named=True)
    ]
    assert found["said_1h"].to_list() == arrived
    assert max(arrived) > 0
    assert with_windows(events, events.lazy(), resource)["said_1h"].to_list() == [0] * 8


def test_an_event_that_was_predicted_has_the_values_that_were_served(resource: ContinualModel) -> None:
    found = windows_of(resource, {})
    assert found["e4"] == {"event_id": "e4", FROM: "p0"} | {name: SERVED[name] for name in NAMES}
    assert {found[name][FROM] for name in found if name != "e4"} == {None}


def test_an_event_that_was_never_predicted_has_the_windows_of_its_time(resource: ContinualModel) -> None:
    events = events_frame(8).with_columns(available_at=pl.col("available_at") + timedelta(seconds=2))
    found = with_windows(events, events.lazy(), resource)
    asked = events.select("entity", at="event_time")
    lateness = resource.spec.events.allowed_lateness
    expected = window_values(events, asked, resource.spec.features.windows, lateness)
    assert found.select(NAMES).equals(expected)
    # Events of a station come every three seconds and arrive after two: each row knows the ones before it, not itself.
    assert found["seen_1h"].to_list() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_of_several_predictions_the_first_counts(resource: ContinualModel) -> None:
    early, late = START + timedelta(seconds=4), START + timedelta(seconds=9)
    other = json.dumps(SERVED | {"seen_1m": 7})
    found = windows_of(resource, {"predicted_at": late, "features": other}, {}, {"predicted_at": early})
    assert found["e4"][FROM] == "p2"
    assert found["e4"]["seen_1m"] == 41


@pytest.mark.parametrize("status", ["UNAVAILABLE", "REBUILDING", "NOT_FOUND", None])
def test_a_second_prediction_never_stands_in_for_a_first_that_read_nothing(
    resource: ContinualModel, status: str | None
) -> None:
    first = {"feature_status": status, "features": json.dumps(dict.fromkeys(SERVED))}
    # The second was asked once the event had arrived: its windows hold the event itself.
    second = {"predicted_at": START + timedelta(hours=1)}
    assert windows_of(resource, first, second) == windows_of(resource)


def test_windows_that_were_served_stand_where_the_last_event_was_too_old(resource: ContinualModel) -> None:
    found = windows_of(resource, {"feature_status": "OUTSIDE_MAX_AGE"})
    assert values(found["e4"]) == [SERVED[name] for name in NAMES]


@pytest.mark.parametrize(
    "prediction",
    [
        {"feature_status": "UNAVAILABLE", "features": json.dumps(dict.fromkeys(SERVED))},
        {"feature_status": None, "features": "{}"},
        {"features": json.dumps({"seen_1m": 1})},  # a version from before the other windows
        {"entity": "station-2"},
        {"event_id": None},
    ],
)
def test_without_all_of_the_served_values_they_are_computed(
    resource: ContinualModel, prediction: dict[str, Any]
) -> None:
    assert windows_of(resource, prediction) == windows_of(resource)


def test_a_prediction_that_arrived_after_the_snapshot_is_not_seen(resource: ContinualModel) -> None:
    arrived = to_ms(START + timedelta(seconds=6))
    assert windows_of(resource, {}, as_of=arrived)["e4"][FROM] == "p0"
    assert windows_of(resource, {}, as_of=arrived - 1)["e4"][FROM] is None


def test_a_whole_number_in_the_log_is_a_number_of_the_columns_type(resource: ContinualModel) -> None:
    found = windows_of(resource, {"features": json.dumps(SERVED | {"seen_1m": 41.0, "light_1m": 1, "newest_1m": 1})})
    assert values(found["e4"]) == [41, 42, 1.0, 1.0]


def test_a_resource_without_windows_has_no_such_columns() -> None:
    events = events_frame(3)
    assert with_windows(events, events.lazy(), tiny_resource()).equals(events)


def test_the_codec_gets_the_windows_by_name_beside_fields_and_statistics(resource: ContinualModel) -> None:
    events = events_frame(60)
    found = labelled(events.lazy(), labels_frame(events).lazy(), resource, as_of=LATER).rows
    parts = split(found, fresh_rows=20, known=None, seed=1)
    frame = content(events.lazy(), parts, resource, NO_PICTURES, predictions=predictions_frame({}).lazy(), as_of=LATER)
    rows, _ = rows_and_labels(frame, resource)
    assert {tuple(sorted(row)) for row in rows} == {tuple(sorted(["image", "brightness", "contrast", *NAMES]))}
    assert [rows[4][name] for name in NAMES] == [SERVED[name] for name in NAMES]
    assert rows[4]["brightness"] == 0.3  # the event's own picture, whatever the log has under this name
    assert content(events.lazy(), parts.clear(), resource, NO_PICTURES).columns == frame.columns
    assert resource.spec.features.window_names == tuple(NAMES)


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_the_lakes_files_changes_nothing(order: list[int]) -> None:
    resource = tiny_resource(features=FEATURES)
    logged = predictions_frame({}, {}, {"event_id": "e1"}, {"event_id": "e1"}, {"event_id": "e7"}, {"event_id": "e0"})
    events = events_frame(8)
    one, other = (
        with_windows(events, events.lazy(), resource, predictions=frame.lazy()) for frame in (logged, logged[order])
    )
    assert one.equals(other)


def test_the_lakes_own_table_of_predictions_is_read(resource: ContinualModel, tmp_path: Any) -> None:
    from tidemill.events.sources import Source

    table = LakeTable(table_uri(str(tmp_path), resource.id, "predictions"), PREDICTIONS, pipeline="outcomes")
    table.append(predictions_frame({}).with_columns(source=pl.lit("c/p/0")), {Source.parse("c/p/0"): 0})
    events = events_frame(8)
    assert with_windows(events, events.lazy(), resource, predictions=table.scan())[FROM].to_list()[4] == "p0"


def test_a_window_that_was_left_out_of_the_log_is_recomputed_with_the_others(resource: ContinualModel) -> None:
    kept = {name: value for name, value in SERVED.items() if name != "light_1m"}
    found = windows_of(resource, {"features": json.dumps(kept)})
    assert found == windows_of(resource)
