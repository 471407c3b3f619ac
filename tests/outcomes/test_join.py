"""Outcomes of one prediction as a pure function of what stands in the log."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.records import Outcome, Prediction
from tidemill.labels.words import judged_field
from tidemill.outcomes.join import Heard, Indexed, Rule, Terms, Truth, index, outcomes_of
from tidemill.outcomes.session import truth_of
from tidemill.testing.loop import example_resource

TERMS = Terms(after=100, horizon=1000)


def loss(output: Mapping[str, Any], label: Mapping[str, Any]) -> float:
    return float(output["class"] != label["defect"])


def prediction(at: int = 1000, appended_at: int = 1010) -> Indexed:
    made = Prediction(prediction_id="p", version="v", entity="a", time=at, output={"class": "ok"}, boot="b", seq=0)
    return index(made, partition=0, offset=7, appended_at=appended_at, terms=TERMS)


def heard(offset: int, available_at: int, defect: str, through: int = 0, label: int | None = None) -> Heard:
    return Heard(f"c/t/0@{offset if label is None else label}", {"defect": defect}, "", available_at, offset, through)


TRUTH = Truth(loss, {"defect": "ok"})


def results(outcomes: list[Outcome]) -> list[tuple[int, str | None]]:
    return [(outcome.revision, None if outcome.label is None else outcome.label["defect"]) for outcome in outcomes]


# A log: marks rise, and a label that is not late stands before the first mark that reaches its arrival.
@st.composite
def logs(draw: st.DrawFn) -> list[Heard]:
    labels = []
    through = 0
    for offset in range(draw(st.integers(0, 12))):
        through += draw(st.integers(0, 120))
        label = draw(st.integers(0, 8))
        arrived = through + draw(st.integers(1, 200))
        labels.append(heard(offset, arrived, draw(st.sampled_from(["ok", "scratch"])), 900 + through, label))
    return labels


@given(logs(), st.randoms(use_true_random=False))
def test_order_and_repetition_in_memory_do_not_matter(log: list[Heard], random: Any) -> None:
    shuffled = log * 2
    random.shuffle(shuffled)
    assert outcomes_of(prediction(), shuffled, TRUTH) == outcomes_of(prediction(), log, TRUTH)


@given(logs(), st.integers(0, 12))
def test_more_of_the_log_only_adds_outcomes(log: list[Heard], cut: int) -> None:
    due = prediction()
    first = next((label.offset for label in log if label.through >= due.due_at), len(log))
    before = outcomes_of(due, [label for label in log if label.offset < max(cut, first)], TRUTH)
    assert outcomes_of(due, log, TRUTH)[: len(before)] == before


@given(logs())
def test_revisions_count_from_0_and_each_says_something_new(log: list[Heard]) -> None:
    outcomes = outcomes_of(prediction(), log, TRUTH)
    assert [outcome.revision for outcome in outcomes] == [*range(len(outcomes))]
    assert all(a.label != b.label for a, b in pairwise(outcomes))


def test_a_label_at_the_very_moment_of_eligibility_counts() -> None:
    assert results(outcomes_of(prediction(), [heard(1, 1100, "scratch")], TRUTH)) == [(0, "scratch")]
    assert results(outcomes_of(prediction(), [heard(1, 1101, "scratch")], TRUTH)) == [(0, None), (1, "scratch")]


def test_the_last_label_wins() -> None:
    labels = [heard(1, 1050, "scratch"), heard(2, 1020, "ok")]
    assert results(outcomes_of(prediction(), labels, TRUTH)) == [(0, "scratch")]


def test_a_label_after_the_horizon_is_a_correction() -> None:
    assert results(outcomes_of(prediction(), [heard(1, 9000, "scratch", through=8999)], TRUTH)) == [
        (0, None),
        (1, "scratch"),
    ]


def test_a_label_stamped_early_that_is_heard_late_is_a_correction_and_not_lost() -> None:
    assert results(outcomes_of(prediction(), [heard(1, 1050, "scratch", through=1100)], TRUTH)) == [
        (0, None),
        (1, "scratch"),
    ]


def test_the_label_of_a_prediction_that_reached_the_log_late_still_decides() -> None:
    late = prediction(appended_at=5000)
    assert late.due_at == 5000
    assert results(outcomes_of(late, [heard(1, 1050, "scratch", through=4900)], TRUTH)) == [(0, "scratch")]


def test_a_prediction_from_a_clock_ahead_is_dated_by_its_arrival() -> None:
    ahead = prediction(at=99_000, appended_at=1010)
    assert (ahead.predicted_at, ahead.eligible_at) == (1010, 1110)
    assert ahead.final_at - ahead.predicted_at == timedelta(seconds=1) // timedelta(milliseconds=1)


def test_an_outcome_carries_label_age_and_loss() -> None:
    (outcome,) = outcomes_of(prediction(), [heard(1, 1060, "scratch")], TRUTH)
    assert (outcome.label_age_ms, outcome.loss) == (60, 1.0)


NEGATIVE = Terms(after=100, horizon=1000, rule=Rule(votes=("defect",), assumes=True))


def assuming(at: int = 1000, appended_at: int = 1010) -> Indexed:
    made = Prediction(prediction_id="p", version="v", entity="a", time=at, output={"class": "ok"}, boot="b", seq=0)
    return index(made, partition=0, offset=7, appended_at=appended_at, terms=NEGATIVE)


def told(labels: list[Heard], *, final: bool, of: Indexed | None = None) -> list[tuple[int, str | None, bool]]:
    outcomes = outcomes_of(of or assuming(), labels, TRUTH, final=final)
    return [(one.revision, None if one.label is None else one.label["defect"], one.assumed) for one in outcomes]


def test_a_label_missing_at_the_horizon_is_taken_for_the_negative_one() -> None:
    assert told([], final=False) == [(0, None, False)]
    assert told([], final=True) == [(0, None, False), (1, "ok", True)]
    assert told([heard(1, 1050, "scratch")], final=True) == [(0, "scratch", False)]


def test_a_label_at_the_very_moment_of_the_horizon_is_not_missing() -> None:
    assert told([heard(1, 2000, "scratch", through=1990)], final=True) == [(0, None, False), (1, "scratch", False)]


def test_a_label_after_the_horizon_replaces_what_was_assumed_even_where_it_says_the_same() -> None:
    late = heard(1, 2600, "ok", through=2500)
    assert told([late], final=False) == told([late], final=True)
    assert told([late], final=True) == [(0, None, False), (1, "ok", True), (2, "ok", False)]


def test_a_label_that_came_after_the_horizon_but_stands_before_its_mark_waits_for_it() -> None:
    label = heard(1, 2001, "scratch", through=1999)
    assert told([label], final=False) == [(0, None, False)]
    assert told([label], final=True) == [(0, None, False), (1, "ok", True), (2, "scratch", False)]


def test_a_pick_is_no_label_at_the_horizon() -> None:
    pick = Heard("c/t/0@1", None, "", 1050, 1, 0, 0, {"control": 0.5})
    assert told([pick], final=True) == [(0, None, False), (1, "ok", True)]
    late = Heard("c/t/0@2", None, "", 2900, 2, 2800, 0, {"control": 0.5})
    assert told([pick, late], final=True) == [(0, None, False), (1, "ok", True)]


def test_an_assumed_outcome_has_the_horizon_as_its_age() -> None:
    (_, outcome) = outcomes_of(assuming(), [], TRUTH, final=True)
    assert (outcome.label_age_ms, outcome.loss, outcome.probability) == (1000, 0.0, None)


@given(logs(), st.integers(0, 12), st.booleans())
def test_more_of_the_log_or_the_horizon_only_adds_outcomes(log: list[Heard], cut: int, final: bool) -> None:
    due = assuming()
    first = next((label.offset for label in log if label.through >= due.due_at), len(log))
    passed = next((label.offset for label in log if label.through >= due.final_due_at), len(log))
    cut = max(cut, passed if final else first)
    before = told([label for label in log if label.offset < cut], final=final)
    assert told(log, final=final)[: len(before)] == before
    assert told(log, final=True)[: len(before)] == before or not final


def test_where_all_are_labelled_the_probability_is_1() -> None:
    (outcome,) = outcomes_of(prediction(), [heard(1, 1060, "scratch")], Truth(loss, {}, certain=True))
    assert outcome.probability == 1.0


def test_a_regression_is_judged_by_its_tolerance_and_assumes_no_class() -> None:
    resource = example_resource(
        prediction={"type": "regression", "tolerance": 5.0}, labels={"fields": [{"name": "price", "type": "float"}]}
    )
    truth = truth_of(resource)
    assert truth.loss({"value": 12.0}, {"price": 17.0}) == 0.0
    assert truth.loss({"value": 12.0}, {"price": 17.5}) == 1.0
    assert truth.loss({}, {"price": 17.5}) == 1.0
    assert truth.loss({"value": 12.0}, {"price": None}) is None
    assert truth.negative == {"price": None}
    assert judged_field(resource).name == "price"
