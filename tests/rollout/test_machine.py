"""The rollout's machine, ticked by hand over a traffic driver in memory."""

from datetime import timedelta
from typing import Literal

import msgspec
import pytest

from tidemill.core.clock import from_ms
from tidemill.core.errors import Conflict
from tidemill.rollout.driver import RevisionWanted, TrafficWanted
from tidemill.rollout.machine import (
    HistorySeen,
    Move,
    Observation,
    RolloutPlan,
    RolloutState,
    Version,
    advance,
    asked,
    plan_for,
    progress,
    start,
    wanted,
)
from tidemill.rollout.plan import Span
from tidemill.testing.loop import example_resource
from tidemill.testing.rollout import EPOCH_MS, evidence_for, example_plan
from tidemill.testing.traffic import MemoryTrafficDriver

Ask = Literal["abort", "pause", "resume", "approve", "promote"]


class Story:
    """One rollout and its surroundings. A `tick` is one tick of control, a second after the last."""

    def __init__(self, plan: RolloutPlan | None = None, *, slow: bool = False) -> None:
        self.plan = plan or example_plan()
        self.traffic = MemoryTrafficDriver(slow=slow)
        if self.plan.champion:
            name, artifact = self.plan.champion.name, self.plan.champion.artifact
            self.traffic.apply(TrafficWanted((RevisionWanted(version=name, artifact=artifact, share=100),)))
            self.traffic.become_ready(name)
            self.traffic.settle()
        self.now = from_ms(self.plan.started_at)
        self.moves: list[Move] = []
        self.verdict = ""
        self.state = self._take(start(self.plan))
        self.traffic.apply(wanted(self.state))

    def tick(self, times: int = 1, verdict: str = "") -> RolloutState:
        for _ in range(times):
            self.now += timedelta(seconds=1)
            found = evidence_for(self.plan, verdict, self.state.step) if self.plan.champion else None
            seen = Observation(traffic=self.traffic.observe(), evidence=found)
            self.state = self._take(advance(self.state, seen, self.now))
            self.traffic.apply(wanted(self.state))
        return self.state

    def ask(self, kind: Ask, reason: str = "because") -> RolloutState:
        self.state = self._take(asked(self.state, kind, by="ada", reason=reason, now=self.now))
        self.traffic.apply(wanted(self.state))
        return self.state

    def share(self, version: str = "v2") -> int | None:
        seen = self.traffic.observe().revision(version)
        return seen.share if seen else None

    @property
    def phase(self) -> str:
        return self.state.phase

    @property
    def spans(self) -> list[Span]:
        return list(self.state.spans)

    @property
    def kinds(self) -> list[str]:
        return [move.kind for move in self.moves]

    def _take(self, advanced: tuple[RolloutState, tuple[Move, ...]]) -> RolloutState:
        state, moves = advanced
        self.moves.extend(moves)
        # What is written to the status is what is read from it.
        return msgspec.json.decode(msgspec.json.encode(state), type=RolloutState)


def in_canary(**changes: object) -> Story:
    story = Story(example_plan(**changes))
    story.traffic.become_ready("v2")
    story.tick(2)
    assert story.spans
    return story


def test_a_candidate_gets_nothing_before_it_is_ready() -> None:
    story = Story()
    story.tick(3)
    assert story.phase == "starting"
    assert story.share() == 0
    story.traffic.become_ready("v2")
    story.tick()
    assert story.share() == 5
    assert story.kinds == ["start-rollout", "set-traffic"]


def test_a_step_begins_when_its_share_is_seen_not_when_it_is_asked_for() -> None:
    story = Story(slow=True)
    story.traffic.settle()
    story.traffic.become_ready("v2")
    story.tick(3)
    assert story.spans == []
    story.traffic.settle()
    story.tick()
    assert [(span.step, span.weight) for span in story.spans] == [(0, 5)]
    assert story.spans[0].since == EPOCH_MS + 4000
    assert story.kinds[-1] == "step-began"


def test_the_whole_way_up() -> None:
    story = in_canary()
    shares = [story.share()]
    for _ in range(2):
        story.tick(verdict="go on")
        story.tick()
        shares.append(story.share())
    story.tick(verdict="promote")
    shares.append(story.share())
    story.tick()
    assert shares == [5, 25, 50, 100]
    assert story.phase == "done"
    assert story.state.result == "promoted"
    assert story.kinds == [
        *("start-rollout", "set-traffic", "step-began"),
        *("go-on", "step-began", "go-on", "step-began"),
        *("set-traffic", "promote"),
    ]
    assert story.moves[-1].figures["artifact"] == "/artifacts/v2"
    assert [one.version for one in wanted(story.state).revisions] == ["v2"]


def test_promotion_may_come_at_any_step_and_is_done_when_seen() -> None:
    story = in_canary()
    story.traffic._slow = True
    story.tick(verdict="promote")
    assert (story.phase, story.share()) == ("promoting", 5)
    story.tick(2)
    assert story.phase == "promoting"
    story.traffic.settle()
    assert story.tick().result == "promoted"


def test_the_time_between_two_steps_belongs_to_neither() -> None:
    story = in_canary()
    story.traffic._slow = True
    story.tick(verdict="go on")
    story.tick(2)
    story.traffic.settle()
    story.tick()
    first, second = story.spans
    assert first.until is not None
    assert second.since - first.until == 3000


def test_a_worse_candidate_loses_its_traffic_and_then_its_server() -> None:
    story = in_canary()
    story.tick(verdict="roll back")
    assert story.share() == 0
    assert story.phase == "rolling-back"
    story.tick()
    assert (story.phase, story.state.result) == ("done", "rolled back")
    assert story.share() is None
    assert story.share("v1") == 100
    assert story.kinds[-2:] == ["roll-back", "rolled-back"]
    assert story.moves[-2].figures["weight"] == 5


def test_a_rolled_back_candidate_never_gets_traffic_again() -> None:
    story = in_canary()
    story.tick(verdict="roll back")
    for verdict in ("promote", "go on", ""):
        story.tick(verdict=verdict)
        assert not story.share()


def test_rolling_back_waits_until_the_champion_is_seen_with_everything() -> None:
    story = in_canary()
    story.traffic._slow = True
    story.tick(verdict="roll back")
    story.tick(2)
    assert (story.phase, story.share()) == ("rolling-back", 5)
    story.traffic.settle()
    assert story.tick().phase == "done"


@pytest.mark.parametrize("verdict", ["", "hold"])
def test_without_a_verdict_the_share_stays(verdict: str) -> None:
    story = in_canary()
    story.tick(5, verdict=verdict)
    assert story.share() == 5
    assert story.phase == "canary"


def test_a_hold_is_told_once() -> None:
    story = in_canary()
    story.tick(5, verdict="hold")
    assert story.kinds.count("hold") == 1
    assert "held at 5 %: the candidate's share of the requests" in story.moves[-1].reason


def test_a_server_that_cannot_start_is_rolled_back_with_its_own_words() -> None:
    story = Story()
    story.traffic.fail("v2", "model.onnx has changed")
    story.tick(2)
    assert story.state.result == "rolled back"
    assert "model.onnx has changed" in story.state.reason


def test_a_server_that_is_not_ready_in_time_is_rolled_back() -> None:
    story = Story(example_plan(ready_within_ms=5000))
    story.tick(4)
    assert story.phase == "starting"
    story.tick(2)
    assert story.state.result == "rolled back"
    assert "not ready within 5 s" in story.state.reason


def test_failing_requests_end_a_rollout_at_once() -> None:
    story = in_canary()
    story.traffic.answered("v1", requests=200, errors=1)
    story.traffic.answered("v2", requests=20, errors=4)
    story.tick()
    assert story.phase == "canary"  # four may be one bad moment
    story.traffic.answered("v2", requests=1, errors=1)
    story.tick()
    assert story.phase == "rolling-back"
    assert "5 of 21 requests to v2 failed" in story.state.reason


def test_errors_that_the_champion_has_too_are_not_the_candidates() -> None:
    story = in_canary()
    story.traffic.answered("v1", requests=200, errors=40)
    story.traffic.answered("v2", requests=50, errors=10)
    assert story.tick().phase == "canary"


def test_errors_before_the_canary_are_not_held_against_it() -> None:
    story = Story()
    story.traffic.become_ready("v2")
    story.traffic.answered("v2", requests=100, errors=50)
    story.tick(2)
    story.traffic.answered("v2", requests=100)
    assert story.tick().phase == "canary"


def test_counters_that_start_anew_are_no_errors() -> None:
    story = in_canary()
    story.traffic.answered("v2", requests=100, errors=1)
    story.tick()
    story.traffic._change("v2", requests=3, errors=0)
    assert story.tick().phase == "canary"


def test_a_candidate_that_stops_answering_is_rolled_back_after_a_moment() -> None:
    story = in_canary()
    story.traffic.become_unready("v2")
    story.tick(9)
    assert story.phase == "canary"
    assert story.share("v1") == 100
    story.tick(2)
    assert story.phase == "rolling-back"


def test_a_restart_of_everything_is_not_the_candidates_fault() -> None:
    story = in_canary()
    story.traffic.become_unready("v2")
    story.traffic.become_unready("v1")
    story.tick(60)
    assert story.phase == "canary"
    story.traffic.become_ready("v1")
    story.traffic.become_ready("v2")
    story.tick(2)
    assert story.share() == 5
    assert [span.until is None for span in story.spans] == [False, True]


def test_what_was_predicted_shortly_before_a_share_was_lost_does_not_count() -> None:
    story = in_canary()
    story.tick(20)
    lost_at = story.now + timedelta(seconds=1)
    story.traffic.become_unready("v2")
    story.tick()
    span = story.spans[0]
    assert span.until is not None
    assert from_ms(span.until) == lost_at - timedelta(milliseconds=story.plan.age_ms)


def test_at_the_timeout_it_is_held_and_still_protected() -> None:
    story = in_canary(timeout_ms=10_000)
    story.tick(12)
    assert story.kinds.count("hold") == 1
    assert "no verdict within 10 s" in story.moves[-1].reason
    story.tick(verdict="promote")
    assert story.share() == 5
    assert story.tick(2, verdict="roll back").result == "rolled back"


def test_at_the_timeout_it_is_rolled_back_where_the_spec_says_so() -> None:
    story = in_canary(timeout_ms=10_000, on_timeout="rollBack")
    story.tick(12)
    assert story.state.result == "rolled back"
    assert "no verdict within 10 s" in story.state.reason


def test_a_timeout_comes_even_where_no_outcomes_can_be_read() -> None:
    story = in_canary(timeout_ms=3000, on_timeout="rollBack")
    story.now += timedelta(seconds=5)
    state, _ = advance(story.state, Observation(traffic=story.traffic.observe()), story.now)
    assert state.phase == "rolling-back"


def test_the_first_version_goes_straight_to_all_traffic() -> None:
    story = Story(example_plan(champion=None, weights=(100,)))
    story.tick(2)
    assert story.share() == 0
    story.traffic.become_ready("v2")
    story.tick(2)
    assert story.state.result == "promoted"
    assert story.share() == 100
    assert story.kinds == ["start-rollout", "set-traffic", "promote"]


def test_a_first_version_that_cannot_start_leaves_nothing_served() -> None:
    story = Story(example_plan(champion=None, weights=(100,)))
    story.traffic.fail("v2", "no such codec")
    story.tick(2)
    assert story.state.result == "rolled back"
    assert wanted(story.state).revisions == ()


@pytest.mark.parametrize("phase", ["starting", "canary", "promoting"])
def test_an_abort_takes_everything_back(phase: str) -> None:
    story = Story() if phase == "starting" else in_canary()
    if phase == "promoting":
        story.traffic._slow = True
        story.tick(verdict="promote")
    assert story.phase == phase
    story.ask("abort", "looks odd")
    story.traffic.settle()
    story.tick()
    assert story.state.result == "rolled back"
    assert "aborted by ada: looks odd" in story.state.reason
    assert story.share("v1") == 100


def test_a_paused_rollout_goes_nowhere_but_back() -> None:
    story = in_canary()
    story.ask("pause")
    story.tick(verdict="go on")
    story.tick(verdict="promote")
    assert story.share() == 5
    story.ask("resume")
    story.tick(verdict="go on")
    assert story.share() == 25
    story.tick()
    story.ask("pause")
    story.tick(2, verdict="roll back")
    assert story.state.result == "rolled back"


def test_a_person_may_promote_without_a_verdict_and_it_is_shown_as_such() -> None:
    story = in_canary()
    story.ask("promote", "tested by hand")
    story.tick()
    assert story.state.result == "promoted"
    assert "promoted by hand by ada: tested by hand" in story.moves[-1].reason


@pytest.mark.parametrize(("phase", "kind"), [("starting", "promote"), ("starting", "resume"), ("done", "abort")])
def test_what_cannot_be_done_in_a_phase_is_refused_with_the_phase(phase: str, kind: Ask) -> None:
    story = Story() if phase == "starting" else in_canary()
    if phase == "done":
        story.tick(2, verdict="roll back")
    with pytest.raises(Conflict, match=phase):
        story.ask(kind)


def test_a_plan_takes_everything_from_the_spec_and_the_history() -> None:
    resource = example_resource(
        rollout={
            "steps": [{"weight": 10}, {"weight": 100}],
            "analysis": {"margin": 0.05, "risk": 0.1, "minOutcomes": 30, "timeout": "1h", "onTimeout": "rollBack"},
        }
    )
    plan = plan_for(
        resource,
        candidate=Version("v2", "/a"),
        champion=Version("v1", "/b"),
        offsets={0: 7},
        now=from_ms(EPOCH_MS),
        history=HistorySeen(visible={"ok": 0.99}, per_second=40.0),
    )
    assert (plan.weights, plan.margin, plan.risk, plan.min_outcomes) == ((10, 100), 0.05, 0.1, 30)
    assert (plan.timeout_ms, plan.on_timeout, plan.age_ms) == (3_600_000, "rollBack", 4000)
    assert (plan.offsets, plan.visible, plan.window_ms, plan.control) == ({0: 7}, {"ok": 0.99}, 1000, 1.0)


@pytest.mark.parametrize(("rate", "seconds"), [(1000.0, 1), (40.0, 1), (4.0, 10), (0.01, 3600), (None, 10)])
def test_a_cell_is_long_enough_for_two_requests_of_the_smaller_arm(rate: float | None, seconds: int) -> None:
    resource = example_resource(rollout={"analysis": {"timeout": "900d"}})
    plan = plan_for(
        resource,
        candidate=Version("v2", "/a"),
        champion=Version("v1", "/b"),
        offsets={},
        now=from_ms(EPOCH_MS),
        history=HistorySeen(per_second=rate),
    )
    assert plan.window_ms == seconds * 1000


def test_a_single_step_of_100_is_a_promotion_without_a_test() -> None:
    story = Story(example_plan(weights=(100,)))
    story.traffic.become_ready("v2")
    story.tick(2)
    assert story.state.result == "promoted"


def test_moves_are_numbered_without_a_gap() -> None:
    story = in_canary()
    story.tick(2, verdict="roll back")
    assert [move.number for move in story.moves] == list(range(1, len(story.moves) + 1))


def test_the_start_decision_holds_the_whole_plan() -> None:
    story = Story()
    figures = msgspec.json.decode(msgspec.json.encode(story.moves[0].figures))
    assert msgspec.convert(figures, type=RolloutPlan, strict=False) == story.plan


def test_progress_tells_the_verdict_so_far() -> None:
    story = in_canary()
    told = progress(story.state, evidence_for(story.plan, "", 0))
    assert (told["phase"], told["weight"], told["verdict"]) == ("canary", 5, "inconclusive")
    assert told["e_needed"] == pytest.approx(20)


def waiting_for_approval(**changes: object) -> Story:
    story = Story(example_plan(approval=True, **changes))
    story.traffic.become_ready("v2")
    story.tick()
    assert story.phase == "awaiting-approval"
    return story


def test_a_candidate_that_needs_approval_gets_nothing_until_a_person_says_so() -> None:
    story = waiting_for_approval()
    story.tick(5, verdict="promote")
    assert (story.phase, story.share(), story.kinds) == ("awaiting-approval", 0, ["start-rollout", "await-approval"])
    story.ask("approve", "looked at the worst slices")
    story.tick(2)
    assert (story.phase, story.share()) == ("canary", 5)
    assert story.kinds[2:] == ["approve", "step-began"]
    assert story.moves[2].reason == "approved by ada: looked at the worst slices: it is to get 5 %"


def test_the_time_that_people_take_is_not_taken_from_the_rollout() -> None:
    story = waiting_for_approval(timeout_ms=60_000, on_timeout="rollBack")
    story.tick(120)
    story.ask("approve")
    story.tick(59)
    assert story.phase == "canary"
    story.tick(2)
    assert story.state.result == "rolled back"


def test_a_candidate_that_waits_can_be_aborted_and_nothing_else_is_approved() -> None:
    story = waiting_for_approval()
    with pytest.raises(Conflict, match="nothing to promote") as refused:
        story.ask("promote")
    assert refused.value.hint == "`tidemill rollout approve` comes first"
    story.ask("abort")
    assert story.tick().result == "rolled back"
    with pytest.raises(Conflict, match="nothing to approve"):
        in_canary().ask("approve")


def test_a_candidate_whose_server_fails_while_it_waits_is_over() -> None:
    story = waiting_for_approval()
    story.traffic.fail("v2", "out of memory")
    assert story.tick(2).result == "rolled back"


def test_a_candidate_that_is_too_slow_for_long_is_taken_back() -> None:
    story = in_canary(latency_guard_ms=100.0)
    story.traffic.slow("v2", 900.0)
    story.tick(9)
    story.traffic.slow("v2", 90.0)
    story.tick()
    story.traffic.slow("v2", 900.0)
    story.tick(10)
    assert story.phase == "canary"
    story.traffic.slow("v2", None)  # a moment without requests tells nothing
    story.tick()
    story.traffic.slow("v2", 900.0)
    story.tick()
    assert story.phase == "canary"
    story.tick()
    assert story.phase == "rolling-back"
    assert story.state.reason == (
        "99 % of the answers of v2 take up to 900 ms, for 10 s more than the 100 ms of rollout.guards"
    )


def test_two_slow_looks_around_a_silent_time_do_not_make_a_slow_candidate() -> None:
    story = in_canary(latency_guard_ms=100.0)
    for _ in range(3):
        story.traffic.slow("v2", 900.0)
        story.tick()
        story.traffic.slow("v2", None)
        story.tick(60)
    assert story.phase == "canary"
    story.traffic.slow("v2", 900.0)
    story.tick()
    story.now += timedelta(hours=1)  # nor does an hour in which nobody looked
    story.tick()
    assert story.phase == "canary"


def test_without_a_latency_guard_a_slow_candidate_stays() -> None:
    story = in_canary()
    story.traffic.slow("v2", 60_000.0)
    story.tick(60)
    assert story.phase == "canary"


def test_labels_that_are_faster_than_the_latency_guard_promote_nobody() -> None:
    story = in_canary(latency_guard_ms=100.0)
    story.tick(9, verdict="promote")
    assert (story.phase, story.share()) == ("canary", 5), "the guard has not looked for long"
    story.traffic.slow("v2", 900.0)
    story.tick(10, verdict="go on")
    assert (story.phase, story.share()) == ("canary", 5)
    story.traffic.slow("v2", 90.0)
    story.tick(verdict="promote")
    assert story.phase == "promoting"
