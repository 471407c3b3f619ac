"""Verdicts: what each rests on, which comes first, and that each says why."""

import msgspec
import pytest

from tidemill.rollout.cells import Arm, Evidence, StepEvidence
from tidemill.rollout.plan import RolloutPlan
from tidemill.rollout.verdict import Verdict, judge
from tidemill.stats.betting import for_promotion
from tidemill.testing.rollout import example_plan

BETTER, WORSE, SAME = -0.3, 0.3, 0.0


def evidence_of(
    plan: RolloutPlan, difference: float, blocks: int, *, step: int = 0, outcomes: int | None = None
) -> Evidence:
    """Evidence in which each of `blocks` blocks showed the same difference, all of them in one step."""
    fresh, margin = Evidence.none(plan), plan.step_margin(step)
    count = blocks if outcomes is None else outcomes
    return msgspec.structs.replace(
        fresh,
        promotion=fresh.promotion.update_all([plan.promotion_margin - difference] * blocks),
        harm=fresh.harm.update_all([difference - plan.harm_margin] * blocks),
        steps=(
            StepEvidence(
                step=step, process=for_promotion(margin).update_all([margin - difference] * blocks), candidate=count
            ),
        ),
        candidate=Arm(requests=count, judged=count, labelled=count, loss=count * (0.4 + difference)),
        champion=Arm(requests=count, judged=count, labelled=count, loss=count * 0.4),
        blocks=blocks,
    )


def test_before_any_outcome_nothing_is_concluded() -> None:
    plan = example_plan()
    verdict = judge(plan, Evidence.none(plan), 0)
    assert verdict.kind == "inconclusive"
    assert "0 of 50 outcomes at 5 %" in verdict.reason


def test_a_clearly_better_candidate_is_promoted_from_the_first_step() -> None:
    plan = example_plan()
    verdict = judge(plan, evidence_of(plan, BETTER, 40), 0)
    assert verdict.kind == "promote"
    assert verdict.figures["e_promote"] >= 20
    assert "20 was needed" in verdict.reason
    assert "error 0.100 in 40 outcomes of the candidate, 0.400 in 40" in verdict.reason


def test_a_clearly_worse_candidate_is_rolled_back() -> None:
    plan = example_plan()
    verdict = judge(plan, evidence_of(plan, WORSE, 40), 1)
    assert verdict.kind == "roll back"
    assert verdict.figures["candidate_error"] == pytest.approx(0.7)


def test_no_great_harm_lets_it_go_on_before_there_is_enough_to_promote() -> None:
    plan = example_plan(margin=0.1)
    verdict = judge(plan, evidence_of(plan, 0.02, 60), 0)
    assert verdict.kind == "go on"
    assert verdict.figures["e_step"] >= 20 > verdict.figures["e_promote"]
    assert verdict.figures["step_margin"] == pytest.approx(0.1 / 0.05**0.5)


def test_a_step_needs_its_least_number_of_outcomes() -> None:
    plan = example_plan(margin=0.1)
    verdict = judge(plan, evidence_of(plan, 0.02, 60, outcomes=49), 0)
    assert verdict.kind == "inconclusive"
    assert "49 of 50 outcomes" in verdict.reason


def test_evidence_of_one_step_does_not_let_another_go_on() -> None:
    plan = example_plan(margin=0.1)
    assert judge(plan, evidence_of(plan, 0.02, 60, step=0), 1).kind == "inconclusive"


def test_from_the_step_before_the_last_only_promote_or_roll_back_leaves() -> None:
    plan = example_plan(margin=0.1)
    assert judge(plan, evidence_of(plan, 0.06, 60, step=2), 2).kind == "inconclusive"
    assert judge(plan, evidence_of(plan, BETTER, 60, step=2), 2).kind == "promote"


def test_equal_versions_are_promoted_in_the_end() -> None:
    plan = example_plan()
    assert judge(plan, evidence_of(plan, SAME, 100), 2).kind == "inconclusive"
    assert judge(plan, evidence_of(plan, SAME, 1000), 2).kind == "promote"


def doubtful(kind: str, plan: RolloutPlan, difference: float) -> Evidence:
    evidence = evidence_of(plan, difference, 60)
    if kind == "sample ratio":
        return msgspec.structs.replace(evidence, log_ratio_peak=7.0)
    up, down = evidence.labelling
    return msgspec.structs.replace(evidence, labelling=(up.update_all([0.3] * 60), down))


@pytest.mark.parametrize("kind", ["sample ratio", "labelling"])
def test_arms_that_cannot_be_compared_hold_the_rollout(kind: str) -> None:
    plan = example_plan()
    verdict = judge(plan, doubtful(kind, plan, BETTER), 0)
    assert (verdict.kind, verdict.about) == ("hold", kind)
    assert verdict.figures["e_promote"] >= 20


@pytest.mark.parametrize("kind", ["sample ratio", "labelling"])
def test_harm_is_not_waited_out_because_the_comparison_is_in_doubt(kind: str) -> None:
    plan = example_plan()
    verdict = judge(plan, doubtful(kind, plan, WORSE), 0)
    assert verdict.kind == "roll back"
    assert "(but " in verdict.reason


def test_a_sample_ratio_is_doubted_at_one_in_a_thousand_only() -> None:
    plan = example_plan()
    evidence = msgspec.structs.replace(evidence_of(plan, BETTER, 60), log_ratio_peak=6.9)
    assert judge(plan, evidence, 0).kind == "promote"


@pytest.mark.parametrize("difference", [BETTER, WORSE, SAME])
def test_labels_of_unknown_probability_conclude_nothing(difference: float) -> None:
    plan = example_plan(control=0.05)
    verdict = judge(plan, evidence_of(plan, difference, 1000), 0)
    assert (verdict.kind, verdict.about) == ("hold", "labels.control")
    assert "labels.control: 1.0" in verdict.reason


def test_without_a_label_history_the_rollouts_own_labels_must_be_there() -> None:
    plan = example_plan(visible={})
    evidence = evidence_of(plan, BETTER, 60)
    assert judge(plan, evidence, 0).kind == "promote"
    few = msgspec.structs.replace(evidence, champion=msgspec.structs.replace(evidence.champion, labelled=53.0))
    verdict = judge(plan, few, 0)
    assert (verdict.kind, verdict.about) == ("hold", "label history")


def test_a_verdict_is_json_even_where_evidence_is_beyond_a_float() -> None:
    plan = example_plan()
    verdict = judge(plan, evidence_of(plan, -1.0, 5000), 0)
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    assert "over 10,000" in verdict.reason
