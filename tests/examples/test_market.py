import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel

EXAMPLE = Path(__file__).parents[2] / "examples" / "electricity_market"
sys.path.insert(0, str(EXAMPLE))

from electricity.compare import WEEK, compare, interval  # noqa: E402 -- the path comes first
from electricity.contest import Contestant, NoChange, play  # noqa: E402
from electricity.loop import Loop  # noqa: E402
from electricity.retrained import Retrained  # noqa: E402
from electricity.rows import COLUMNS, DELAY, Market, market_of, read_market  # noqa: E402

RESOURCE = load(EXAMPLE / "market.yaml")


DAILY = [int(row % 48 > 20) for row in range(1200)]


def made(classes: list[int]) -> Market:
    columns = {name: [(row % 48) / 47 for row in range(len(classes))] for name in COLUMNS}
    return market_of(pl.DataFrame(columns | {"class": classes}), RESOURCE)


@pytest.fixture(scope="module")
def market() -> Market:
    file = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
    if not os.environ.get("TIDEMILL_DATA") or not file.is_file():
        pytest.skip("TIDEMILL_DATA has no elec.csv")
    return read_market(file, RESOURCE)


def test_no_change_is_right_in_65_6_percent_with_labels_a_day_late_and_in_85_3_without_delay(market: Market) -> None:
    truth = market.directions
    assert len(market) == 45_312
    assert round(play(market, NoChange(market), since=DELAY).accuracy, 3) == 0.656
    assert round(sum(a == b for a, b in pairwise(truth)) / (len(truth) - 1), 3) == 0.853


def test_the_window_over_labels_shows_the_label_of_a_day_ago_and_none_that_is_younger() -> None:
    market = made([(row * row) % 3 % 2 for row in range(200)])
    assert [row["known_2h"] for row in market.rows[DELAY:]] == list(market.directions[:-DELAY])
    assert all(row["known_2h"] is None for row in market.rows[:DELAY])


@pytest.mark.slow
def test_no_answer_depends_on_a_label_that_is_not_known_yet() -> None:
    classes, last = DAILY[:1100], 1050
    changed = [1 - value if row > last - DELAY else value for row, value in enumerate(classes)]
    makers: list[Callable[[Market], Contestant]] = [lambda of: Retrained(of, every=48), Loop]
    for make in makers:
        found = [play(of, make(of), since=600).answers for of in (made(classes), made(changed))]
        assert found[0][: last - 600 + 1] == found[1][: last - 600 + 1]


def test_a_run_learns_and_is_judged_the_same_whatever_the_labels_are_that_are_not_known_when_it_starts() -> None:
    at = 499 + 336
    found = []
    for of in (made(DAILY), made([1 - value if row > at - DELAY else value for row, value in enumerate(DAILY)])):
        loop = Loop(of)
        loop.begin(500)
        for row in range(500, at + 1):
            loop.tell(row - DELAY)
        champion = loop._champion()
        assert champion is not None
        found.append((champion.weights, loop.decisions))  # with what the gate counted on the fresh rows
    assert found[0] == found[1]
    assert len(found[0][1]) > 8


def test_the_loop_starts_a_run_for_each_week_of_labels_and_its_version_answers_from_the_next_row_on() -> None:
    market = made(DAILY)
    loop = Loop(market)
    played = play(market, loop, since=500)
    started = [one for one in loop.decisions if one.kind == "start-run"]
    assert [one.figures["cause"] for one in started] == ["initial", "volume", "volume"]
    assert [(one.time - market.times[499]) // 1_800_000 for one in started] == [0, 336, 672]
    assert (played.runs, loop.refused) == (2, 0)
    assert [one.kind for one in loop.decisions].count("promote") == 3
    loop.begin(500)
    before = loop._serving
    loop.tell(499 + 336 - DELAY)
    assert loop._serving is before
    loop.tell(500 + 336 - DELAY)
    assert loop._serving is not before


def test_a_version_that_the_gate_refuses_never_answers_and_its_run_counts() -> None:
    declared = RESOURCE.model_dump(mode="json", by_alias=True)
    declared["spec"]["gates"]["fresh"]["margin"] = 0.0  # a day cannot show that a version is not worse at all
    noise = np.random.default_rng(0).integers(2, size=1200).tolist()
    loop = Loop(replace(made(noise), resource=ContinualModel.model_validate(declared)))
    loop.begin(500)
    first = loop._champion()
    for row in range(500, 835 + 3 * DELAY):
        loop.tell(row - DELAY)
    assert loop._champion() is first
    assert loop.runs == loop.refused == 3  # the week's, and one for each day of cooldown
    assert [one.kind for one in loop.decisions].count("run-finished") == 3


def test_an_interval_of_alike_weeks_is_narrow_and_of_unlike_ones_wide() -> None:
    alike = interval(np.tile([0.0, 1.0], 5 * WEEK))
    assert (alike.low, alike.value, alike.high) == (0.5, 0.5, 0.5)
    unlike = interval(np.repeat([0.0, 1.0], 5 * WEEK))
    assert unlike.value == 0.5
    assert unlike.low < 0.3
    assert unlike.high > 0.7


@pytest.mark.slow
def test_the_table_names_every_contestant_and_says_whether_the_goals_hold() -> None:
    found = compare(made(DAILY), since=1000, seeds=2, say=lambda words: None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    loop, never, daily, *others = found.standings
    assert len(others) == 3
    assert (loop.runs, never.runs, daily.runs) == (0, 0, 4)
    assert set(loop.seeds) == {0, 1}
    assert set(found.differences) == {one.name for one in (never, daily, *others)}
    assert set(found.goals) == {
        "within 0.01 of daily retraining",
        "at most a third of its runs",
        "at or above the forest",
    }
