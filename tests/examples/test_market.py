import os
import sys
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from tidemill.spec.load import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "electricity_market"
sys.path.insert(0, str(EXAMPLE))

from electricity.contest import NoChange, play  # noqa: E402 -- the path comes first
from electricity.retrained import Retrained  # noqa: E402
from electricity.rows import COLUMNS, DELAY, Market, market_of, read_market  # noqa: E402

RESOURCE = load(EXAMPLE / "market.yaml")


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


def test_no_answer_depends_on_a_label_that_is_not_known_yet() -> None:
    classes = [int(row % 48 > 20) for row in range(300)]
    last = 250
    changed = [1 - value if row > last - DELAY else value for row, value in enumerate(classes)]
    found = [play(of, Retrained(of, every=48), since=150).answers for of in (made(classes), made(changed))]
    assert found[0][: last - 150 + 1] == found[1][: last - 150 + 1]
