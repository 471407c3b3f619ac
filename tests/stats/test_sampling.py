"""The interval of a mean from labels that were chosen: it holds what it promises, and is not fooled by the choice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.stats.confidence import BoundedMean, Interval
from tidemill.stats.sampling import SampledMean

NAN = math.nan


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 59))
def test_it_is_the_same_in_any_order_and_however_the_stream_is_cut(values: list[float], cut: int) -> None:
    whole, parts = BoundedMean(), BoundedMean()
    whole.update(np.array(values))
    parts.update(np.array(values[cut:]))
    parts.update(np.array(values[:cut]))
    assert parts.interval() == pytest.approx(whole.interval(), abs=1e-5)
    assert parts.count == whole.count == len(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_mean_that_was_observed_is_in_the_interval(values: list[float]) -> None:
    found = BoundedMean()
    found.update(np.array(values))
    low, high = found.interval()
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9


def test_a_mean_that_moves_does_not_leave_the_interval_behind() -> None:
    found = BoundedMean()
    found.update(np.array([0.0] * 700 + [1.0] * 50 + [0.0] * 250))
    assert found.interval().low < 0.05 < found.interval().high


@given(st.floats(-0.5, 1e6))
def test_the_capital_is_bounded_from_below_by_its_powers(x: float) -> None:
    assert math.log1p(x) >= x - x**2 / 2 + x**3 / 3 - 0.424 * x**4 - 1e-12


def test_nothing_is_known_before_the_first_observation() -> None:
    assert BoundedMean().interval() == (0.0, 1.0)
    assert SampledMean(0.1).estimate().interval == (0.0, 1.0)
    assert SampledMean(0.1).estimate().mean is None


def test_the_interval_closes_in_on_the_mean() -> None:
    found = BoundedMean()
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(4):
        found.update((rng.random(2500) < 0.2).astype(float))
        low, high = found.interval()
        assert low <= 0.2 <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.05


@pytest.mark.slow
def test_the_capital_at_the_truth_is_no_larger_than_chance_allows() -> None:
    missed = 0
    for seed in range(200):
        rng, found = np.random.default_rng(seed), BoundedMean(risk=0.2)
        ever = False
        for _ in range(20):
            found.update((rng.random(20) < 0.3).astype(float))
            low, high = found.interval()
            ever |= not low <= 0.3 <= high
        missed += ever
    assert missed / 200 <= 0.2  # the seeds are fixed: this is a figure, not a chance


def test_an_observation_outside_the_range_is_refused() -> None:
    for value in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match="outside the range"):
            BoundedMean().update(np.array([value]))
    with pytest.raises(ValueError, match="need low < high"):
        BoundedMean(1.0, 1.0)


def chosen(seed: int, count: int = 20_000) -> tuple[SampledMean, float]:
    """Errors where the model is not sure, and labels mostly there; the estimate, and the naive mean."""
    rng = np.random.default_rng(seed)
    sure = rng.random(count)
    errs = (rng.random(count) < 0.2 * (1 - sure)).astype(float)
    probability = np.where(sure < 0.3, 0.6, 0.1)
    labelled = rng.random(count) < probability
    found = SampledMean(0.1)
    found.update(np.where(labelled, errs, NAN), probability)
    return found, float(errs[labelled].mean())


def test_labels_of_the_difficult_ones_do_not_move_the_estimate() -> None:
    for seed in range(5):
        found, naive = chosen(seed)
        estimate = found.estimate()
        assert estimate.interval.low <= 0.1 <= estimate.interval.high
        assert estimate.mean == pytest.approx(0.1, abs=0.015)
        assert naive > 0.125
        assert estimate.interval.width < 0.1


def test_labels_of_unknown_probability_are_not_in_the_estimate() -> None:
    rng = np.random.default_rng(3)
    losses, probability = np.full(4000, NAN), np.full(4000, NAN)
    control = rng.random(4000) < 0.2
    losses[control], probability[control] = 0.0, 0.2
    losses[~control & (rng.random(4000) < 0.5)] = 1.0  # people complain of errors
    found = SampledMean(0.2)
    found.update(losses, probability)
    estimate = found.estimate()
    assert estimate.volunteered > 1000
    assert estimate.labelled == control.sum()
    assert estimate.interval.low == pytest.approx(0.0, abs=0.05)


def test_where_all_are_labelled_it_is_the_mean_of_the_labels() -> None:
    losses = (np.random.default_rng(2).random(3000) < 0.3).astype(float)
    found, plain = SampledMean(1.0), BoundedMean()
    found.update(losses, np.ones(3000))
    plain.update(losses)
    assert found.estimate().mean == pytest.approx(losses.mean())
    assert found.estimate().interval == plain.interval()


def test_what_is_lost_moves_both_ends() -> None:
    found, _ = chosen(1)
    sure, unsure = found.estimate().interval, found.estimate(lost=2000).interval
    assert unsure == Interval(max(0.0, sure.low - 2 / 22), sure.high + 2 / 22)
    assert found.estimate(lost=10**9).interval == (0.0, 1.0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="least probability"):
        SampledMean(0.0)
    with pytest.raises(ValueError, match=r"below 0\.1"):
        SampledMean(0.1).update(np.array([1.0]), np.array([0.05]))
    with pytest.raises(ValueError, match="outside"):
        SampledMean(0.1).update(np.array([2.0]), np.array([0.5]))
    SampledMean(0.1).update(np.array([NAN]), np.array([0.0]))  # an outcome without label: its probability is not asked
