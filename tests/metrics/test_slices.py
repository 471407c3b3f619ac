"""The search for slices: what is planted is found, what it says is of the other half, and nothing else is named."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.metrics.conditions import BINS, MOST_VALUES, Coded, Feature, coded
from tidemill.metrics.gaps import Group, gap_of
from tidemill.metrics.slices import Losses, Search, find, holm
from tidemill.stats.confidence import Interval

RNG = np.random.default_rng(11)


def numbers(values: Sequence[float], reference: Sequence[bool] | None = None) -> Coded | None:
    rows = np.ones(len(values), bool) if reference is None else np.array(reference)
    return coded(Feature("x", np.array(values, float)), rows)


def words(values: Sequence[int], names: Sequence[str]) -> Coded | None:
    return coded(Feature("w", np.array(values), names), np.ones(len(values), bool))


class Case:
    """Outcomes of three numbers and a word; some of them worse."""

    def __init__(self, count: int = 12_000, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.numbers = rng.random((3, count))
        self.sites = rng.integers(0, 4, count)
        self.risk = np.full(count, 0.05)
        self.rng = rng

    def search(self, weights: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None) -> Search:
        count = len(self.risk)
        blocks = np.arange(count) * 40 // count
        losses = Losses(
            (self.rng.random(count) < self.risk).astype(float),
            np.ones(count) if weights is None else weights,
            blocks,
            40,
            blocks % 2 == 0,
        )
        features = [Feature(name, values) for name, values in zip("abc", self.numbers, strict=True)]
        all_of = [*features, Feature("site", self.sites, ("A", "B", "C", "D"))]
        return find([one for feature in all_of if (one := coded(feature, losses.searched))], losses)


def test_a_number_is_cut_into_bins_with_equally_many_outcomes() -> None:
    found = numbers(list(RNG.random(800)))
    assert found is not None
    assert np.bincount(found.codes).tolist() == [100] * BINS
    below = [place for place, one in enumerate(found.conditions) if one.op == "<"]
    assert [int(found.holds(place).sum()) for place in below] == [100 * place for place in range(1, BINS)]
    above = [place for place, one in enumerate(found.conditions) if one.op == ">="]
    assert (found.holds(below[2]) == ~found.holds(above[2])).all()


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32) | st.just(0.0), min_size=1, max_size=60))
def test_a_condition_holds_of_what_it_says(values: list[float]) -> None:
    found = numbers(values)
    for place, one in enumerate(found.conditions if found else ()):
        for value, holds in zip(values, found.holds(place) if found else (), strict=True):
            if one.op == "missing":
                assert holds == (not np.isfinite(value))
            elif one.op == "=":
                assert holds == (value == float(str(one.value)))
            elif not np.isfinite(value):
                assert not holds
            else:
                edge = one.value
                assert isinstance(edge, float)
                assert holds == (value < edge if one.op == "<" else value >= edge)


def test_a_category_has_its_commonest_values_and_what_is_missing() -> None:
    names = [f"v{place:02d}" for place in range(30)]
    values = [place for place in range(30) for _ in range(30 - place)] + [-1]
    found = words(values, names)
    assert found is not None
    assert [one.value for one in found.conditions] == [*names[:MOST_VALUES], None]
    assert [int(found.holds(place).sum()) for place in range(MOST_VALUES)] == [
        30 - place for place in range(MOST_VALUES)
    ]
    assert str(found.conditions[-1]) == "w is missing"


def test_what_is_the_same_for_all_has_no_conditions() -> None:
    assert numbers([2.0] * 9) is None
    assert numbers([float("nan")] * 9) is None
    assert words([0, 0, 0], ["only"]) is None


def test_a_few_numbers_are_a_category() -> None:
    found = numbers([1.0, 2.0, 2.0, 3.0])
    assert found is not None
    assert [str(one) for one in found.conditions] == ["x=2", "x=1", "x=3"]


def test_a_pair_is_found_with_its_own_bounds_and_what_it_has_explained_is_not_named_again() -> None:
    case = Case()
    is_bad = (case.sites == 1) & (case.numbers[0] < 0.375)
    case.risk[is_bad] = 0.4
    found = case.search().found
    (first,) = found
    assert first.name == f"{first.conditions[0]} and site=B"
    assert (first.conditions[0].feature, first.conditions[0].op) == ("a", "<")
    assert first.conditions[0].value == pytest.approx(0.375, abs=0.02)
    assert first.interval.low < 0.4 < first.interval.high
    assert first.elsewhere == pytest.approx(0.05, abs=0.01)


def test_a_part_that_is_bad_as_a_whole_is_named_alone() -> None:
    case = Case()
    case.risk[case.sites == 2] = 0.3
    assert [one.name for one in case.search().found] == ["site=C"]


def test_an_interval_of_one_number_is_a_pair_of_its_conditions() -> None:
    case = Case()
    case.risk[(case.numbers[1] >= 0.5) & (case.numbers[1] < 0.75)] = 0.3
    (first,) = case.search().found
    assert [(one.feature, one.op) for one in first.conditions] in ([("b", "<"), ("b", ">=")], [("b", ">="), ("b", "<")])


def test_two_slices_are_found_the_worse_first() -> None:
    case = Case()
    case.risk[case.numbers[2] >= 0.75] = 0.2
    case.risk[case.sites == 3] = 0.5
    assert [one.conditions[0].feature for one in case.search().found] == ["site", "c"]


def test_nothing_is_found_where_nothing_is_worse() -> None:
    found = sum(bool(Case(4000, seed).search().found) for seed in range(30))
    assert found <= 5  # 5 % of 30, and 2.9 standard errors


def test_a_slice_with_too_few_outcomes_is_not_looked_at() -> None:
    case = Case(2000)
    case.sites[:] = 0
    case.sites[::50] = 1
    case.risk[case.sites == 1] = 1.0
    assert case.search().tested == () or "site=B" not in [one.name for one in case.search().tested]


def test_labels_with_a_probability_count_by_it() -> None:
    """In site B labels were asked for where answers were wrong; weighted, it is as good as any."""
    case = Case(40_000)
    rng = np.random.default_rng(5)
    wrong = rng.random(40_000) < 0.1
    chance = np.where((case.sites == 1) & wrong, 1.0, 0.2)
    labelled = rng.random(40_000) < chance
    case.risk = wrong.astype(float)
    naive = case.search(labelled.astype(float))
    assert [one.name for one in naive.found] == ["site=B"]
    assert case.search(np.where(labelled, 1 / chance, 0.0)).found == ()


def test_holm_s_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def group(name: str, mean: float | None, low: float, high: float, *, is_judged: bool = True) -> Group:
    return Group(name, 100, 100, mean, Interval(low, high), is_judged)


def test_a_gap_is_between_the_groups_that_are_judged_and_its_interval_allows_for_the_choice() -> None:
    groups = [
        group("a", 0.1, 0.05, 0.15),
        group("b", 0.3, 0.25, 0.35),
        group("c", 0.2, 0.1, 0.4),
        group("d", 0.9, 0, 1, is_judged=False),
    ]
    found = gap_of(groups)
    assert found is not None
    assert (found.largest, found.smallest) == ("b", "a")
    assert (found.difference, *found.interval) == pytest.approx((0.2, 0.1, 0.35))
    assert gap_of(groups[2:]) is None


def test_groups_that_may_be_alike_have_a_gap_that_may_be_none() -> None:
    found = gap_of([group("a", 0.1, 0.0, 0.3), group("b", 0.2, 0.1, 0.4)])
    assert found is not None
    assert tuple(found.interval) == pytest.approx((0.0, 0.4))


def customers(seed: int, *, apart: bool) -> Search:
    """Customers with errors of their own, and features that stay the same for a customer: nothing is worse by them.

    `apart`: each outcome is its own cluster, as if it were a witness of its own.
    """
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 80, 4000)
    risk = np.minimum(0.1 * np.exp(rng.normal(0, 0.8, 80)), 0.9)[owner]
    half = rng.random(80) < 0.5
    wrong, ones = (rng.random(4000) < risk).astype(float), np.ones(4000)
    losses = (
        Losses(wrong, ones, np.arange(4000), 4000, rng.random(4000) < 0.5)
        if apart
        else Losses(wrong, ones, owner, 80, half[owner])
    )
    features = [Feature(name, rng.normal(size=80)[owner]) for name in "abc"]
    return find([one for feature in features if (one := coded(feature, losses.searched))], losses)


def test_customers_with_errors_of_their_own_make_no_slice() -> None:
    assert sum(bool(customers(seed, apart=False).found) for seed in range(25)) <= 4
    assert sum(bool(customers(seed, apart=True).found) for seed in range(6)) >= 5  # what this guards against
