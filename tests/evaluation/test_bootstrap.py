"""Bounds of a mean from the sample alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.evaluation.bootstrap import mean_bounds, paired_difference

losses = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_mean_lies_in_the_hull_of_its_values_and_the_bounds_are_ordered(values: list[float]) -> None:
    bounds = mean_bounds(values, resamples=200)
    assert min(values) - 1e-9 <= bounds.lower <= bounds.upper <= max(values) + 1e-9
    assert bounds.mean == pytest.approx(sum(values) / len(values))


@given(losses, losses)
def test_swapping_the_sides_mirrors_the_difference(first: list[float], second: list[float]) -> None:
    pairs = list(zip(first, second, strict=False))
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    forth, back = paired_difference(one, other), paired_difference(other, one)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.lower == pytest.approx(-back.upper, abs=0.05)


@given(losses)
def test_the_same_losses_differ_by_nothing(values: list[float]) -> None:
    bounds = paired_difference(values, values)
    assert (bounds.mean, bounds.lower, bounds.upper) == (0, 0, 0)


def test_the_same_sample_gives_the_same_bounds() -> None:
    values = np.random.default_rng(1).random(200)
    assert mean_bounds(values) == mean_bounds(values)


def test_multinomial_counts_are_the_bootstrap_of_rows() -> None:
    """Against resampling the rows one by one, as the method is usually written."""
    rng = np.random.default_rng(2)
    sample = rng.choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.7, 0.2])
    rows = rng.choice(sample, size=(10_000, sample.size)).mean(axis=1)
    assert mean_bounds(sample).lower == pytest.approx(np.quantile(rows, 0.05), abs=0.005)
    assert mean_bounds(sample).upper == pytest.approx(np.quantile(rows, 0.95), abs=0.005)


def test_the_one_sided_bound_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = sum(mean_bounds(rng.random(200) < 0.2, resamples=1000, seed=i).lower <= 0.2 for i in range(400))
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 1.0], [[1.0]]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInput):
        mean_bounds(values)


def test_unequal_sides_are_no_pairs() -> None:
    with pytest.raises(InvalidInput, match="2 and 1"):
        paired_difference([0.0, 1.0], [0.0])
