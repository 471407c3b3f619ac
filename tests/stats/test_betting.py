"""The mixture of bets: its bounds, its laws, and the risk it keeps."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.stats.betting import BETS, Mixture, against_harm, for_promotion, for_sign

differences = st.lists(st.floats(-1, 1), max_size=60)
margins = st.floats(0.001, 0.95)


@given(differences, margins)
def test_wealth_is_the_average_of_the_products(values: list[float], margin: float) -> None:
    evidence = for_promotion(margin).update_all(margin - value for value in values)
    products = [math.prod(1 + bet / (1 - margin) * (margin - value) for value in values) for bet in BETS]
    assert evidence.value == pytest.approx(sum(products) / len(BETS), rel=1e-9)
    assert evidence.count == len(values)


@given(differences, margins)
def test_no_difference_in_bounds_can_ruin_a_bet(values: list[float], margin: float) -> None:
    for value in [*values, -1.0, 1.0]:
        assert for_promotion(margin).update(margin - value).value > 0
        assert against_harm(margin).update(value - margin).value > 0
        assert for_sign().update(value).value > 0


@given(differences)
def test_updating_at_once_equals_updating_one_by_one(values: list[float]) -> None:
    single = for_sign()
    for value in values:
        single = single.update(value)
    assert for_sign().update_all(values) == single


@given(differences)
def test_a_threshold_once_crossed_stays_crossed(values: list[float]) -> None:
    evidence, crossed = for_promotion(0.05), False
    for value in values:
        evidence = evidence.update(0.05 - value)
        crossed = crossed or evidence.value >= 20
        assert evidence.reached(0.05) is crossed
    assert evidence.peak >= evidence.value


def test_evidence_that_was_lost_again_has_still_been_reached() -> None:
    evidence = for_sign().update_all([1.0] * 20).update_all([-1.0] * 40)
    assert evidence.value < 1
    assert evidence.reached(0.05)


def test_an_update_leaves_the_old_state_as_it_was() -> None:
    fresh = for_promotion(0.02)
    fresh.update(0.5)
    assert fresh.value == 1.0
    assert fresh.count == 0


def test_wealth_beyond_a_float_is_infinite_not_an_error() -> None:
    assert for_sign().update_all([1.0] * 5000).value == math.inf


@pytest.mark.parametrize("margin", [-0.1, 1.0, 1.5])
def test_a_margin_that_no_bet_can_stand_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        for_promotion(margin)


def test_a_candidate_at_the_margin_is_promoted_no_more_often_than_the_risk() -> None:
    """On the boundary, looking after every outcome: P(E ever >= 20) <= 0.05 (Ville)."""
    rng, margin, false = random.Random(1), 0.1, 0
    for _ in range(300):
        evidence = for_promotion(margin)
        for _ in range(300):
            # worse by exactly the margin: P(D = 1) - P(D = -1) = 0.1
            draw = rng.random()
            evidence = evidence.update(margin - (1 if draw < 0.2 else -1 if draw < 0.3 else 0))
        false += evidence.reached(0.05)
    assert false / 300 <= 0.05


def test_a_better_candidate_is_found() -> None:
    rng, evidence = random.Random(2), for_promotion(0.02)
    for _ in range(400):
        evidence = evidence.update(0.02 - (rng.random() < 0.05) + (rng.random() < 0.30))
    assert evidence.reached(0.05)


def test_a_mixture_survives_the_round_trip_through_json() -> None:
    import msgspec

    evidence = for_promotion(0.02).update_all([0.3, -0.2])
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=Mixture) == evidence
