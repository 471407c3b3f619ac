"""Fairness gaps against scikit-learn's rates and figures computed by hand."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from tidemill.metrics.fairness import Answers, fairness
from tidemill.metrics.gaps import Gap

RNG = np.random.default_rng(5)
GROUPS = RNG.integers(0, 3, 3000)
TRUTH = RNG.random(3000) < 0.2 + 0.1 * GROUPS
ANSWER = np.where(TRUTH, RNG.random(3000) < 0.9 - 0.1 * GROUPS, RNG.random(3000) < 0.1 + 0.05 * GROUPS)


def answers(
    known: npt.NDArray[np.bool_] | None = None, weights: npt.NDArray[np.float64] | None = None, rows: int = 3000
) -> Answers:
    return Answers(
        answer=ANSWER[:rows],
        truth=TRUTH[:rows],
        is_known=np.ones(rows, bool) if known is None else known,
        weights=np.ones(rows) if weights is None else weights,
        groups=GROUPS[:rows],
        names=("a", "b", "c"),
        clusters=np.arange(rows),
        count=rows,
    )


def difference(gap: Gap | None) -> float:
    assert gap is not None
    assert gap.interval.low <= gap.difference <= gap.interval.high
    return gap.difference


def spread(values: list[float]) -> float:
    return max(values) - min(values)


def test_the_gaps_are_those_of_scikit_learn_s_rates() -> None:
    parts = [(TRUTH[group == GROUPS], ANSWER[group == GROUPS]) for group in range(3)]
    found = fairness(answers())
    assert difference(found.demographic_parity.gap) == pytest.approx(spread([float(said.mean()) for _, said in parts]))
    true = spread([float(recall_score(*part)) for part in parts])
    assert difference(found.equal_opportunity.gap) == pytest.approx(true)
    counts = [confusion_matrix(*part).ravel() for part in parts]
    false = spread([float(fp / (fp + tn)) for tn, fp, _, _ in counts])
    assert difference(found.false_positives.gap) == pytest.approx(false)
    assert difference(found.equalised_odds) == pytest.approx(max(true, false))
    right = spread([float(precision_score(*part)) for part in parts])
    assert difference(found.predictive_parity.gap) == pytest.approx(right)


def test_by_hand() -> None:
    said = np.array([1, 1, 0, 0] * 10 + [1, 0, 0, 0] * 10, bool)
    true = np.array([1, 0, 1, 0] * 10 + [1, 1, 0, 0] * 10, bool)
    groups = np.repeat([0, 1], 40)
    one = Answers(said, true, np.ones(80, bool), np.ones(80), groups, ("x", "y"), np.arange(80), 80)
    found = fairness(one)
    assert [group.mean for group in found.demographic_parity.groups] == [0.5, 0.25]
    assert [group.mean for group in found.equal_opportunity.groups] == [0.5, 0.5]
    assert [group.mean for group in found.false_positives.groups] == [0.5, 0.0]
    assert [group.mean for group in found.predictive_parity.groups] == [0.5, 1.0]
    assert difference(found.demographic_parity.gap) == 0.25
    assert found.equal_opportunity.gap is None  # of 20 labels each nothing is judged
    assert found.equalised_odds is None


def test_labels_count_by_their_probability() -> None:
    chance = np.where(TRUTH & ANSWER, 1.0, 0.5)  # those found are labelled more often
    known = np.random.default_rng(8).random(3000) < chance
    found = fairness(answers(known, np.where(known, 1 / chance, 0.0)))
    for group in range(3):
        mine = group == GROUPS
        recall = float(recall_score(TRUTH[mine], ANSWER[mine]))
        seen = found.equal_opportunity.groups[group]
        assert seen.interval.low < recall < seen.interval.high
        assert seen.mean == pytest.approx(recall, abs=0.08)


def test_a_label_that_is_still_to_come_moves_the_ends_as_far_as_it_could() -> None:
    known = np.arange(3000) % 10 > 0
    complete, now = fairness(answers()), fairness(answers(known))
    for name in ("equal_opportunity", "false_positives", "predictive_parity"):
        for before, after in zip(getattr(complete, name).groups, getattr(now, name).groups, strict=True):
            assert after.interval.low < before.mean < after.interval.high
            assert after.interval.width > before.interval.width + 0.03
    (same, other) = (one.demographic_parity.groups for one in (complete, now))
    assert same == other


@pytest.mark.slow
def test_the_interval_of_a_gap_holds_the_truth() -> None:
    missed, rates = 0, np.array([0.1, 0.15, 0.2])
    for _ in range(200):
        groups = RNG.integers(0, 3, 600)
        said = RNG.random(600) < rates[groups]
        everything = np.ones(600)
        one = Answers(said, said, everything > 0, everything, groups, ("a", "b", "c"), np.arange(600), 600)
        gap = fairness(one).demographic_parity.gap
        assert gap is not None
        missed += not gap.interval.low <= 0.1 <= gap.interval.high
    assert missed <= 10


def test_a_group_without_a_case_has_no_rate() -> None:
    found = fairness(
        Answers(
            *(np.zeros(50, bool),) * 2,
            np.ones(50, bool),
            np.ones(50),
            np.zeros(50, np.int64),
            ("a",),
            np.arange(50),
            50,
        )
    )
    assert found.equal_opportunity.groups[0].mean is None
    assert found.demographic_parity.gap is None
