"""Real data: the second market of the electricity file is found soon, and nothing before it."""

import polars as pl
import pytest
from benchmarks.simulate_electricity import FEATURES, OPENING, TRIGGER, WEEK, market, regardless, watch

from tidemill.watch.reference import Reference, build_reference

SINCE = 8 * WEEK


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    found = market()
    if found is None:
        pytest.skip("TIDEMILL_DATA names no folder with elec.csv")
    return found


@pytest.fixture(scope="module")
def reference(rows: pl.DataFrame) -> Reference:
    return build_reference(rows[:SINCE], FEATURES, TRIGGER)


def test_the_opening_of_the_second_market_is_found_within_ten_hours_and_nothing_in_the_ten_months_before(
    rows: pl.DataFrame, reference: Reference
) -> None:
    found = watch(rows, reference, since=SINCE, until=OPENING + 48)
    (row, signal), *_ = found.alarms
    assert OPENING <= row < OPENING + 20
    assert {signal.feature, *signal.also} == {"vicprice", "vicdemand", "transfer"}
    assert signal.since == signal.time - 1_800_000 * (row - OPENING + 1)


def test_price_and_demand_move_by_themselves_and_say_that_nothing_can_be_promised(reference: Reference) -> None:
    states = {feature.name: (feature.state, feature.season is not None) for feature in reference.features}
    constant = ("ok", False)
    unruly = ("cannot-promise", True)
    assert states == {
        "nswprice": unruly,
        "nswdemand": unruly,
        "vicprice": constant,
        "vicdemand": constant,
        "transfer": constant,
    }
    demand = reference.features[1]
    assert demand.tolerance > 0.5
    assert "hours of the week differ" in demand.reason


def test_watched_all_the_same_they_would_cry_wolf(rows: pl.DataFrame, reference: Reference) -> None:
    assert len(watch(rows, regardless(reference), since=SINCE, until=2 * SINCE).alarms) > 30
