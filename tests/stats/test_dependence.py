"""Tau: near 1 on independent votes, not below the truth on dependent ones, and open about what it cannot see."""

import numpy as np
import numpy.typing as npt
import pytest

from tidemill.stats.dependence import Dependence, measure_dependence

Floats = npt.NDArray[np.float64]


def measured(values: Floats) -> Dependence:
    """Tau of votes by tick and entity (T, n), at 15 quantiles."""
    edges = np.quantile(values, np.arange(1, 16) / 16, method="inverted_cdf")
    below = (values[:, :, None] <= edges).sum(axis=1).astype(np.float64)
    return measure_dependence(below, np.full(len(values), float(values.shape[1])))


def ar1(rng: np.random.Generator, ticks: int, entities: int, rho: float) -> Floats:
    values = rng.standard_normal((ticks, entities))
    for tick in range(1, ticks):
        values[tick] = rho * values[tick - 1] + np.sqrt(1 - rho**2) * values[tick]
    return values


def true_tau(rho: float) -> float:
    """Of the indicator at the median, the most dependent edge: 1 + 2 sum of (2 / pi) asin(rho^k)."""
    return float(1 + 2 * (2 / np.pi * np.arcsin(rho ** np.arange(1.0, 500.0))).sum())


def test_independent_votes_of_a_small_reference_give_a_tau_near_one() -> None:
    rng = np.random.default_rng(1)
    taus = [measured(rng.standard_normal((240, 3))).tau for _ in range(200)]
    assert np.mean(taus) < 1.08
    assert np.quantile(taus, 0.9) < 1.15
    assert min(taus) >= 1


@pytest.mark.parametrize(("rho", "ticks"), [(0.5, 240), (0.5, 1_000), (0.9, 1_500)])
def test_tau_is_not_below_the_truth_on_average_and_g_practically_never(rho: float, ticks: int) -> None:
    rng = np.random.default_rng(2)
    found = [measured(ar1(rng, ticks, 3, rho)) for _ in range(150)]
    taus = np.array([dependence.tau for dependence in found])
    assert taus.mean() > true_tau(rho)
    assert np.mean(2 * taus < true_tau(rho)) < 0.03
    assert taus.mean() < 1.5 * true_tau(rho)


def test_copies_within_a_tick_count_as_one_vote() -> None:
    rng = np.random.default_rng(3)
    found = measured(np.repeat(rng.standard_normal((500, 1)), 5, axis=1))
    assert found.tau >= 5


def test_entities_that_differ_are_not_dependent() -> None:
    rng = np.random.default_rng(4)
    assert measured(rng.standard_normal((240, 3)) + np.array([-2.0, 0.0, 2.0])).tau == 1


@pytest.mark.parametrize("rho", [0.9, 0.97])
def test_a_reference_that_is_too_short_for_its_memory_says_so(rho: float) -> None:
    rng = np.random.default_rng(5)
    found = [measured(ar1(rng, 240, 3, rho)) for _ in range(60)]
    assert np.mean([dependence.grows or not dependence.long_enough for dependence in found]) > 0.97


def test_a_random_walk_still_grows() -> None:
    rng = np.random.default_rng(6)
    assert all(measured(rng.standard_normal((1_000, 3)).cumsum(axis=0)).grows for _ in range(20))


def test_a_level_that_moved_within_the_reference_still_grows() -> None:
    rng = np.random.default_rng(7)
    assert measured(rng.standard_normal((400, 3)) + 1.0 * (np.arange(400)[:, None] > 200)).grows


@pytest.mark.parametrize("ticks", [0, 1, 31])
def test_a_reference_of_few_ticks_is_never_long_enough(ticks: int) -> None:
    found = measure_dependence(np.ones((ticks, 3)), np.full(ticks, 2.0))
    assert (found.tau, found.long_enough) == (1.0, False)


def test_a_constant_feature_has_no_dependence() -> None:
    found = measure_dependence(np.full((100, 1), 3.0), np.full(100, 3.0))
    assert found == Dependence(tau=1.0, ticks=100, grows=False)


def test_a_season_is_not_memory_where_it_is_removed() -> None:
    rng = np.random.default_rng(8)
    hours = np.arange(20 * 48) // 2
    values = rng.standard_normal((len(hours), 20)) + np.sin(2 * np.pi * hours / 24)[:, None]
    edges = np.quantile(values, np.arange(1, 16) / 16)
    below, votes = (values[:, :, None] <= edges).sum(axis=1).astype(np.float64), np.full(len(hours), 20.0)
    assert measure_dependence(below, votes).tau > 20
    removed = measure_dependence(below, votes, hours % 24)
    assert removed.tau < 1.5
    assert not removed.grows


def test_removing_a_season_that_is_not_there_leaves_dependence_as_it_is() -> None:
    rng = np.random.default_rng(9)
    hours = np.arange(20 * 48) // 2
    for rho, low, high in ((0.0, 1.0, 1.3), (0.5, 1.8, 4.0)):
        values = ar1(rng, len(hours), 3, rho)
        edges = np.quantile(values, np.arange(1, 16) / 16)
        below = (values[:, :, None] <= edges).sum(axis=1).astype(np.float64)
        assert low <= measure_dependence(below, np.full(len(hours), 3.0), hours % 24).tau < high


def test_ticks_that_all_have_the_same_share_are_not_dependent() -> None:
    found = measure_dependence(np.ones((100, 2)), np.full(100, 2.0))  # one entity always below, one always above
    assert (found.tau, found.grows) == (1.0, False)
