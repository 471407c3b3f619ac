"""Means of clustered outcomes: what a cluster is worth, and that intervals hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from tidemill.stats.clustered import Clustered, cluster_sums, clustered_mean, contrast


def mean_of(values: list[float], clusters: list[int] | None = None, weights: list[float] | None = None) -> Clustered:
    places = np.arange(len(values)) if clusters is None else np.array(clusters)
    weight = np.ones(len(values)) if weights is None else np.array(weights)
    return clustered_mean(np.array(values, float), weight, places, int(places.max()) + 1)


def test_of_single_outcomes_the_variance_is_that_of_a_mean() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert mean_of(values).variance == pytest.approx(np.var(values, ddof=1) / 5)
    assert (mean_of(values).effective, mean_of(values).units) == (5, 5)


def test_copies_within_a_cluster_say_nothing_new() -> None:
    once = mean_of([0.0, 1.0, 1.0, 0.0])
    copied = mean_of([0.0, 1.0, 1.0, 0.0] * 3, clusters=[0, 1, 2, 3] * 3)
    assert copied.variance == pytest.approx(once.variance)
    assert (copied.count, copied.units) == (12, 4)


def test_a_large_cluster_beside_small_ones_counts_little_more_than_itself() -> None:
    found = mean_of([0.0, 1.0] * 100 + [1.0] * 10, clusters=[0] * 200 + list(range(1, 11)))
    assert found.units == pytest.approx(210**2 / (200**2 + 10))


def test_a_weight_of_two_is_two_outcomes_of_one_cluster() -> None:
    weighted = mean_of([0.0, 1.0, 1.0], weights=[1.0, 2.0, 1.0])
    doubled = mean_of([0.0, 1.0, 1.0, 1.0], clusters=[0, 1, 1, 2])
    assert (weighted.mean, weighted.variance) == pytest.approx((doubled.mean, doubled.variance))


def test_of_independent_outcomes_the_interval_is_clopper_and_pearson_s() -> None:
    found = mean_of([1.0] * 12 + [0.0] * 188).interval(0.05)
    # The estimated variance has 199 in its denominator: the effective number is one less.
    own = reference.binomtest(12, 200).proportion_ci(method="exact")
    assert found.low == pytest.approx(own.low, abs=1e-3)
    assert found.high == pytest.approx(own.high, abs=1e-3)


def test_without_an_error_the_interval_still_has_a_width() -> None:
    found = mean_of([0.0] * 50)
    assert tuple(found.interval(0.05)) == pytest.approx((0.0, 1 - 0.025 ** (1 / 50)))


def test_a_difference_over_shared_clusters_knows_what_they_share() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(200), 20)
    shared = rng.normal(0, 0.2, 200)[clusters]
    inside = rng.random(4000) < 0.5
    values = np.clip(0.5 + shared + rng.normal(0, 0.05, 4000), 0, 1)
    parts = [clustered_mean(values[rows], np.ones(rows.sum()), clusters[rows], 200) for rows in (inside, ~inside)]
    found = contrast(parts[0], parts[1])
    apart = (parts[0].variance + parts[1].variance) ** 0.5
    assert found.error < apart / 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0.1, 20), st.integers(0, 5)), min_size=2))
def test_the_rest_is_all_without_a_part(rows: list[tuple[bool, float, float, int]]) -> None:
    inside, values, weights, clusters = (np.array(column) for column in zip(*rows, strict=True))
    if inside.all() or not inside.any():
        return
    whole = cluster_sums(values, weights, clusters, 6)
    part = cluster_sums(values[inside], weights[inside], clusters[inside], 6)
    rest, own = (whole - part).mean(), clustered_mean(values[~inside], weights[~inside], clusters[~inside], 6)
    assert (rest.count, rest.mean) == pytest.approx((own.count, own.mean))
    assert (rest.effective, rest.units) == pytest.approx((own.effective, own.units))
    assert rest.influence == pytest.approx(own.influence, abs=1e-9)
    assert rest.spread == pytest.approx(own.spread, abs=1e-9)


def test_few_clusters_are_never_sure() -> None:
    inside = mean_of([1.0, 1.0, 1.0], clusters=[0, 0, 0])
    outside = clustered_mean(np.zeros(3), np.ones(3), np.array([0, 0, 0]), 1)
    assert contrast(inside, outside).p == 1.0
    assert inside.interval(0.05) == (0.0, 1.0)


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="an outcome with a weight"):
        clustered_mean(np.zeros(2), np.zeros(2), np.zeros(2, np.int64), 1)


def test_intervals_of_clustered_outcomes_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(400):
        rates = np.repeat(rng.beta(1, 9, 40), 25)
        found = clustered_mean(
            (rng.random(1000) < rates).astype(float), np.ones(1000), np.repeat(np.arange(40), 25), 40
        )
        low, high = found.interval(0.05)
        missed += not low <= 0.1 <= high
    assert missed / 400 < 0.08
