"""What a rollout needs, told before it begins."""

import random
import statistics

import pytest

from tidemill.rollout.history import HistorySeen
from tidemill.rollout.power import power_of, shadow_advice, too_few_keys
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource
from tidemill.testing.rollout import example_plan, run_rollout


def declared(*weights: int, margin: float = 0.02, timeout: str = "3d") -> ContinualModel:
    steps = [{"weight": weight} for weight in (*weights, 100)]
    analysis = {"margin": margin, "minOutcomes": 20, "timeout": timeout}
    return example_resource(rollout={"steps": steps, "analysis": analysis})


def test_the_need_grows_with_the_error_the_share_and_the_square_of_the_margin() -> None:
    usual = power_of(declared(50), HistorySeen(error=0.1, outcomes=1000))
    fine = power_of(declared(50, margin=0.01), HistorySeen(error=0.1, outcomes=1000))
    rare = power_of(declared(50), HistorySeen(error=0.01, outcomes=1000))
    small = power_of(declared(5), HistorySeen(error=0.1, outcomes=1000))
    assert usual is not None
    assert fine is not None
    assert rare is not None
    assert small is not None
    assert usual.outcomes == 2697
    assert fine.outcomes == pytest.approx(4 * usual.outcomes, rel=1e-3)
    assert rare.outcomes < usual.outcomes / 8
    assert small.outcomes == pytest.approx(usual.outcomes / 1.9, rel=1e-3)


def test_the_hours_are_told_by_the_rate_and_a_timeout_that_is_too_short_is_said_so() -> None:
    history = HistorySeen(error=0.1, outcomes=1000, per_second=1.0)
    found = power_of(declared(50), history)
    assert found is not None
    assert found.words() == (
        "a candidate as good as the champion needs about 2,697 outcomes at 50 %, 1.5 h at the present rate (error 0.1)"
    )
    short = power_of(declared(50, timeout="1h"), history)
    assert short is not None
    assert short.fits is False
    assert short.words().endswith(": more than its timeout allows")


def test_where_nothing_is_tested_there_is_no_power() -> None:
    assert power_of(declared(), HistorySeen()) is None


def test_what_is_told_is_what_rollouts_take() -> None:
    """The median of 40 simulated rollouts of an equal candidate at one share."""
    told = power_of(declared(50, margin=0.05), HistorySeen(error=0.1, outcomes=1000))
    assert told is not None
    plan = example_plan(weights=(50, 100), margin=0.05)
    took = [
        run_rollout(plan, random.Random(seed), candidate=lambda _: 0.1, champion=lambda _: 0.1, requests=20_000)
        for seed in range(40)
    ]
    promoted = [requests / 2 for verdict, requests in took if verdict.kind == "promote"]
    assert len(promoted) >= 36
    assert 0.6 < statistics.median(promoted) / told.outcomes < 1.4


KEYED = {"analysis": {"margin": 0.1, "risk": 0.05}, "cohorts": {"key": "x-user"}}


def test_too_few_keys_are_told_with_the_number_that_is_needed() -> None:
    resource = example_resource(rollout=KEYED)
    assert too_few_keys(resource, HistorySeen(per_second=10, outcomes=20_000, error=0.1, keys=300)) is None
    assert too_few_keys(resource, HistorySeen(per_second=10, outcomes=20_000, error=0.1, keys=40)) == (
        "40 keys of x-user were seen in 20,000 outcomes, and about 216 are needed: each counts once, and 108 must be "
        "the candidate's at 50 %"
    )


def test_keys_that_are_still_coming_are_not_too_few() -> None:
    resource = example_resource(rollout=KEYED)
    assert too_few_keys(resource, HistorySeen(per_second=10, outcomes=100, error=0.1, keys=40)) is None
    assert too_few_keys(resource, HistorySeen(keys=0)) is None, "nothing has been seen yet"


def test_a_header_that_no_request_carries_is_no_key() -> None:
    found = too_few_keys(example_resource(rollout=KEYED), HistorySeen(per_second=10, outcomes=100, error=0.1, keys=0))
    assert found == "no request of the champion carried the header x-user, whose keys are to be counted"


def test_where_requests_are_assigned_no_keys_are_needed() -> None:
    assert too_few_keys(example_resource(), HistorySeen(per_second=10, outcomes=100, error=0.1)) is None


def test_copies_are_told_by_their_requests_and_need_at_most_twice_the_variance() -> None:
    resource = example_resource(rollout={"shadow": True})
    found = power_of(resource, HistorySeen(per_second=1.0, error=0.1, outcomes=1000))
    assert found is not None
    assert (found.weight, found.outcomes) == (0, 2697)
    assert found.words() == (
        "a candidate as good as the champion needs at most about 2,697 copied requests, 0.7 h at the present rate "
        "(error 0.1)"
    )


def test_copies_are_recommended_where_all_are_labelled_whatever_the_answer() -> None:
    history = HistorySeen(per_second=1.0, error=0.1, outcomes=1000)
    rollout = {"steps": [{"weight": 5}, {"weight": 100}]}
    labels = {"fields": [{"name": "defect", "type": "class"}], "control": 0.9}
    advice = shadow_advice(example_resource(rollout=rollout), history)
    assert advice is not None
    assert "copies of at most about 2,697 requests, before any user gets its answer; without," in advice
    assert "about 28,400 requests" in advice
    for spec in (
        {"rollout": {"shadow": True}},
        {"rollout": {"steps": [{"weight": 100}]}},
        {"rollout": {"cohorts": {"key": "x-user"}}},
        {"serving": {"driver": "knative"}},
        {"labels": labels},
    ):
        assert shadow_advice(example_resource(**spec), history) is None, spec
