"""Values of the user's FeatureService: those that were served where they are known, else those of the time."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.testing.training import START, events_frame
from tidemill.training.service_values import with_service


class Service:
    """Answers with the second of each row's time; keeps how many rows it was asked for."""

    types: Mapping[str, Any] = {"second": pl.Int64(), "maker": pl.String()}
    inputs = ("station", "contrast")

    def __init__(self) -> None:
        self.asked: list[pl.DataFrame] = []

    def historical(self, rows: pl.DataFrame, time: str) -> pl.DataFrame:
        self.asked.append(rows)
        return rows.select(second=pl.col(time).dt.second().cast(pl.Int64), maker=pl.lit("then"))


def predicted(number: int, *, offset: int = 0, at_s: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of the lake's predictions about event number `number`."""
    row = {
        "source": "c/predictions/0",
        "offset": offset,
        "entity": f"station-{number % 3}",
        "event_id": f"e{number}",
        "predicted_at": START + timedelta(seconds=at_s),
        "available_at": START + timedelta(seconds=at_s + 1),
        "features": json.dumps({"brightness": 0.5, "second": 100 + number, "maker": None}),
        "feature_statuses": json.dumps({"maker": "NULL_VALUE"}),
    }
    return row | changes


def joined(*predictions: dict[str, Any], count: int = 6, as_of: int | None = None) -> tuple[pl.DataFrame, int, Service]:
    service = Service()
    schema = {"features": pl.String(), "feature_statuses": pl.String()}
    table = pl.DataFrame(list(predictions), schema_overrides=schema).lazy() if predictions else None
    frame, logged = with_service(events_frame(count), service, table, entity="station", as_of=as_of)
    return frame, logged, service


def test_an_event_that_was_never_predicted_has_the_values_of_its_time() -> None:
    frame, logged, service = joined()
    assert (frame["second"].to_list(), logged) == ([0, 1, 2, 3, 4, 5], 0)
    assert service.asked[0].columns == ["station", "contrast", "event_time"]


def test_what_was_served_is_preferred_nulls_too_and_the_order_stays() -> None:
    frame, logged, service = joined(predicted(4), predicted(1))
    assert frame["second"].to_list() == [0, 101, 2, 3, 104, 5]
    assert frame["maker"].to_list() == ["then", None, "then", "then", None, "then"]
    assert frame["event_id"].to_list() == [f"e{number}" for number in range(6)]
    assert (logged, service.asked[0].height) == (2, 4)


def test_of_several_predictions_the_first_counts() -> None:
    again = predicted(1, at_s=9, features=json.dumps({"second": 7, "maker": "m"}), feature_statuses=None)
    frame, _, _ = joined(again, predicted(1), predicted(1, offset=1, features=again["features"]))
    assert frame["second"].to_list()[1] == 101


def test_a_prediction_that_arrived_later_is_not_seen() -> None:
    as_of = to_ms(START + timedelta(seconds=5))
    frame, logged, _ = joined(predicted(1, at_s=4), predicted(2, at_s=5), as_of=as_of)
    assert (frame["second"].to_list(), logged) == ([0, 101, 2, 3, 4, 5], 1)


def test_values_that_the_store_did_not_give_are_not_what_was_served() -> None:
    away = json.dumps({"second": "UNAVAILABLE", "maker": "UNAVAILABLE"})
    before = json.dumps({"brightness": 0.5})
    frame, logged, _ = joined(predicted(1, feature_statuses=away), predicted(2, features=before))
    assert (frame["second"].to_list(), logged) == ([0, 1, 2, 3, 4, 5], 0)


def test_where_all_was_served_feast_is_not_asked() -> None:
    frame, logged, service = joined(*(predicted(number) for number in range(6)))
    assert (frame["second"].to_list(), logged, service.asked) == ([100, 101, 102, 103, 104, 105], 6, [])


def test_no_rows_stay_no_rows() -> None:
    frame, logged, service = joined(count=0)
    assert (frame.height, logged, service.asked) == (0, 0, [])
    assert {"second", "maker"} <= set(frame.columns)
