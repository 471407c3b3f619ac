"""Season: hours that differ of themselves are compared with themselves, or widen the tolerance, and it is said."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tidemill.core.errors import Corrupt
from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch, Signal
from tidemill.spec.model import DriftTrigger
from tidemill.stats.drift import start, step
from tidemill.watch.detection import begin, judge
from tidemill.watch.plan import WatchPlan
from tidemill.watch.quantity import in_hour
from tidemill.watch.reference import (
    FeatureReference,
    Reference,
    build_reference,
    decode_reference,
    encode_reference,
    watched,
)
from tidemill.watch.ticks import ClosedTick

HOUR_MS = 3_600_000
TICK_MS = HOUR_MS // 2
START = datetime(2025, 1, 2, tzinfo=UTC)
"""Whole weeks after 1970."""
START_MS = round(START.timestamp() * 1_000)
PERIOD = 30 * 86_400_000.0
STATIONS = [f"s{number:02}" for number in range(40)]


def levels(day: int, hours: np.ndarray[Any, Any], *, daily: float, weekend: float) -> np.ndarray[Any, Any]:
    return daily * np.sin(2 * np.pi * hours / 24) + weekend * (day % 7 >= 5)


def make_rows(
    days: int, *, daily: float = 0.0, weekend: float = 0.0, wander: float = 0.0, night: bool = True, seed: int = 1
) -> pl.DataFrame:
    """Two ticks an hour of 40 stations around a level; without `night` nothing is sent before six."""
    rng = np.random.default_rng(seed)
    hours = np.arange(48) / 2
    frames = []
    for day in range(days):
        level = levels(day, hours, daily=daily, weekend=weekend) + wander * rng.standard_normal()
        values = 5 + level[:, None] + rng.standard_normal((48, len(STATIONS)))
        times = [START + timedelta(days=day, hours=float(hour)) for hour in hours]
        frame = pl.DataFrame(
            {
                "entity": STATIONS * 48,
                "event_time": [time for time in times for _ in STATIONS],
                "load": values.ravel(),
            }
        )
        frames.append(frame if night else frame.filter(pl.col("event_time").dt.hour() >= 6))
    return pl.concat(frames)


def built(rows: pl.DataFrame, tolerance: float = 0.2) -> Reference:
    trigger = DriftTrigger.model_validate({"tolerance": tolerance, "every": "30m"})
    return build_reference(rows, ["load"], trigger)


def feature(rows: pl.DataFrame, tolerance: float = 0.2) -> FeatureReference:
    return built(rows, tolerance).features[0]


@pytest.fixture(scope="module")
def by_day() -> Reference:
    return built(make_rows(28, daily=1.5))


def test_hours_that_do_not_differ_have_no_season() -> None:
    found = [feature(make_rows(16, seed=seed)) for seed in range(8)]
    assert [of.season for of in found] == [None] * 8
    assert all(of.tolerance == 0.2 and of.state == "ok" for of in found)


def test_from_14_days_on_each_hour_of_the_day_is_compared_with_itself(by_day: Reference) -> None:
    (found,) = by_day.features
    assert found.state == "ok"
    assert found.tolerance == 0.2
    assert not found.raised
    assert found.season is not None
    assert (found.season.differ, found.season.by_hour, found.season.deviation) == ("day", "day", 0.0)
    assert len(found.season.shares) == 24
    means = np.array([mean for mean in found.season.means if mean is not None])
    np.testing.assert_allclose(means, 5 + 1.5 * np.sin(2 * np.pi * (np.arange(24) + 0.25) / 24), atol=0.2)
    assert "each is compared with the same hour of the day" in found.reason
    assert found.tau < 2  # the season is not memory


def test_c_ref_is_that_of_the_hour_with_the_fewest_votes(by_day: Reference) -> None:
    (found,) = by_day.features
    votes = 14 * 2 * len(STATIONS)
    assert found.c_ref == pytest.approx(np.sqrt(np.log(2 * 24 / 0.009) * found.tau / (2 * votes)), rel=1e-6)
    assert found.c_ref < 0.1


def test_with_fewer_days_the_tolerance_rises_to_what_hours_differ_by_and_that_is_said() -> None:
    rows = make_rows(9, daily=0.8)
    found = feature(rows)
    assert (found.state, found.raised) == ("ok", True)
    assert found.season is not None
    assert found.season.by_hour == ""
    assert found.season.shares == ()
    assert found.tolerance == found.season.deviation
    assert 0.25 < found.tolerance < 0.45
    plan = WatchPlan("default.x", "station", TICK_MS, 0, PERIOD, 0.2)
    (signal,) = begin("1", built(rows), START_MS, plan)[1]
    said = r"load: tolerance raised from 0\.2 to 0\.3\d?; hours of the day differ by up to 0\.3\d?; "
    assert re.match(said + "a reference by hour of the day needs 14 days, this has 9 days", signal.message)


def test_hours_that_differ_by_less_than_half_the_tolerance_change_nothing() -> None:
    found = feature(make_rows(28, daily=0.15))
    assert found.season is not None
    assert found.season.spread < 0.1
    assert (found.season.by_hour, found.tolerance, found.reason) == ("", 0.2, "")
    assert found.tau < 2


def test_hours_that_differ_by_more_than_half_of_all_votes_cannot_be_promised() -> None:
    found = feature(make_rows(9, daily=3.0))
    assert found.state == "cannot-promise"
    assert "hours of the day differ by up to" in found.reason


def test_too_few_votes_an_hour_widen_the_tolerance_and_say_how_many_are_needed() -> None:
    rows = make_rows(28, daily=0.8).filter(pl.col("entity").is_in(STATIONS[:8]))
    found = feature(rows)
    assert found.season is not None
    assert found.season.by_hour == ""
    needed = re.search(
        r"needs ([\d,]+) votes of each hour in its newer half, this has about 224$", found.season.why_not
    )
    assert needed is not None
    assert int(needed[1].replace(",", "")) > 400


def test_hours_without_votes_are_not_watched_and_the_others_are() -> None:
    found = feature(make_rows(28, daily=1.0, night=False))
    assert found.state == "ok"
    assert found.season is not None
    assert [len(shares) > 0 for shares in found.season.shares] == [False] * 6 + [True] * 18
    assert "6 of 24 have too few votes and are not watched" in found.reason


def test_weekends_need_8_weeks_for_a_reference_by_hour_of_the_week() -> None:
    rows = make_rows(70, daily=0.8, weekend=1.0)
    found = feature(rows, 0.3)
    assert found.season is not None
    assert (found.season.by_hour, len(found.season.shares)) == ("week", 168)
    shorter = feature(rows.filter(pl.col("event_time") < START + timedelta(days=35)), 0.3)
    assert shorter.season is not None
    assert (shorter.season.differ, shorter.season.by_hour) == ("week", "day")
    assert "needs 8 weeks, this has 35 days" in shorter.reason
    assert shorter.tolerance == max(0.3, shorter.season.deviation)


def test_a_level_that_wanders_from_day_to_day_is_dependence_not_season() -> None:
    found = feature(make_rows(28, daily=1.0, wander=0.5))
    assert found.state == "cannot-promise"
    assert found.tau > 20


def alarms(of: FeatureReference, rows: pl.DataFrame) -> list[int]:
    """Ticks at which it alarms on rows that begin where hours of the week do."""
    against = watched([of])
    state, found = start(against), []
    for number, group in enumerate(rows.partition_by("event_time", maintain_order=True)):
        values = group["load"].to_numpy()
        hits = (values[:, None] <= against.edges).sum(axis=0)[None, :].astype(float)
        hits[0, -1] = 0.0
        end = round(group["event_time"][0].timestamp() * 1_000) + TICK_MS
        votes = np.array([float(len(values))])
        state, said = step(against, state, hits, votes, end=end, tick=TICK_MS, period=PERIOD)
        found += [number] * len(said)
    return found


def test_a_daily_season_does_not_alarm_and_would_if_it_were_not_taken_out(by_day: Reference) -> None:
    (found,) = by_day.features
    live = make_rows(45, daily=1.5, seed=2)
    assert alarms(found, live) == []
    assert len(alarms(msgspec.structs.replace(found, season=None), live)) > 10


def test_a_shift_that_stays_within_the_days_range_is_found_in_its_hour(by_day: Reference) -> None:
    (found,) = by_day.features
    live = make_rows(2, daily=1.5, seed=3)
    morning = (pl.col("event_time").dt.hour() >= 4) & (pl.col("event_time").dt.hour() < 8)
    fallen = live.with_columns(load=pl.when(morning).then(pl.col("load") - 2.0).otherwise("load"))
    first = alarms(found, fallen)[0]
    assert 8 <= first < 16
    assert found.finds_one_sigma_in is not None
    widened = msgspec.structs.replace(found, season=None, tolerance=0.44)
    assert alarms(widened, fallen) == []


def test_an_alarm_tells_of_the_usual_mean_of_the_hour(by_day: Reference) -> None:
    plan = WatchPlan("default.x", "station", TICK_MS, 0, PERIOD, 0.2)
    state, (said,) = begin("1", by_day, START_MS, plan)
    assert said.kind == "state"
    evening, signals = START_MS + 18 * HOUR_MS, list[Signal]()
    for tick in range(20):
        votes = named({name: {"load": FeatureSketch(count=1, total=5.0)} for name in STATIONS})
        state, found = judge(
            state, ClosedTick(evening + (tick % 2 + 1) * TICK_MS + tick // 2 * 86_400_000, votes), plan
        )
        signals += found
    (signal, *_) = signals
    assert signal.before == pytest.approx(3.5, abs=0.1)
    assert signal.now == pytest.approx(5.0)
    assert "rose from 3.5 to 5" in signal.message


def test_in_an_hour_its_own_shares_and_means_are_usual(by_day: Reference) -> None:
    (found,) = by_day.features
    noon, midnight = in_hour(found, 12 * HOUR_MS), in_hour(found, 36 * HOUR_MS - 24 * HOUR_MS)
    assert noon == midnight
    assert found.season is not None
    assert noon.shares == found.season.shares[12]
    assert noon.mean == pytest.approx(found.season.means[12])
    assert in_hour(msgspec.structs.replace(found, season=None), 0).mean == found.mean


def test_the_season_is_read_back_and_a_broken_one_is_corrupt(by_day: Reference) -> None:
    data = encode_reference(by_day)
    assert decode_reference(data, "reference.json") == by_day
    broken = msgspec.json.decode(data)
    broken["features"][0]["season"]["shares"].pop()
    with pytest.raises(Corrupt, match="do not fit"):
        decode_reference(msgspec.json.encode(broken), "reference.json")


def test_a_constant_has_no_season() -> None:
    found = feature(make_rows(16).with_columns(load=pl.lit(1.0)))
    assert (found.state, found.season) == ("ok", None)


def test_what_is_constant_by_hour_is_compared_by_hour() -> None:
    rows = make_rows(28).with_columns(load=(pl.col("event_time").dt.hour() >= 12).cast(pl.Float64))
    found = feature(rows)
    assert found.season is not None
    assert found.season.by_hour == "day"
    assert found.season.shares[0][1] == 1.0
    assert found.season.shares[20][1] == 0.0
