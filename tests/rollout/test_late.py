"""The watch of a rollout: its outcomes judged once more, with late and corrected labels."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.events.records import Outcome
from tidemill.rollout.late import MOST_REQUESTS, LateFold, RolloutWatch, watch_of
from tidemill.rollout.plan import Span
from tidemill.testing.rollout import EPOCH_MS, example_plan, judged_outcome

PLAN = example_plan(weights=(50, 100))
HOUR = 3_600_000


def watch(seconds: int = 60, *, length_ms: int = HOUR, **changes: object) -> RolloutWatch:
    until = EPOCH_MS + 1000 * seconds
    spans = (Span(step=0, weight=50, since=EPOCH_MS, until=until),)
    return watch_of(example_plan(weights=(50, 100), **changes), spans, now=until, length_ms=length_ms, requests=1000)


def rollout(seconds: int, loss: float | None = 0.0) -> list[Outcome]:
    """Ten requests a second of each version, as the verdict saw them."""
    return [
        judged_outcome(version, EPOCH_MS + 1000 * second + 50 * number, loss, name=f"{version}-{second}-{number}")
        for second in range(seconds)
        for number in range(10)
        for version in ("v1", "v2")
    ]


def corrected(outcome: Outcome, loss: float | None) -> Outcome:
    return msgspec.structs.replace(outcome, revision=outcome.revision + 1, loss=loss)


def much_later(watched: RolloutWatch) -> Outcome:
    """A prediction so late that the cells of the rollout have the age of the watch."""
    return judged_outcome("v2", watched.until + 10_000, 0.0, name="later")


def folded(watched: RolloutWatch, outcomes: list[Outcome]) -> LateFold:
    fold = LateFold(watched)
    for outcome in outcomes:
        fold.add(0, outcome)
    return fold


def test_nothing_is_judged_before_the_labels_have_the_age_of_the_watch() -> None:
    watched, seen = watch(), rollout(60)
    late = [corrected(one, 1.0) for one in seen if one.version == "v2"]
    fold = folded(watched, [*seen, *late])
    assert fold.evidence().blocks == 0
    fold.add(0, much_later(watched))
    assert fold.evidence().blocks == 600


def test_errors_that_are_found_late_bring_the_version_before_back() -> None:
    watched, seen = watch(), rollout(60)
    late = [corrected(one, 1.0) for one in seen if one.version == "v2" and one.prediction_id.endswith("-3")]
    found = folded(watched, [*seen, *late, much_later(watched)]).evidence()
    assert found.harm.reached(watched.plan.risk)
    assert found.changed == 60
    assert found.words() == (
        "with late and corrected labels (60 changed) error 0.100 in 600 outcomes against 0.000 in 600 outcomes "
        "of the version before"
    )


def test_errors_of_both_do_not() -> None:
    watched, seen = watch(), rollout(60)
    late = [corrected(one, 1.0) for one in seen if one.prediction_id.endswith("-3")]
    found = folded(watched, [*seen, *late, much_later(watched)]).evidence()
    assert not found.harm.reached(watched.plan.risk)
    assert found.changed == 120


def test_the_last_word_on_an_outcome_counts_in_whatever_order_revisions_come() -> None:
    watched, seen = watch(), rollout(60)
    wrong = [corrected(one, 1.0) for one in seen if one.version == "v2"]
    right = [corrected(one, 0.0) for one in wrong]
    found = folded(watched, [*seen, *right, *wrong, much_later(watched)]).evidence()
    assert found.candidate == (600, 0.0)


def test_what_was_not_predicted_at_a_share_that_was_seen_does_not_count() -> None:
    watched = watch(30)
    found = folded(watched, [*rollout(60), much_later(watched)]).evidence()
    assert found.candidate[0] == found.champion[0] == 300


def test_of_very_many_requests_a_random_share_is_held() -> None:
    watched = msgspec.structs.replace(watch(), share=0.5)
    found = folded(watched, [*rollout(60), much_later(watched)]).evidence()
    assert 240 < found.candidate[0] < 360
    plan = example_plan()
    assert watch_of(plan, (), now=0, length_ms=1, requests=4 * MOST_REQUESTS).share == 0.25


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_the_evidence_does_not_depend_on_when_it_was_asked_for(seed: int, asks: int) -> None:
    rng = random.Random(seed)
    watched, seen = watch(20), rollout(20)
    late = [corrected(one, float(rng.random() < 0.3)) for one in seen if rng.random() < 0.5]
    log = [*seen, *late, much_later(watched)]
    at_the_end = folded(watched, log).evidence()
    fold, marks = LateFold(watched), {rng.randrange(len(log)) for _ in range(asks)}
    for number, outcome in enumerate(log):
        fold.add(0, outcome)
        if number in marks:
            fold.evidence()
    assert fold.evidence() == at_the_end


@pytest.mark.parametrize(("worse", "most"), [(0.02, 0.05), (0.0, 0.05)])
def test_a_version_that_is_not_worse_than_the_margin_is_rarely_brought_back(worse: float, most: float) -> None:
    """150 watches of 1,200 outcomes whose labels all come late; the bound holds for each, whatever the margin."""
    runs, back = 150, 0
    for seed in range(runs):
        rng, watched, seen = random.Random(seed), watch(), rollout(60, None)
        error = {"v1": 0.1, "v2": 0.1 + worse}
        late = [corrected(one, float(rng.random() < error[one.version])) for one in seen]
        back += folded(watched, [*seen, *late, much_later(watched)]).evidence().harm.reached(watched.plan.risk)
    assert back / runs <= most + 2 * (most * (1 - most) / runs) ** 0.5


def test_unlabelled_outcomes_are_no_errors_where_the_plan_counts_all() -> None:
    watched = watch(visible={"ok": 0.5})
    found = folded(watched, [*rollout(60, None), much_later(watched)]).evidence()
    assert found.candidate == (600, 0.0)
    left_out = watch()
    assert folded(left_out, [*rollout(60, None), much_later(left_out)]).evidence().candidate == (0, 0.0)
