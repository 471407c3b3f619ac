"""What the gates say of equal, better and worse candidates."""

import json

import numpy as np
import pytest

from tidemill.core.errors import Corrupt
from tidemill.evaluation.gates import decode_verdicts, encode_verdicts, judge, may_pass
from tidemill.evaluation.scoring import Evaluation, Scores
from tidemill.spec.model import FreshGate, Gates

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
    (verdict,) = judge(GATES, evaluation(0.05, 0.30))
    assert verdict.passed is True
    assert verdict.figures["lower_95"] > 0.1  # type: ignore[operator]
    assert f"on the {ROWS} newest rows" in verdict.reason


def test_an_equal_candidate_passes_within_the_margin() -> None:
    same = scores("v1", 0.1)
    equal = Evaluation(candidate=scores("v2", 0.1), champion=same, snapshot="0" * 64)
    (verdict,) = judge(Gates(fresh=FreshGate(margin=0.0, rows=ROWS)), equal)
    assert verdict.passed is True
    assert verdict.figures["difference"] == 0


def test_a_worse_candidate_is_refused_with_the_figures_in_words() -> None:
    (verdict,) = judge(GATES, evaluation(0.40, 0.10))
    assert verdict.passed is False
    assert not may_pass([verdict])
    assert f"{verdict.figures['candidate_error']:.3f}" in verdict.reason
    assert "worse by more than the margin of 0.05" in verdict.reason


def test_a_candidate_whose_loss_is_within_the_margin_but_uncertain_is_refused() -> None:
    """The bound decides, not the mean: 30 rows are too few to exclude a difference of 0.05."""
    few = np.random.default_rng(4).random((2, 30)) < 0.3
    pair = Evaluation(
        candidate=Scores(version="v2", losses=tuple(few[0].astype(float).tolist())),
        champion=Scores(version="v1", losses=tuple(few[1].astype(float).tolist())),
        snapshot="",
    )
    (verdict,) = judge(GATES, pair)
    assert verdict.passed is False
    assert abs(verdict.figures["difference"]) <= 0.11  # type: ignore[arg-type]


def test_without_a_champion_the_relative_gate_is_not_applicable_and_does_not_refuse() -> None:
    (verdict,) = judge(GATES, evaluation(0.9, None))
    assert verdict.passed is None
    assert verdict.reason == "no champion: not applicable"
    assert may_pass([verdict])


@pytest.mark.parametrize(("error", "passed"), [(0.05, True), (0.19, False), (0.5, False)])
def test_the_absolute_gate_holds_the_upper_bound_against_its_limit(error: float, passed: bool) -> None:
    gates = Gates(fresh=FreshGate.model_validate({"atMost": 0.2, "rows": ROWS}))
    relative, absolute = judge(gates, evaluation(error, None))
    assert relative.passed is None
    assert (absolute.gate, absolute.passed) == ("fresh.atMost", passed)
    assert may_pass([relative, absolute]) is passed


def test_skipped_gates_are_judged_and_shown_but_do_not_refuse() -> None:
    (verdict,) = judge(GATES, evaluation(0.9, 0.1), skip=True)
    assert verdict.passed is False
    assert verdict.enforced is False
    assert verdict.reason.endswith("(skipped by force)")
    assert may_pass([verdict])


def test_verdicts_survive_their_way_through_a_request() -> None:
    verdicts = judge(GATES, evaluation(0.4, 0.1))
    assert decode_verdicts(encode_verdicts(verdicts)) == verdicts
    (plain,) = json.loads(encode_verdicts(verdicts))
    assert (plain["gate"], plain["passed"]) == ("fresh", False)
    with pytest.raises(Corrupt):
        decode_verdicts("{")


def test_no_rows_have_no_mean() -> None:
    assert np.isnan(Scores(version="v1", losses=()).mean)
