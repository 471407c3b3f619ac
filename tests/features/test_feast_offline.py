"""The offline store through plain Feast, on a user's own repository and on the lake.

One process of its own goes through all scenarios (`offline_scenarios.py`): Feast's import is large, and warns of much
that is not ours.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = """
import runpy, sys
sys.modules["torch"] = None  # Feast would import it: seconds, for nothing here
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SCENARIOS = Path(__file__).parent / "offline_scenarios.py"

RATES = [0.5, 0.25, None, 0.1, None, None]
"""Of trips with a time to live of ten hours, asked in no order, once for a driver without any."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(SCENARIOS), str(tmp_path_factory.mktemp("feast"))],
        env={**os.environ, "FEAST_USAGE": "False", "TZ": "Asia/Kolkata"},  # times do not depend on where one is
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_each_row_comes_back_once_in_its_place_with_what_was_known(found: dict[str, Any]) -> None:
    assert found["trips"] == {
        "driver_id": [7, 7, 7, 8, 7, 99],
        "label": list("abcdef"),
        "rate": RATES,
        "trips": [4, 3, None, 5, None, None],
    }


def test_features_of_several_views_bear_their_names_where_that_is_asked_for(found: dict[str, Any]) -> None:
    assert found["trips, full"]["trips__rate"] == RATES
    assert found["trips, full"]["cars__kind"] == ["lorry", "van", "van", None, "lorry", None]


def test_a_value_counts_from_its_created_timestamp_on_unless_the_store_is_told_otherwise(found: dict[str, Any]) -> None:
    assert found["trips"]["rate"][0] == 0.5
    assert found["trips, created only breaks ties"]["rate"] == [0.75, *RATES[1:]]
    assert found["trips, created asked for"]["rate"] == RATES


def test_a_service_has_static_tables_views_without_entity_and_on_demand_features(found: dict[str, Any]) -> None:
    service = found["service"]
    assert service["fuel_price"] == [1.5, 1.5, 1.5, 1.5, 1.75, 1.5]
    assert service["kind"] == ["lorry", "van", "van", None, "lorry", None]
    assert service["cost"] == [5.0, 2.5, None, 1.0, None, None]


def test_times_may_be_text_and_a_missing_key_finds_nothing(found: dict[str, Any]) -> None:
    assert found["times as text"]["rate"] == [0.5]
    assert found["a missing key"]["rate"] == [0.5, None]


def test_events_of_ours_count_once_they_arrived(found: dict[str, Any]) -> None:
    assert found["ours"]["heat"] == [10.0, 10.0, 30.0, 30.0]
    assert found["ours"]["note"] == ["first", "first", "second", "second"]


def test_windows_come_with_the_last_values_in_one_frame_and_are_those_of_serving(found: dict[str, Any]) -> None:
    """The fourth row has no key: nothing is known of it."""
    windows = found["windows"]
    assert {name: windows[name] for name in ("hottest_1d", "seen_1d")} == {
        name: [*values[:3], None] for name, values in found["windows, directly"].items()
    }
    assert windows["seen_1d"] == [1, 0, 1, None]
    assert windows["note"] == ["first", "first", "second", None]


def test_the_models_own_service_gives_all_of_its_features(found: dict[str, Any]) -> None:
    names = {"station", "heat", "note", "seen_1h", "seen_1d", "hottest_1d", "said_1d"}
    assert found["service of ours"].keys() == names
    assert found["service of ours"]["seen_1d"] == [1, 0, 1, 1]
    assert found["service of ours"]["said_1d"] == [1, 1, 2, 2]


def test_windows_are_materialized_as_they_stand_at_the_end(found: dict[str, Any]) -> None:
    values = {"heat": [30.0], "seen_1d": [1], "hottest_1d": [30.0], "said_1d": [2]}
    assert found["materialized windows"] == {"station": [7]} | values


def test_the_frame_has_the_types_that_pandas_users_expect(found: dict[str, Any]) -> None:
    assert found["frame types"] == {"station": "int64", "event_timestamp": "datetime64[ns, UTC]", "heat": "float64"}


def test_a_result_is_kept_as_a_saved_dataset_and_not_overwritten(found: dict[str, Any]) -> None:
    assert found["saved"] == found["saved as a table"] == RATES
    assert found["saved again"].startswith("SavedDatasetLocationAlreadyExists")


def test_materialize_fills_another_online_store_with_the_last_values(found: dict[str, Any]) -> None:
    assert found["materialized"] == {
        "driver_id": [7, 8],
        "rate": [0.75, 0.1],
        "trips": [None, 5],
        "kind": ["lorry", None],
    }


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("sql", "Unsupported: get_historical_features takes rows as a pandas DataFrame, not an SQL query"),
        ("write", "Unsupported: the offline store does not write trips: events are written by ingest alone"),
        ("no key", "InvalidInput: the rows have no column driver_id, which trips is joined by"),
        ("name twice", "InvalidInput: rate would be there twice"),
        ("file gone", "NotFound: reading prices: there is no such file or table"),
    ],
)
def test_what_cannot_be_done_is_said(found: dict[str, Any], what: str, error: str) -> None:
    assert found[what].startswith(error)


def test_only_the_days_that_can_matter_are_read(found: dict[str, Any]) -> None:
    assert found["all files"].startswith("NotFound")
    assert found["second day"]["heat"] == [30.0]
