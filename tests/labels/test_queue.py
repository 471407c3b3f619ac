"""What to label next: the probabilities that are recorded are those with which things are picked."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidemill.labels.queue import CONFIDENCE, CONTROL, FIRST, RARE, SLICE, VERSIONS, Picks, coin, pick

ROUNDS = 400


def things(count: int, *, seed: int = 1, name: str = "") -> pl.DataFrame:
    """Answers of two classes, a third of them unsure; a rare third class; three entities; versions differ on some."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "item": [f"{name}{number}" for number in range(count)],
            "answer": ["dent" if number % 40 == 7 else "ok" if number % 2 else "scratch" for number in range(count)],
            "confidence": [float(rng.uniform(0.5, 0.9) if number % 3 == 0 else 0.98) for number in range(count)],
            "entity": [("north", "east", "south")[number % 3] for number in range(count)],
            "versions_differ": [number % 10 == 3 for number in range(count)],
        }
    )


def picked(frame: pl.DataFrame, **settings: Any) -> Picks:
    return pick(frame, **{"control": 0.1, "classes": 3, "budget": None, "drifted": {"east"}} | settings)


def probability(reasons: Any) -> float:
    return float(1 - math.prod(1 - share for share in reasons.values()))


def test_whoever_asks_gets_the_same_picks_in_the_same_order() -> None:
    first, second = picked(things(200)), picked(things(200).sample(fraction=1, shuffle=True, seed=5).sort("item"))
    assert list(first.reasons) == list(second.reasons)
    assert picked(things(200)) == first


def test_each_reason_that_applies_is_told_with_its_probability() -> None:
    frame = things(400)
    found = picked(frame).reasons
    rows = {row["item"]: row for row in frame.iter_rows(named=True)}
    for item, reasons in found.items():
        assert reasons[CONTROL] == 0.1
        assert (VERSIONS in reasons) == rows[item]["versions_differ"]
        assert (SLICE in reasons) == (rows[item]["entity"] == "east")
        assert (RARE in reasons) == (rows[item]["answer"] == "dent")
        assert reasons[CONFIDENCE] == pytest.approx((1 - rows[item]["confidence"]) * 1.5)


def test_coins_fall_as_often_as_they_say_and_independently() -> None:
    tosses = np.array([[coin(str(number), reason) for reason in (CONTROL, SLICE)] for number in range(40_000)])
    for share in (0.02, 0.1, 0.5, 0.9):
        fell = tosses < share
        assert fell.mean(axis=0) == pytest.approx([share, share], abs=4 * math.sqrt(share * (1 - share) / 40_000))
        assert (fell[:, 0] & fell[:, 1]).mean() == pytest.approx(share**2, abs=4 * share / math.sqrt(40_000))


def test_things_are_picked_as_often_as_their_recorded_probability_says() -> None:
    """Over many rounds, in each group of things that share their reasons: of fell / p the mean is 1."""
    weights: dict[tuple[str, ...], list[float]] = {}
    for number in range(ROUNDS):
        frame = things(60, seed=3, name=f"{number}/")
        found = picked(frame, budget=12)
        for row in frame.iter_rows(named=True):
            shares = {name: min(1.0, share * found.scale) for name, share in due(row).items()} | {CONTROL: 0.1}
            mine = found.reasons.get(row["item"], {})
            if FIRST in mine:
                continue
            assert not mine or mine == pytest.approx(shares)
            weights.setdefault(tuple(sorted(shares)), []).append((1 / probability(shares)) if mine else 0.0)
    assert len(weights) >= 4
    for group, found_weights in weights.items():
        error = np.std(found_weights) / math.sqrt(len(found_weights))
        assert abs(np.mean(found_weights) - 1) < 4 * error, group


def due(row: dict[str, Any]) -> dict[str, float]:
    """The reasons that apply to a thing, unscaled."""
    shares = {CONFIDENCE: (1 - row["confidence"]) * 1.5}
    shares |= {VERSIONS: 1.0} if row["versions_differ"] else {}
    shares |= {SLICE: 0.5} if row["entity"] == "east" else {}
    return shares | ({RARE: 0.5} if row["answer"] == "dent" else {})


def test_the_budget_is_met_in_expectation_and_nearly_in_fact() -> None:
    frame = things(5000)
    for budget in (600, 1000, 2000):
        found = picked(frame, budget=budget)
        assert found.expected == pytest.approx(budget, abs=1)
        assert len(found.reasons) == pytest.approx(budget, abs=4 * math.sqrt(budget))


def test_the_control_share_is_never_scaled() -> None:
    found = picked(things(2000), budget=0)
    assert {reasons[CONTROL] for reasons in found.reasons.values()} == {0.1}
    assert len(found.reasons) == pytest.approx(200, abs=60)
    assert found.scale == 0


def test_a_budget_above_what_there_is_picks_all_that_have_a_reason() -> None:
    found = picked(things(50), budget=1000, control=0.0)
    assert len(found.reasons) == 50


def test_each_round_picks_its_most_useful_thing_for_sure() -> None:
    found = picked(things(100), control=0.0, budget=0)
    assert list(found.reasons.values()) == [{FIRST: 1.0}]
    assert picked(things(0)).reasons == {}


def test_the_control_share_comes_first_then_the_most_useful() -> None:
    found = picked(things(500), budget=100).reasons
    control = [coin(item, CONTROL) < 0.1 for item in found]
    assert control == sorted(control, reverse=True)
    others = [{name: share for name, share in of.items() if name != CONTROL} for of in found.values()]
    rest = [round(probability(of), 9) for of in others]
    rest = rest[sum(control) :]
    assert rest == sorted(rest, reverse=True)


def test_without_confidence_or_entity_only_other_reasons_apply() -> None:
    frame = things(50).with_columns(
        confidence=pl.lit(None, pl.Float64), entity=pl.lit(None, pl.String), answer=pl.lit(None, pl.String)
    )
    reasons = {name for of in picked(frame).reasons.values() for name in of}
    assert reasons <= {CONTROL, VERSIONS, FIRST}


def test_the_unbiased_estimate_from_the_picks_covers_and_the_naive_mean_does_not() -> None:
    """Errors are where the model is unsure, and so are the picks: 300 rounds of 400, each with its own interval."""
    misses, errors, naive = [], [], []
    rng = np.random.default_rng(11)
    for number in range(300):
        frame = things(400, seed=number, name=f"{number}:")
        wrong = {item: rng.random() < (1.1 - sure) for item, sure in frame.select("item", "confidence").iter_rows()}
        shares = {item: probability(of) for item, of in picked(frame, budget=120).reasons.items()}
        truth = np.mean(list(wrong.values()))
        errors.append(sum(wrong[item] / share for item, share in shares.items()) / 400 - truth)
        variance = sum(wrong[item] * (1 - share) / share**2 for item, share in shares.items()) / 400**2
        misses.append(abs(errors[-1]) > 1.96 * math.sqrt(variance))
        naive.append(np.mean([wrong[item] for item in shares]) - truth)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors))
    assert np.mean(misses) < 0.1  # the normal interval of 95 %, on 120 labels
    assert np.mean(naive) > 0.02  # the labelled are worse than all
    assert np.mean(naive) > 10 * np.std(naive) / math.sqrt(len(naive))
