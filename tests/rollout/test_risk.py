"""What the verdicts promise, by simulation of whole rollouts: steps, shares, cells and looks at every cell."""

import math
import random
from collections import Counter

import msgspec
import pytest

from tidemill.rollout.cells import Fold
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.rollout.verdict import Verdict, VerdictKind, judge
from tidemill.testing.rollout import EPOCH_MS, ErrorAt, example_plan, judged_outcome, outcomes_of, run_rollout

RISK = 0.05


def verdicts(
    plan: RolloutPlan, *, candidate: ErrorAt, champion: ErrorAt, runs: int, requests: int
) -> Counter[VerdictKind]:
    found = (
        run_rollout(plan, random.Random(run), candidate=candidate, champion=champion, requests=requests)
        for run in range(runs)
    )
    return Counter(verdict.kind for verdict, _ in found)


def most(runs: int) -> float:
    """The risk and two standard errors of a share measured in so many runs."""
    return RISK + 2 * math.sqrt(RISK * (1 - RISK) / runs)


def test_a_candidate_at_the_margin_is_promoted_or_rolled_back_no_more_often_than_the_risks() -> None:
    """The margin is the boundary of both promises, so both are nearly sharp here."""
    plan, runs = example_plan(margin=0.05), 100
    found = verdicts(plan, candidate=lambda _: 0.15, champion=lambda _: 0.10, runs=runs, requests=3000)
    assert found["promote"] / runs <= most(runs)
    assert found["roll back"] / runs <= most(runs)


def test_the_risk_holds_where_errors_rise_and_fall_with_time() -> None:
    """Matched blocks: a world that becomes easier while the candidate's share grows promotes nothing."""

    def base(second: float) -> float:
        return 0.4 - 0.3 * min(1.0, second / 60)

    plan, runs = example_plan(margin=0.05, weights=(5, 50, 100), min_outcomes=20), 50
    found = verdicts(plan, candidate=lambda t: base(t) + 0.05, champion=base, runs=runs, requests=4000)
    assert found["promote"] / runs <= most(runs)


def test_a_much_better_candidate_is_promoted_and_a_much_worse_one_rolled_back_soon() -> None:
    plan, rng = example_plan(), random.Random(1)
    verdict, taken = run_rollout(plan, rng, candidate=lambda _: 0.05, champion=lambda _: 0.35, requests=10_000)
    assert verdict.kind == "promote"
    assert taken < 4000
    verdict, taken = run_rollout(plan, rng, candidate=lambda _: 0.5, champion=lambda _: 0.1, requests=10_000)
    assert verdict.kind == "roll back"
    assert taken < 2500


def test_equal_versions_are_promoted_within_the_outcomes_that_the_plan_names() -> None:
    """STATISTICS 2: error 0.10, margin 0.02, steps 5/25/50: some 11,000 outcomes in all."""
    found = [
        run_rollout(
            example_plan(),
            random.Random(run),
            candidate=lambda _: 0.1,
            champion=lambda _: 0.1,
            requests=60_000,
            per_second=200.0,
        )
        for run in range(4)
    ]
    assert all(verdict.kind == "promote" for verdict, _ in found)
    assert sorted(taken for _, taken in found)[2] < 22_000


def late_labels(plan: RolloutPlan, seed: int) -> Verdict:
    """A candidate whose every error is of the class that is labelled late: 60 % are not visible at the age."""
    rng = random.Random(seed)
    fold, spans = Fold(plan), (Span(step=0, weight=50, since=EPOCH_MS),)
    verdict = Verdict("inconclusive", "")
    for number in range(2000):
        is_candidate = rng.random() < 0.5
        loss: float | None = float(rng.random() < (0.15 if is_candidate else 0.10))
        if loss and rng.random() < 0.6:
            loss = None
        at = EPOCH_MS + number * 25
        fold.add(0, judged_outcome("v2" if is_candidate else "v1", at, loss, name=str(number)))
        if number % 200 == 0:
            verdict = judge(plan, fold.evidence(spans), 0)
            if verdict.kind == "promote":
                break
    return verdict


@pytest.mark.parametrize("knows", [True, False])
def test_errors_that_are_found_late_do_not_look_like_successes(knows: bool) -> None:
    """With the margin shrunk by the visible share the risk holds; pretending that all is visible breaks it."""
    plan = example_plan(weights=(50, 100), margin=0.05, visible={"ok": 1.0, "scratch": 0.4 if knows else 1.0})
    runs = 40
    share = sum(late_labels(plan, seed).kind == "promote" for seed in range(runs)) / runs
    assert (share <= most(runs)) is knows


def test_a_difference_in_labelling_is_found() -> None:
    plan, rng, fold = example_plan(weights=(50, 100)), random.Random(4), Fold(example_plan(weights=(50, 100)))
    outcomes = outcomes_of(
        rng, weight=50, candidate=lambda _: 0.1, champion=lambda _: 0.1, since_ms=EPOCH_MS, seconds=30
    )
    for outcome in outcomes:
        lost = outcome.version == "v2" and outcome.loss == 1.0
        fold.add(0, msgspec.structs.replace(outcome, loss=None, label=None) if lost else outcome)
    verdict = judge(plan, fold.evidence((Span(step=0, weight=50, since=0),)), 0)
    assert verdict.kind in {"promote", "hold"}
    for number in range(3000):
        at = EPOCH_MS + 30_000 + number * 25
        version = "v2" if rng.random() < 0.5 else "v1"
        loss = None if version == "v2" and rng.random() < 0.1 else 0.0
        fold.add(0, judged_outcome(version, at, loss, name=f"x{number}"))
    assert judge(plan, fold.evidence((Span(step=0, weight=50, since=0),)), 0).about == "labelling"
