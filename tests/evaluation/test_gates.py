"""What the gates say of equal, better and worse candidates."""

import json

import numpy as np
import pytest

from tidemill.core.errors import Corrupt
from tidemill.evaluation.gates import decode_verdicts, encode_verdicts, judge, may_pass
from tidemill.evaluation.scoring import Compared, Evaluation, Rows, Scores
from tidemill.spec.gates import FreshGate, FrozenGate, Gates

ROWS = 500


def scores(version: str, error: float, seed: int = 0) -> Scores:
    drawn = np.random.default_rng(seed).random(ROWS) < error
    return Scores(version=version, losses=tuple(drawn.astype(float).tolist()))


def evaluation(candidate: float, champion: float | None) -> Evaluation:
    return Evaluation(
        candidate=scores("v2", candidate, seed=1),
        champion=None if champion is None else scores("v1", champion, seed=2),
        snapshot="0" * 64,
    )


GATES = Gates(fresh=FreshGate(margin=0.05, rows=ROWS))


def test_a_better_candidate_passes() -> None:
    _, verdict = judge(GATES, evaluation(0.05, 0.30))
    assert verdict.passed is True
    assert verdict.figures["lower_95"] > 0.1  # type: ignore[operator]
    assert f"on the {ROWS} newest rows" in verdict.reason


@pytest.mark.parametrize(("margin", "passed"), [(0.01, True), (0.005, False), (0.0, False)])
def test_an_equal_candidate_passes_where_the_rows_are_enough_for_the_margin(margin: float, passed: bool) -> None:
    """Of 500 rows on which both say the same it is known that they differ on less than 3 in 500 of all."""
    same = scores("v1", 0.1)
    equal = Evaluation(candidate=scores("v2", 0.1), champion=same, snapshot="0" * 64)
    _, verdict = judge(Gates(fresh=FreshGate(margin=margin, rows=ROWS)), equal)
    assert verdict.passed is passed
    assert verdict.figures["difference"] == 0
    assert passed or "only more rows could tell" in verdict.reason


def test_a_worse_candidate_is_refused_with_the_figures_in_words() -> None:
    _, verdict = judge(GATES, evaluation(0.40, 0.10))
    assert verdict.passed is False
    assert not may_pass([verdict])
    assert f"{verdict.figures['candidate_error']:.3f}" in verdict.reason
    assert "that is worse by more than the margin of 0.05" in verdict.reason


def test_a_candidate_whose_loss_is_within_the_margin_but_uncertain_is_refused() -> None:
    """The bound decides, not the mean: 30 rows are too few to exclude a difference of 0.05."""
    few = np.random.default_rng(4).random((2, 30)) < 0.3
    pair = Evaluation(
        candidate=Scores(version="v2", losses=tuple(few[0].astype(float).tolist())),
        champion=Scores(version="v1", losses=tuple(few[1].astype(float).tolist())),
        snapshot="",
    )
    _, verdict = judge(GATES, pair)
    assert verdict.passed is False
    assert abs(verdict.figures["difference"]) <= 0.11  # type: ignore[arg-type]


def test_without_a_champion_the_relative_gate_is_not_applicable_and_does_not_refuse() -> None:
    _, verdict = judge(GATES, evaluation(0.9, None))
    assert verdict.passed is None
    assert verdict.reason == "no champion: not applicable"
    assert may_pass([verdict])


@pytest.mark.parametrize(("error", "passed"), [(0.05, True), (0.19, False), (0.5, False)])
def test_the_absolute_gate_holds_the_upper_bound_against_its_limit(error: float, passed: bool) -> None:
    gates = Gates(fresh=FreshGate.model_validate({"atMost": 0.2, "rows": ROWS}))
    _, relative, absolute = judge(gates, evaluation(error, None))
    assert relative.passed is None
    assert (absolute.gate, absolute.passed) == ("fresh.atMost", passed)
    assert may_pass([relative, absolute]) is passed


def test_skipped_gates_are_judged_and_shown_but_do_not_refuse() -> None:
    _, verdict = judge(GATES, evaluation(0.9, 0.1), skip=True)
    assert verdict.passed is False
    assert verdict.enforced is False
    assert verdict.reason.endswith("(skipped by force)")
    assert may_pass([verdict])


def test_verdicts_survive_their_way_through_a_request() -> None:
    verdicts = judge(GATES, evaluation(0.4, 0.1))
    assert decode_verdicts(encode_verdicts(verdicts)) == verdicts
    _, plain = json.loads(encode_verdicts(verdicts))
    assert (plain["gate"], plain["passed"]) == ("fresh", False)
    with pytest.raises(Corrupt):
        decode_verdicts("{")


def classes(version: str, *said: str) -> Scores:
    """Answers to rows that are truly a, b, a, b, ..."""
    losses = tuple(float(one != "ab"[place % 2]) for place, one in enumerate(said))
    return Scores(version=version, losses=losses, classes=said)


FORGETFUL, GOOD = classes("v2", *"aa" * 150), classes("v1", *"ab" * 150)
ROWS_AB = Rows(truths=tuple("ab" * 150), entities=("e",) * 300, ids=tuple(map(str, range(300))))


def frozen_evaluation(frozen: Compared | None, problem: str = "") -> Evaluation:
    return Evaluation(
        candidate=GOOD, snapshot="", classes=("a", "b"), rows=ROWS_AB, frozen=frozen, frozen_problem=problem
    )


def test_a_forgotten_class_is_stopped_by_the_frozen_gate() -> None:
    gates = Gates(frozen=FrozenGate.model_validate({"dataset": "golden", "metric": "recall", "atLeast": 0.9}))
    golden = Compared(name="golden", digest="d", rows=ROWS_AB, candidate=FORGETFUL, champion=GOOD)
    _, _, relative, absolute = judge(gates, frozen_evaluation(golden))
    assert (relative.gate, relative.passed) == ("frozen", False)
    assert "recall 0.500 against the champion's 1.000 on 300 rows of golden" in relative.reason
    assert (absolute.gate, absolute.passed) == ("frozen.atLeast", False)
    assert "below the level of 0.9" in absolute.reason


def test_the_frozen_gate_passes_what_has_forgotten_nothing() -> None:
    gates = Gates(
        frozen=FrozenGate.model_validate({"dataset": "golden", "metric": "f1", "atLeast": 0.9, "margin": 0.1})
    )
    golden = Compared(name="golden", digest="d", rows=ROWS_AB, candidate=GOOD, champion=GOOD)
    assert [one.passed for one in judge(gates, frozen_evaluation(golden))] == [True, None, True, True]


def test_a_frozen_gate_without_its_dataset_refuses_and_says_how_to_make_it() -> None:
    why = "there is no frozen dataset golden: `tidemill dataset freeze` makes one"
    *_, verdict = judge(Gates(frozen=FrozenGate(dataset="golden")), frozen_evaluation(None, why))
    assert (verdict.gate, verdict.passed, verdict.reason) == ("frozen", False, why)


@pytest.mark.parametrize("skip", [False, True])
def test_a_candidate_that_does_not_answer_is_refused_whatever_may_be_skipped(skip: bool) -> None:
    silent = Scores(version="v2", losses=(1.0,) * ROWS, unanswered=ROWS, problems=("confidence should be a number",))
    first, second = judge(GATES, Evaluation(candidate=silent, champion=scores("v1", 0.1), snapshot=""), skip=skip)
    assert (first.gate, first.passed, first.enforced) == ("answers", False, True)
    assert first.reason == "500 of 500 rows have no answer as declared: confidence should be a number"
    assert second.enforced is not skip
    assert not may_pass([first])


def test_no_rows_have_no_mean() -> None:
    assert np.isnan(Scores(version="v1", losses=()).mean)
