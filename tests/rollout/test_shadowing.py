"""A candidate that answers copies first: what lets it go on, what ends it, and that no user sees it meanwhile."""

from collections.abc import Mapping

import msgspec
import pytest
from tests.rollout.test_machine import Story

from tidemill.core.errors import Conflict
from tidemill.rollout.cells import StepEvidence
from tidemill.rollout.machine import plan_for, progress, wanted
from tidemill.rollout.plan import SHADOW, Version
from tidemill.stats.betting import for_promotion
from tidemill.testing.loop import example_resource
from tidemill.testing.rollout import EPOCH_MS, evidence_for, example_plan


def shadowing(*, slow: bool = False, **changes: object) -> Story:
    story = Story(example_plan(shadow=True, **changes), slow=slow)
    story.traffic.settle()
    story.traffic.become_ready("v2")
    story.tick(1 if slow else 2)
    assert story.phase == "shadowing"
    return story


def test_copies_are_asked_for_when_it_is_ready_and_count_when_they_are_seen() -> None:
    story = shadowing(slow=True)
    assert story.kinds == ["start-rollout", "shadow"]
    assert wanted(story.state).mirror == "v2"
    story.tick(3)
    assert story.spans == []
    story.traffic.settle()
    story.tick()
    (span,) = story.spans
    assert (span.step, span.weight, span.until) == (SHADOW, 0, None)
    assert span.since == EPOCH_MS + 5000 + 4000, "the proxy's workers follow a moment later"
    assert (story.share("v1"), story.share("v2")) == (100, 0)


def test_evidence_of_copies_gives_the_first_share_and_a_test_of_its_answers_to_users_the_rest() -> None:
    story = shadowing()
    story.tick(verdict="promote")
    assert (story.phase, story.share(), wanted(story.state).mirror) == ("canary", 5, None)
    assert story.kinds[-1] == "set-traffic"
    assert story.spans[0].until is not None
    story.tick()
    evidence = evidence_for(story.plan, "promote", 0)
    (own,) = evidence.steps
    untested = StepEvidence(step=0, process=for_promotion(story.plan.step_margin(0)), candidate=60)
    for step in (msgspec.structs.replace(own, candidate=49), untested):
        told = progress(story.state, msgspec.structs.replace(evidence, steps=(step,)))
        assert told["verdict"] == "inconclusive"
        assert f"of its answers to users {step.candidate} of 50 outcomes at 5 %" in str(told["reason"])
    story.tick(verdict="promote")
    assert story.phase == "promoting"
    story.tick()
    assert story.state.result == "promoted"
    assert [span.step for span in story.state.shares] == [0]


def test_where_the_only_step_is_all_requests_copies_decide() -> None:
    story = shadowing(weights=(100,))
    story.tick(verdict="promote")
    assert (story.phase, story.share()) == ("promoting", 100)


def test_harm_in_copies_ends_it_before_any_user_was_answered() -> None:
    story = shadowing()
    story.tick(verdict="roll back")
    assert story.phase == "rolling-back"
    story.tick(2)
    assert story.state.result == "rolled back"
    assert [one.mirror for one in story.traffic.applied][-1] is None
    assert not any(one.share for wish in story.traffic.applied for one in wish.revisions if one.version == "v2")


def test_a_candidate_that_fails_on_copies_is_rolled_back_without_a_label() -> None:
    story = shadowing()
    story.traffic.answered("v1", requests=100)
    story.traffic.answered("v2", requests=100, errors=10)
    assert story.tick().phase == "rolling-back"


def test_what_copies_cost_is_not_held_against_the_canary() -> None:
    story = shadowing()
    story.traffic.answered("v2", requests=10, errors=4)
    story.tick(verdict="promote")
    story.tick()
    story.traffic.answered("v2", requests=200, errors=1)
    assert story.tick().phase == "canary"


def test_a_candidate_whose_server_ends_is_rolled_back_and_its_span_ends_before_that() -> None:
    story = shadowing()
    story.tick(20)
    story.traffic.become_unready("v2")
    story.tick()
    until = story.spans[0].until
    assert until is not None
    assert until == EPOCH_MS + 23_000 - 4000
    story.tick(11)
    assert story.state.result == "rolled back"


@pytest.mark.parametrize(("on_timeout", "phase"), [("hold", "shadowing"), ("rollBack", "done")])
def test_copies_have_their_own_time(on_timeout: str, phase: str) -> None:
    story = shadowing(timeout_ms=30_000, on_timeout=on_timeout)
    story.tick(31)
    assert story.phase == phase
    assert "no verdict within 30 s" in story.moves[-1].reason


def test_the_time_of_the_shares_begins_with_the_first() -> None:
    story = shadowing(timeout_ms=30_000, on_timeout="rollBack")
    story.tick(20)
    story.tick(verdict="promote")
    story.tick(20)
    assert story.phase == "canary"


def test_a_person_pauses_aborts_or_lets_it_go_on_and_never_straight_to_all_requests() -> None:
    story = shadowing()
    story.ask("pause")
    story.tick(3, verdict="promote")
    assert (story.phase, story.share()) == ("shadowing", 0)
    story.ask("resume")
    story.ask("promote")
    assert (story.phase, story.share()) == ("canary", 5)
    other = shadowing()
    other.ask("abort")
    other.tick(2)
    assert other.state.result == "rolled back"
    with pytest.raises(Conflict):
        shadowing().ask("approve")


def test_approval_comes_before_copies() -> None:
    story = Story(example_plan(shadow=True, approval=True))
    story.traffic.become_ready("v2")
    story.tick()
    assert (story.phase, wanted(story.state).mirror) == ("awaiting-approval", None)
    story.ask("approve")
    assert (story.phase, story.kinds[-1], wanted(story.state).mirror) == ("shadowing", "approve", "v2")


def test_a_first_version_and_one_that_is_brought_back_answer_no_copies() -> None:
    resource = example_resource(rollout={"shadow": True})
    story = Story()
    plans = [
        plan_for(resource, candidate=Version("v2", "/a"), champion=champion, offsets={}, now=story.now, reverts=reverts)
        for champion, reverts in ((None, ""), (Version("v1", "/b"), "it was worse"), (Version("v1", "/b"), ""))
    ]
    assert [plan.shadow for plan in plans] == [False, False, True]


def test_how_it_stands_is_told() -> None:
    told = progress(shadowing().state, evidence_for(example_plan(shadow=True), "", 0))
    assert (told["phase"], told["weight"], told["verdict"]) == ("shadowing", 0, "inconclusive")
    assert str(told["reason"]).startswith(
        "error 0.100 in 60 copies, 0.100 of the champion's answers; evidence to promote"
    )
    assert (told["copied_requests"], told["copies_error"]) == (60, 0.1)


def test_copies_that_are_logged_as_users_answers_end_it() -> None:
    story = shadowing()
    evidence = evidence_for(story.plan, "promote", 0)

    def seen(unmarked: int) -> Mapping[str, object]:
        pairs = msgspec.structs.replace(evidence.pairs, unmarked=unmarked)
        return progress(story.state, msgspec.structs.replace(evidence, pairs=pairs))

    assert seen(4)["verdict"] == "go on", "somebody who tries its server by hand asks without the header, too"
    told = seen(5)
    assert told["verdict"] == "roll back"
    assert "does not send the header x-tidemill-mirror" in str(told["reason"])
