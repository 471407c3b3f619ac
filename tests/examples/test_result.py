"""`result.json`: each figure follows from what was recorded, and each goal can fail."""

from itertools import pairwise
from typing import Any

import pytest
from inspection.figures import Moments, rollout_after
from inspection.recording import Recording
from inspection.result import Goal, Result


def goal(result: Result, word: str) -> Goal:
    (found,) = [one for one in result.goals if word in one.name]
    return found


def test_accuracy_is_of_one_version_with_all_traffic(result: Result) -> None:
    assert result.accuracy["before"] == pytest.approx(0.98, abs=0.01)
    assert result.accuracy["drifted"] == pytest.approx(0.4, abs=0.02)
    assert result.accuracy["after"] == pytest.approx(0.98, abs=0.01)
    assert result.answers["drifted"] == 320 + 8  # from the change of light to the candidate's first share


def test_the_shares_are_those_seen_at_the_proxy(result: Result) -> None:
    assert result.rollout["weights"] == [5, 25, 100]
    assert [step.answered for step in result.rollout["steps"]] == pytest.approx([5, 25, 100], rel=0.2)
    assert result.promoted_after_s == 45.0


def test_drift_is_timed_from_the_change_of_light(result: Result) -> None:
    assert result.drift["detected_after_s"] == 13.0
    assert result.drift["features"] == ["brightness", "saturation"]


def test_the_bad_candidate_was_taken_back(result: Result) -> None:
    assert result.bad_candidate["verdict"] == "roll back"
    assert result.bad_candidate["max_share"] == 5
    assert result.bad_candidate["gates_skipped"]


def test_the_good_story_passes(result: Result) -> None:
    assert result.passed, [one for one in result.goals if not one.holds]


def test_phases_follow_each_other_without_a_gap(result: Result) -> None:
    way = [one for one in result.phases if one.part == "from the change of light to 100 %"]
    for one, after in pairwise(way):
        assert after.since_s == pytest.approx(one.since_s + one.seconds, abs=0.02)
    assert sum(one.seconds for one in way) == pytest.approx(result.promoted_after_s, abs=0.1)


@pytest.mark.parametrize("short", ["ingested", "logged", "joined"])
def test_one_missing_record_of_any_kind_is_a_loss(
    recording: Recording, moments: Moments, make: Any, short: str
) -> None:
    whole = make(recording, moments)
    counts = {"ingested": whole.events["sent"], "logged": len(recording.answers), "joined": len(recording.answers)}
    result = make(recording, moments, **{short: counts[short] - 1})
    assert result.lost == 1
    assert not goal(result, "nothing is lost").holds
    assert not result.passed


def test_a_quarantined_event_is_a_loss(recording: Recording, moments: Moments, make: Any) -> None:
    assert make(recording, moments, quarantined=1).lost == 1


def test_a_bad_candidate_that_is_promoted_fails_the_story(recording: Recording, moments: Moments, make: Any) -> None:
    recording.decisions = [
        type(one)(**{name: getattr(one, name) for name in one.__struct_fields__} | {"kind": "promote"})
        if one.kind == "rolled-back"
        else one
        for one in recording.decisions
        if one.kind != "roll-back"
    ]
    result = make(recording, moments)
    assert result.bad_candidate["verdict"] == "promoted"
    assert not result.passed


def test_without_a_second_rollout_there_is_no_verdict(recording: Recording, moments: Moments, make: Any) -> None:
    recording.decisions = [one for one in recording.decisions if one.time < (moments.returned_sent or 0)]
    result = make(recording, moments)
    assert result.bad_candidate["verdict"] is None
    assert not result.passed


def test_a_slow_machine_is_told_but_does_not_fail(recording: Recording, moments: Moments, make: Any) -> None:
    moments.ended = (moments.ended or 0) + 300_000
    result = make(recording, moments)
    assert not goal(result, "4 minutes").holds
    assert result.passed


def test_a_stationary_run_fails_if_anything_started_a_run(recording: Recording, moments: Moments, make: Any) -> None:
    still = Moments(started=moments.started, serving=moments.serving, line_stopped=moments.line_stopped)
    assert not make(recording, still).passed
    recording.decisions, recording.signals = recording.decisions[:3], recording.signals[:1]
    assert make(recording, still).passed


def test_a_rollout_under_way_has_no_end(recording: Recording, moments: Moments) -> None:
    recording.decisions = [one for one in recording.decisions if one.kind not in {"promote", "rolled-back"}]
    seen = rollout_after(recording, moments.light_changed)
    assert seen is not None
    assert seen.result == "under way"
    assert seen.ended_at is None
