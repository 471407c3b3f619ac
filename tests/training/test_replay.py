"""Which older rows are learnt from again."""

from collections import Counter
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.spec.loop import Replay
from tidemill.testing.training import events_frame, labels_frame, tiny_resource
from tidemill.training.dataset import Known, labelled, split
from tidemill.training.labels import label_class, parse_label
from tidemill.training.replay import HALVINGS, draw_replay, replay_rows

Strategy = Literal["reservoir", "classBalanced", "recent"]
STRATEGIES: tuple[Strategy, ...] = ("reservoir", "classBalanced", "recent")
strategies = st.sampled_from(STRATEGIES).map(lambda name: Replay(strategy=name))
pools = st.lists(st.sampled_from(["ok", "scratch", "dent", None]), max_size=200)
LATER = 2_000_000_000_000


@given(strategies, pools, st.integers(-5, 250), st.integers(0, 9))
def test_what_is_drawn_is_there_once_and_no_more_than_asked(
    replay: Replay, classes: list[str | None], size: int, seed: int
) -> None:
    drawn = draw_replay(replay, len(classes), size, seed=seed, classes=classes)
    assert len(drawn) == max(0, min(size, len(classes)))
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert set(drawn.tolist()) <= set(range(len(classes)))


@given(strategies, pools, st.integers(0, 200), st.integers(0, 9))
def test_the_same_seed_draws_the_same_rows(replay: Replay, classes: list[str | None], size: int, seed: int) -> None:
    once, again = (draw_replay(replay, len(classes), size, seed=seed, classes=classes) for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_draws_other_rows(strategy: Strategy) -> None:
    one, other = (
        draw_replay(Replay(strategy=strategy), 1000, 100, seed=seed, classes=["a"] * 1000).tolist() for seed in (1, 2)
    )
    assert one != other


@given(pools, st.integers(0, 200), st.integers(0, 9))
def test_balanced_classes_have_equal_shares_but_for_those_that_have_no_more(
    classes: list[str | None], size: int, seed: int
) -> None:
    drawn = draw_replay(Replay(strategy="classBalanced"), len(classes), size, seed=seed, classes=classes)
    there, taken = Counter(classes), Counter(classes[number] for number in drawn)
    largest = max((taken[name] for name in there), default=0)
    assert all(taken[name] >= largest - 1 or taken[name] == there[name] for name in there)


def test_a_balanced_replay_without_classes_is_a_reservoir() -> None:
    balanced, reservoir = (
        draw_replay(Replay(strategy=name), 100, 10, seed=1) for name in ("classBalanced", "reservoir")
    )
    assert np.array_equal(balanced, reservoir)


def test_a_reservoir_gives_each_row_the_same_chance() -> None:
    drawn = np.concatenate([draw_replay(Replay(), 50, 10, seed=seed) for seed in range(4000)])
    counts = np.bincount(drawn, minlength=50)  # 800 expected of each, with standard deviation 25
    assert np.abs(counts - 800).max() < 125


def test_the_chance_of_a_recent_row_halves_with_every_tenth_of_those_after_it() -> None:
    """Drawn one at a time, the chance is the weight's share exactly."""
    count = 1000
    drawn = [draw_replay(Replay(strategy="recent"), count, 1, seed=seed)[0] for seed in range(20_000)]
    tenths = np.bincount(np.array(drawn) * HALVINGS // count, minlength=HALVINGS)[::-1]
    shares = 0.5 ** np.arange(1, HALVINGS + 1) / (1 - 0.5**HALVINGS)
    assert tenths / len(drawn) == pytest.approx(shares, abs=0.015)


@given(st.integers(0, 5000), st.integers(1, 90))
def test_the_share_is_that_of_the_rows_trained_on(new: int, percent: int) -> None:
    rows = replay_rows(Replay(fraction=percent / 100), new=new, least=0)
    assert rows == pytest.approx((new + rows) * percent / 100, abs=1)


def test_few_new_rows_are_filled_up_unless_no_replay_is_asked_for() -> None:
    assert replay_rows(Replay(fraction=0.3), new=40, least=500) == 460
    assert replay_rows(Replay(fraction=0), new=40, least=500) == 0


def replayed(strategy: Strategy) -> pl.DataFrame:
    """Of 2,000 rows, of which one in ten is scratched, the last 200 are new."""
    resource, events = tiny_resource(), events_frame(2000)
    values = ['{"defect": "scratch"}' if number % 10 == 0 else '{"defect": "ok"}' for number in range(2000)]
    rows = labelled(events.lazy(), labels_frame(events, value=values).lazy(), resource, as_of=LATER).rows
    parts = split(
        rows,
        fresh_rows=0,
        known=Known({"c/events/0": 1799}, {"c/labels/0": 1799}, LATER),
        seed=1,
        replay=Replay(fraction=0.6, strategy=strategy),
        class_of=lambda text: label_class(parse_label(text, resource) or {}, resource),
    )
    return parts.filter(pl.col("part") == "replay")


def test_a_run_replays_by_the_strategy_of_its_resource() -> None:
    shares = {name: replayed(name)["label"].str.contains("scratch").mean() for name in STRATEGIES}
    assert shares["classBalanced"] == 0.5
    assert shares["reservoir"] == pytest.approx(0.1, abs=0.05)
    ages = {name: replayed(name)["offset"].mean() for name in STRATEGIES}
    assert ages["recent"] > ages["reservoir"] + 400  # type: ignore[operator]
