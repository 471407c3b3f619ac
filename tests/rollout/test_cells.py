"""Outcomes fold into matched blocks: which count, how they are matched, and that the fold can be repeated."""

import random
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.events.records import Outcome
from tidemill.rollout.cells import Evidence, Fold, differences
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.testing.rollout import EPOCH_MS, example_plan, judged_outcome, outcomes_of

losses = st.lists(st.floats(0, 1), max_size=30)
ALL = (Span(step=0, weight=5, since=0),)


def folded(plan: RolloutPlan, outcomes: list[Outcome], spans: tuple[Span, ...] = ALL) -> Evidence:
    """The evidence of `outcomes`, with all of their cells closed by one that comes much later."""
    fold = Fold(plan)
    for outcome in outcomes:
        fold.add(0, outcome)
    fold.add(0, judged_outcome("v1", EPOCH_MS + 10**9, None, name="last"))
    return fold.evidence(spans)


def at(second: float, version: str, loss: float | None, name: str, request: str | None = None) -> Outcome:
    return judged_outcome(version, EPOCH_MS + round(second * 1000), loss, name=name, request=request)


@given(losses, losses)
def test_there_are_as_many_blocks_as_the_smaller_arm_has_outcomes(
    candidate: list[float], champion: list[float]
) -> None:
    found = differences(candidate, champion)
    assert len(found) == min(len(candidate), len(champion))
    assert all(-1 <= value <= 1 for value in found)


def test_the_larger_arm_is_dealt_out_evenly_by_arrival() -> None:
    assert differences([0, 0], [1, 0, 1, 1]) == [-0.5, -1.0]
    assert differences([1, 0, 0.5, 0.5, 0.5], [0, 0.25]) == [0.5, 0.25]
    assert differences([], [1.0, 1.0]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 30))
def test_every_outcome_of_the_larger_arm_is_in_one_block(larger: list[float], smaller: int) -> None:
    if smaller > len(larger):
        smaller = len(larger)
    ones = differences([1.0] * smaller, [0.0] * len(larger))
    assert ones == [1.0] * smaller
    lengths = [(block + 1) * len(larger) // smaller - block * len(larger) // smaller for block in range(smaller)]
    assert sum(lengths) == len(larger)
    assert max(lengths) - min(lengths) <= 1


def test_arms_are_compared_within_their_own_second_only() -> None:
    # At each time the candidate is as good as the champion; pooled, it would look better by 0.5.
    early = [at(0.1, "v2", 1.0, "a"), at(0.2, "v1", 1.0, "b"), at(0.3, "v1", 1.0, "c"), at(0.4, "v1", 1.0, "d")]
    late = [at(1.1, "v2", 0.0, "e"), at(1.2, "v2", 0.0, "f"), at(1.3, "v2", 0.0, "g"), at(1.4, "v1", 0.0, "h")]
    evidence = folded(example_plan(), early + late)
    expected = folded(
        example_plan(), [at(0.1, "v2", 0.0, "a"), at(0.2, "v1", 0.0, "b"), at(1.1, "v2", 0.0, "c"), late[3]]
    )
    assert evidence.blocks == 2
    assert evidence.promotion.log_wealths == pytest.approx(expected.promotion.log_wealths)


def test_a_cell_of_one_arm_alone_says_nothing() -> None:
    evidence = folded(example_plan(), [at(0.1, "v2", 1.0, "a"), at(1.1, "v1", 0.0, "b")])
    assert evidence.blocks == 0
    assert evidence.promotion.value == evidence.harm.value == 1.0


def test_corrections_repeats_and_other_versions_count_nowhere() -> None:
    pair = [at(0.1, "v2", 1.0, "a"), at(0.2, "v1", 0.0, "b")]
    correction = msgspec.structs.replace(pair[0], revision=1, loss=0.0)
    other = at(0.3, "v0", 1.0, "c")
    assert folded(example_plan(), [*pair, correction, pair[0], other]) == folded(example_plan(), pair)


def test_the_rows_of_one_request_are_one_outcome() -> None:
    rows = [at(0.1, "v2", loss, f"a{number}", request="R") for number, loss in enumerate([1.0, 0.0, 0.0, 0.0])]
    evidence = folded(example_plan(), [*rows, at(0.2, "v1", 0.0, "b")])
    assert evidence.candidate.requests == evidence.candidate.judged == 1
    assert evidence.candidate.loss == 0.25
    assert evidence.blocks == 1


def test_a_request_repeated_against_the_other_version_is_another_outcome() -> None:
    evidence = folded(example_plan(), [at(0.1, "v2", 1.0, "a", request="R"), at(0.2, "v1", 0.0, "b", request="R")])
    assert (evidence.candidate.requests, evidence.champion.requests) == (1, 1)


def test_where_labels_are_there_in_time_the_unlabelled_are_left_out() -> None:
    evidence = folded(example_plan(), [at(0.1, "v2", None, "a"), at(0.2, "v2", 1.0, "b"), at(0.3, "v1", 0.0, "c")])
    assert (evidence.candidate.requests, evidence.candidate.judged) == (2, 1)
    assert evidence.candidate.mean == 1.0


def test_where_labels_come_late_all_count_and_the_margin_shrinks() -> None:
    plan = example_plan(visible={"ok": 0.95, "scratch": 0.4})
    evidence = folded(plan, [at(0.1, "v2", None, "a"), at(0.2, "v2", 1.0, "b"), at(0.3, "v1", 0.0, "c")])
    assert evidence.candidate.judged == 2
    assert evidence.candidate.mean == 0.5
    assert plan.promotion_margin == pytest.approx(0.02 * 0.4)
    assert plan.harm_margin == pytest.approx(0.02 * 0.95)
    assert plan.step_margin(1) == pytest.approx(0.02 * 0.4 / 0.5)


def test_what_was_predicted_while_no_share_was_seen_does_not_count() -> None:
    spans = (
        Span(step=0, weight=5, since=EPOCH_MS + 1000, until=EPOCH_MS + 2000),
        Span(step=1, weight=25, since=EPOCH_MS + 2500),
    )
    outcomes = [
        at(moment, version, 0.0, f"{version}{moment}") for moment in (0.5, 1.5, 2.2, 2.7) for version in ("v1", "v2")
    ]
    evidence = folded(example_plan(), outcomes, spans)
    assert evidence.blocks == 2
    assert [(one.step, one.candidate, one.requests) for one in evidence.steps] == [(0, 1, (1, 1)), (1, 1, (1, 1))]


def test_a_step_starts_with_wealth_one_while_the_rollout_keeps_its_own() -> None:
    spans = (Span(step=0, weight=5, since=0, until=EPOCH_MS + 1000), Span(step=1, weight=25, since=EPOCH_MS + 1000))
    outcomes = [
        at(moment, version, float(version == "v1"), f"{version}{moment}")
        for moment in (0.5, 1.5)
        for version in ("v1", "v2")
    ]
    evidence = folded(example_plan(), outcomes, spans)
    assert evidence.promotion.count == 2
    assert [one.process.count for one in evidence.steps] == [1, 1]


def test_an_outcome_too_late_for_its_cell_is_counted_as_late_and_changes_nothing() -> None:
    fold = Fold(example_plan())
    for outcome in (at(0.1, "v2", 0.0, "a"), at(0.2, "v1", 0.0, "b"), at(1.3, "v1", 0.0, "c"), at(0.5, "v2", 1.0, "d")):
        fold.add(0, outcome)
    evidence = fold.evidence(ALL)
    assert (evidence.late, evidence.blocks, evidence.candidate.loss) == (1, 1, 0.0)


def test_an_outcome_a_little_out_of_order_still_falls_into_its_cell() -> None:
    outcomes = [at(0.9, "v1", 0.0, "a"), at(1.2, "v1", 0.0, "b"), at(0.95, "v2", 1.0, "c")]
    evidence = folded(example_plan(), outcomes)
    assert (evidence.late, evidence.blocks) == (0, 1)


def test_a_cell_stays_open_until_outcomes_well_after_it_have_come() -> None:
    fold = Fold(example_plan())
    for outcome in (at(0.1, "v2", 0.0, "a"), at(0.2, "v1", 0.0, "b"), at(1.2, "v1", 0.0, "c")):
        fold.add(0, outcome)
    assert fold.evidence(ALL).blocks == 0
    fold.add(0, at(1.25, "v1", 0.0, "d"))
    assert fold.evidence(ALL).blocks == 1


def world(seed: int, seconds: float = 12) -> list[Outcome]:
    """Some seconds of a rollout, a little out of order, as a log has them."""
    rng = random.Random(seed)
    found = list(
        outcomes_of(
            rng,
            weight=25,
            candidate=lambda _: 0.3,
            champion=lambda _: 0.2,
            since_ms=EPOCH_MS,
            seconds=seconds,
            per_second=12,
        )
    )
    return sorted(found, key=lambda one: one.predicted_at + rng.uniform(0, 500))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 140), max_size=12))
def test_the_evidence_is_the_same_however_often_it_was_asked_for(seed: int, asked: list[int]) -> None:
    """A fold that was lost and is read again in one go stands where the one stood that was asked on the way."""
    outcomes, plan = world(seed), example_plan(weights=(25, 50, 100))
    live, again = Fold(plan), Fold(plan)
    for number, outcome in enumerate(outcomes):
        live.add(0, outcome)
        if number in asked:
            live.evidence(ALL)
        again.add(0, outcome)
    assert live.evidence(ALL) == again.evidence(ALL)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_partitions_may_be_read_in_any_turn(seed: int, turns: random.Random) -> None:
    outcomes, plan = world(seed), example_plan(weights=(25, 50, 100))
    parts = {
        number: [one for one in outcomes if zlib.crc32(one.prediction_id.encode()) % 3 == number] for number in range(3)
    }
    in_order, shuffled = Fold(plan), Fold(plan)
    for number, part in parts.items():
        for outcome in part:
            in_order.add(number, outcome)
    queues = {number: list(part) for number, part in parts.items()}
    while any(queues.values()):
        number = turns.choice([number for number, queue in queues.items() if queue])
        shuffled.add(number, queues[number].pop(0))
    assert in_order.evidence(ALL) == shuffled.evidence(ALL)


def test_the_sample_ratio_counts_requests_of_closed_cells_under_their_own_weight() -> None:
    evidence = folded(example_plan(weights=(50, 100)), [at(0.1 + n / 200, "v1", 0.0, str(n)) for n in range(60)])
    assert evidence.steps[0].requests == (0, 60)
    assert evidence.log_ratio_peak > 6.9  # no request of 60 where half were due


def test_losses_of_the_log_are_carried_to_the_evidence() -> None:
    outcome = msgspec.structs.replace(at(0.1, "v1", 0.0, "a"), lost=3)
    assert folded(example_plan(), [outcome]).lost == 3


def test_what_may_be_lost_is_what_the_newest_outcome_says() -> None:
    before = msgspec.structs.replace(at(0.1, "v1", 0.0, "a"), lost=3, maybe_lost=40)
    after = msgspec.structs.replace(at(0.2, "v1", 0.0, "b"), lost=9)  # the end of that process was told meanwhile
    for order in ([before], [before, after], [after, before]):
        fold = Fold(example_plan())
        for outcome in order:
            fold.add(0, outcome)
        found = fold.evidence(ALL)
        assert (found.lost, found.maybe_lost) == ((3, 40) if after not in order else (9, 0))


def of_key(key: str | None, outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, cohort=key)


def test_a_sticky_key_counts_once_by_the_first_cell_in_which_it_was_seen() -> None:
    plan = example_plan(cohort="x-user")
    seen = [
        *(of_key("ada", at(0.1, "v2", loss, f"a{number}")) for number, loss in enumerate((1.0, 0.0))),
        *(of_key("bob", at(0.2 + second, "v1", 0.0, f"b{second}")) for second in range(4)),
        of_key("ada", at(2.1, "v2", 1.0, "again")),
    ]
    found = folded(plan, seen)
    assert (found.candidate.judged, found.candidate.loss) == (1, 0.5)
    assert (found.champion.judged, found.blocks) == (1, 1)
    assert folded(example_plan(), seen).champion.judged == 4, "without a key each request counts"


def test_a_key_that_moved_to_the_candidate_does_not_count_again() -> None:
    plan = example_plan(cohort="x-user")
    found = folded(plan, [of_key("ada", at(0.1, "v1", 0.0, "a")), of_key("ada", at(5.1, "v2", 0.0, "b"))])
    assert (found.champion.requests, found.candidate.requests) == (1, 0)


def test_a_request_without_a_key_counts_by_itself() -> None:
    plan = example_plan(cohort="x-user")
    found = folded(plan, [of_key(None, at(0.1 * number, "v1", 0.0, f"{number}")) for number in range(5)])
    assert found.champion.requests == 5


def test_a_key_seen_outside_the_spans_counts_when_it_is_seen_inside() -> None:
    spans = (Span(step=0, weight=5, since=EPOCH_MS + 2000),)
    seen = [of_key("ada", at(0.5, "v2", 1.0, "a")), of_key("ada", at(2.5, "v2", 0.0, "b"))]
    found = folded(example_plan(cohort="x-user"), seen, spans)
    assert (found.candidate.judged, found.candidate.loss) == (1, 0.0)
