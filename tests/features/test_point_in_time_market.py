"""The join on real data: the electricity market of New South Wales and Victoria, with reports that arrive late."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidemill.features.point_in_time import point_in_time, scan_point_in_time

MARKET = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
SEED, ASKED, CHECKED = 11, 20_000, 60
START = datetime(1996, 5, 7, tzinfo=UTC)
STATES = ("nsw", "vic")
pytestmark = pytest.mark.skipif(
    "TIDEMILL_DATA" not in os.environ or not MARKET.is_file(), reason="needs elec.csv in the folder TIDEMILL_DATA"
)


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """A report each half hour of each state's price and demand, one in ten hours late, in the order of arrival."""
    rng = np.random.default_rng(SEED)
    table = pl.read_csv(MARKET).with_row_index("half_hour")
    reports = [
        table.select(
            entity=pl.lit(state),
            event_time=pl.lit(START).dt.cast_time_unit("us")
            + pl.duration(minutes=pl.col("half_hour").cast(pl.Int64) * 30),
            price=f"{state}price",
            demand=f"{state}demand",
        )
        for state in STATES
    ]
    both = pl.concat(reports)
    minutes = rng.exponential(20, both.height) + (rng.random(both.height) < 0.1) * rng.exponential(300, both.height)
    arrival = pl.col("event_time") + pl.Series(minutes * 60e6).cast(pl.Int64).cast(pl.Duration("us"))
    return (
        both.with_columns(available_at=arrival)
        .sort("available_at")
        .with_columns(source=pl.lit("c/market/0"), offset=pl.int_range(pl.len()))
    )


@pytest.fixture(scope="module")
def rows(events: pl.DataFrame) -> pl.DataFrame:
    rng = np.random.default_rng(SEED + 1)
    half_hours = events.height // len(STATES)
    frame = pl.DataFrame({"entity": rng.choice(STATES, ASKED), "minute": rng.integers(0, half_hours * 30, ASKED)})
    at = pl.lit(START).dt.cast_time_unit("us") + pl.duration(minutes="minute")
    return frame.select("entity", at=at)


@pytest.mark.parametrize("ttl", [None, timedelta(hours=1)])
def test_the_market_as_it_was_known_equals_a_loop_over_all_reports(
    events: pl.DataFrame, rows: pl.DataFrame, ttl: timedelta | None
) -> None:
    found = point_in_time(rows, events, ["offset", "price", "demand", "event_time", "available_at"], ttl=ttl)
    assert found.height == ASKED
    assert scan_point_in_time(rows, events.lazy(), found.columns, ttl=ttl, at_once=50_000).equals(found)
    known = rows.hstack(found)
    assert known.filter(pl.max_horizontal("event_time", "available_at") > pl.col("at")).is_empty()

    reports = list(events.select("entity", "event_time", "available_at", "offset", "price").iter_rows())
    for entity, at, offset, price in known.select("entity", "at", "offset", "price").head(CHECKED).iter_rows():
        best = None
        for state, time, arrival, place, value in reports:
            is_known = state == entity and time <= at and arrival <= at and (ttl is None or time >= at - ttl)
            if is_known and (best is None or (time, place) > best[:2]):
                best = (time, place, value)
        assert (offset, price) == ((None, None) if best is None else best[1:])


def test_an_asof_join_on_the_event_time_alone_would_have_seen_the_future(
    events: pl.DataFrame, rows: pl.DataFrame
) -> None:
    """So the market's lateness is real work: nearly half of the answers would be of reports that were not there."""
    found = point_in_time(rows, events.drop("available_at"), ["offset"])
    arrivals = events.select("offset", "available_at")
    known = rows.hstack(found).join(arrivals, on="offset", how="left", maintain_order="left")
    assert 0.3 < (known["available_at"] > known["at"]).mean() < 0.7  # type: ignore[operator]
