from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from tidemill.features.skew import Served, compare, events_for, labels_for
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
S, T = "c/t/0", "c/t/1"


@pytest.fixture(scope="module")
def resource() -> ContinualModel:
    windows = [
        {"name": "seen", "agg": "count", "over": ["1m", "10m"]},
        {"name": "heat", "agg": "mean", "of": "x", "over": ["10m"]},
    ]
    fields = [{"name": "x", "type": "float"}, {"name": "word", "type": "string", "required": False}]
    events = {"entity": {"name": "station"}, "timestamp": "captured_at", "fields": fields}
    return example_resource(events=events, features={"windows": windows})


def event(source: str, offset: int, entity: str, age_s: int, x: float, word: str | None = "a") -> dict[str, Any]:
    time = NOON - timedelta(seconds=age_s)
    return {
        "source": source,
        "offset": offset,
        "entity": entity,
        "event_time": time,
        "available_at": time,
        "event_date": time.date(),
        "x": x,
        "word": word,
        "unused": b"picture",
    }


EVENTS = [
    event(S, 0, "A", 400, 1.0),
    event(S, 1, "A", 300, 2.0),
    event(S, 2, "B", 200, 9.0),
    event(T, 0, "A", 30, 6.0, None),
    event(S, 3, "A", 20, 100.0),  # after every fence below
]
UPTO = {S: 3, T: 0}


def frame(resource: ContinualModel, *served: Served) -> pl.DataFrame:
    times = {"event_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC")}
    return events_for(pl.DataFrame(EVENTS, schema_overrides=times).lazy(), served, resource)


def test_windows_over_labels_are_computed_from_the_labels_up_to_the_fence() -> None:
    fields = [{"name": "x", "type": "float"}, {"name": "word", "type": "string", "required": False}]
    resource = example_resource(
        events={"entity": {"name": "station"}, "timestamp": "captured_at", "fields": fields},
        features={"windows": [{"name": "said", "agg": "count", "of": "label.defect", "over": ["1h"]}]},
    )
    times = {"event_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC")}
    said = [
        {"source": "c/l/0", "offset": offset, "entity": "A", "event_time": time, "available_at": time, "value": value}
        for offset, (time, value) in enumerate([(NOON - timedelta(minutes=5), '{"defect": "ok"}')] * 3)
    ]
    served = prediction({S: 1, "c/l/0": 1}, said_1h=2)
    labels = labels_for(pl.DataFrame(said, schema_overrides=times).lazy(), [served], resource)
    seen = frame(resource, served)
    found = compare([served], seen, UPTO | {"c/l/0": 2}, resource, labels=labels)
    assert (found.equal, found.values, found.not_comparable) == (1, 1, {})
    wrong = msgspec.structs.replace(served, features={"said_1h": 3})
    assert compare([wrong], seen, UPTO | {"c/l/0": 2}, resource, labels=labels).differing == 1


def prediction(fence: Mapping[str, int], status: str | None = "PRESENT", **features: Any) -> Served:
    return Served(prediction_id="p", entity="A", at=NOON, features=features, status=status, fence=fence)


RIGHT = prediction({S: 2, T: 0}, x=6.0, word=None, seen_1m=1, seen_10m=3, heat_10m=3.0)


def test_what_was_served_is_what_the_lake_says_up_to_the_fence(resource: ContinualModel) -> None:
    before = prediction({S: 1}, x=2.0, word="a", seen_1m=0, seen_10m=2, heat_10m=1.5)
    served = [RIGHT, msgspec.structs.replace(before, prediction_id="q")]
    found = compare(served, frame(resource, *served), UPTO, resource)
    assert (found.compared, found.equal, found.differing, found.values) == (2, 2, 0, 10)
    assert (found.differences, found.not_comparable) == ((), {})


@pytest.mark.parametrize(
    ("feature", "value"),
    [("x", 6.0000001), ("word", "a"), ("seen_1m", 2), ("seen_10m", 3 + 1e-6), ("heat_10m", None), ("x", "6.0")],
)
def test_a_skewed_value_is_found_and_told_with_both_values(
    resource: ContinualModel, feature: str, value: object
) -> None:
    skewed = msgspec.structs.replace(RIGHT, prediction_id="q", features={**RIGHT.features, feature: value})
    found = compare([RIGHT, skewed], frame(resource, RIGHT), UPTO, resource)
    assert (found.compared, found.equal, found.differing) == (2, 1, 1)
    (difference,) = found.differences
    assert (difference.prediction_id, difference.feature) == ("q", feature)
    assert (difference.served, difference.computed) == (value, RIGHT.features[feature])


def test_numbers_agree_within_a_billionth(resource: ContinualModel) -> None:
    close = msgspec.structs.replace(RIGHT, features={**RIGHT.features, "heat_10m": 3.0 * (1 + 5e-10)})
    assert compare([close], frame(resource, close), UPTO, resource).equal == 1


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (prediction({S: 1}, status="REBUILDING"), "no features were read: REBUILDING"),
        (prediction({S: 1}, status=None), "no features were read: there are no windows"),
        (prediction({}, x=1.0), "its record has no fence"),
        (prediction({S: 4}, x=1.0), "the lake is not as far as its fence"),
        (prediction({"another/t/0": 0}, x=1.0), "the lake is not as far as its fence"),
    ],
)
def test_what_cannot_be_compared_is_counted_with_the_reason(resource: ContinualModel, served: Served, why: str) -> None:
    found = compare([served], frame(resource, served), UPTO, resource)
    assert (found.compared, found.not_comparable) == (0, {why: 1})


def test_an_entity_whose_events_have_expired_is_not_taken_for_skewed(resource: ContinualModel) -> None:
    served = msgspec.structs.replace(RIGHT, entity="gone")
    found = compare([served], frame(resource, served), UPTO, resource)
    assert (found.compared, found.equal, found.differing) == (0, 0, 0)
    assert "older than what is looked at" in next(iter(found.not_comparable))


def test_a_value_that_was_too_old_is_none_and_its_windows_still_count(resource: ContinualModel) -> None:
    old = prediction({S: 2, T: 0}, status="OUTSIDE_MAX_AGE", x=None, word=None, seen_1m=1, seen_10m=3, heat_10m=3.0)
    assert compare([old], frame(resource, old), UPTO, resource).equal == 1
    kept = msgspec.structs.replace(old, features={**old.features, "x": 6.0})
    assert compare([kept], frame(resource, kept), UPTO, resource).differing == 1


def test_a_feature_of_another_origin_is_named_and_left_out(resource: ContinualModel) -> None:
    served = msgspec.structs.replace(RIGHT, features={**RIGHT.features, "defect_rate_1h": 0.5})
    found = compare([served], frame(resource, served), UPTO, resource)
    assert (found.equal, found.values) == (1, 5)
    assert found.not_comparable == {"feature defect_rate_1h: is not computed from events": 1}
