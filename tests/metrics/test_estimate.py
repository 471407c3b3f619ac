"""The estimate without labels: right where confidences mean what they meant, refused where they do not."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tidemill.metrics.estimate import (
    FEWEST_WINDOWS,
    LEAST_LABELS,
    REACH,
    WINDOWS,
    Backtest,
    Calibration,
    Scored,
    backtest,
    calibrated,
)

LENGTH = 1000


def answers(count: int = 30_000, *, windows: int = 30, seed: int = 1, overconfident: float = 2.0) -> Scored:
    """Answers of two classes, wrong with probability 0.4 (1 - confidence) and half of that; labels half a window later.

    `confidence` is stretched, so that it has to be calibrated.
    """
    rng = np.random.default_rng(seed)
    sure = rng.random(count)
    classes = rng.integers(0, 2, count)
    wrong = rng.random(count) < 0.4 * (1 - sure) * np.where(classes == 0, 1.0, 0.5)
    times = np.arange(count) * LENGTH * windows // count
    return Scored(times, classes, sure ** (1 / overconfident), wrong.astype(float), np.ones(count), times + LENGTH // 2)


def held(one: Scored) -> Backtest:
    end = int(one.times[-1])
    return backtest(one, end=end, length=LENGTH, mature=end - LENGTH // 2)


def test_the_probability_of_an_error_is_that_of_its_class_and_confidence() -> None:
    known = answers()
    new = answers(seed=2)
    expected = Calibration(known).expected(new)
    for name in (0, 1):
        for low in (0.3, 0.6, 0.9):
            rows = (new.classes == name) & (new.confidences >= low) & (new.confidences < low + 0.1)
            assert expected[rows].mean() == pytest.approx(new.wrong[rows].mean(), abs=0.04)
    assert 1 - expected.mean() == pytest.approx(accuracy_score(np.zeros(30_000), new.wrong), abs=0.01)


def test_inputs_that_are_more_difficult_are_seen_by_their_confidences() -> None:
    known, new = answers(), answers(seed=2)
    difficult = new.where(new.confidences < 0.6)
    assert difficult.wrong.mean() > 1.3 * known.wrong.mean()
    assert Calibration(known).expected(difficult).mean() == pytest.approx(difficult.wrong.mean(), abs=0.02)


def test_a_class_that_was_never_answered_is_like_all() -> None:
    known = answers(2000)
    other = replace(known, classes=np.full(2000, 9))
    assert Calibration(known).expected(other).mean() == pytest.approx(known.wrong.mean(), abs=0.01)


def test_answers_without_a_confidence_have_the_error_of_those_without_one() -> None:
    known = answers(3000)
    known.confidences[:1000] = np.nan
    known.wrong[:1000] = 1.0
    expected = Calibration(known).expected(known)
    assert expected[:1000].mean() == pytest.approx(1.0, abs=0.01)
    assert expected[1000:].mean() == pytest.approx(known.wrong[1000:].mean(), abs=0.02)


def test_labels_count_by_their_probability() -> None:
    known = answers()
    rng = np.random.default_rng(4)
    chance = np.where(known.wrong > 0, 1.0, 0.2)
    labelled = rng.random(30_000) < chance
    biased = replace(known, weights=np.where(labelled, 1 / chance, 0.0))
    seen = Calibration(biased.where(biased.labelled))
    assert seen.mean == pytest.approx(known.wrong.mean(), abs=0.01)
    assert biased.wrong[labelled].mean() > 2 * known.wrong.mean()


def test_past_windows_are_judged_with_the_labels_that_were_known_at_their_end() -> None:
    late = answers()
    late.known_at[:] = late.times[-1]
    assert not held(late).off
    assert (held(late).refusal or "").startswith("0 past windows have labels enough")
    end = 10 * LENGTH
    now = calibrated(answers(), known_by=end, since=end - REACH * LENGTH)
    assert now is not None
    assert 9500 <= now.labels <= 9501  # those of the last half window were not known yet
    assert calibrated(answers(), known_by=LENGTH // 2 + LENGTH // 10, since=-1) is None
    assert LEAST_LABELS == 200


def test_where_confidences_mean_what_they_meant_the_backtest_is_close() -> None:
    found = held(answers())
    assert len(found.off) == WINDOWS
    assert found.refusal is None
    assert found.largest < 0.03
    assert found.typical <= found.largest


def test_where_what_is_true_has_changed_nothing_is_estimated() -> None:
    changed = answers()
    rng = np.random.default_rng(6)
    after = changed.times > 26 * LENGTH
    changed.wrong[after] = (rng.random(int(after.sum())) < 0.5).astype(float)
    found = held(changed)
    assert found.largest > 0.3
    assert "what confidences mean has changed" in (found.refusal or "")


def test_with_few_labels_nothing_is_estimated() -> None:
    few = answers(600, windows=30)
    assert len(held(few).off) < FEWEST_WINDOWS
    assert "past windows have labels enough" in (held(few).refusal or "")


def test_windows_in_which_chance_alone_does_as_much_are_told_from_a_change() -> None:
    few = answers(1500, windows=30)
    found = held(few)
    assert found.largest > 0.1
    assert "may be chance" in (found.refusal or "")
