"""How far observed means may be from the truth: what is promised is kept, and near 0 and 1 it is narrow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.stats.radius import distribution_radius, mean_radius, values_needed


def test_the_distribution_is_as_wide_as_massart_says() -> None:
    assert distribution_radius(450, 0.01 / 5) == pytest.approx(np.sqrt(np.log(1000) / 900))


@given(st.floats(0, 1), st.integers(1, 100_000), st.floats(1e-6, 0.5))
def test_a_mean_is_never_wider_than_a_distribution(observed: float, values: int, risk: float) -> None:
    found = mean_radius(np.array([observed]), values, risk)[0]
    assert 0 < found <= distribution_radius(values, risk) + 1e-9


def test_a_mean_of_nothing_but_misses_is_known_well() -> None:
    assert mean_radius(np.array([0.0, 1.0]), 450, 0.002) == pytest.approx([1 - 0.001 ** (1 / 450)] * 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0.01, 0.4), st.floats(1e-5, 0.1))
def test_so_many_values_suffice_and_fewer_do_not(observed: list[float], within: float, risk: float) -> None:
    needed = values_needed(np.array(observed), within, risk)
    assert mean_radius(np.array(observed), needed * 1.001, risk).max() <= within + 1e-6
    assert mean_radius(np.array(observed), needed * 0.9, risk).max() >= within - 1e-6


@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5, 0.97])
def test_the_truth_is_outside_no_more_often_than_promised(mean: float) -> None:
    rng = np.random.default_rng(7)
    observed = rng.binomial(300, mean, 20_000) / 300
    outside = np.abs(observed - mean) > mean_radius(observed, 300, 0.05)
    assert outside.mean() <= 0.05
