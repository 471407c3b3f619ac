"""The loop's stories, ticked by hand: what happens, in which order, and why."""

import msgspec
import pytest

from tidemill.events.records import Outcome
from tidemill.testing.loop import LoopBench, example_resource


@pytest.fixture
def bench() -> LoopBench:
    return LoopBench()


@pytest.fixture
def serving() -> LoopBench:
    """A champion serves, and the cooldown after its start is over."""
    bench = LoopBench()
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    return bench


def champion(bench: LoopBench) -> str:
    found = bench.status.champion
    assert found is not None
    return found.version


def candidate(bench: LoopBench, **arguments: object) -> str:
    """A run that was started, claimed and proposed."""
    run = bench.started()
    bench.propose(bench.claim(run), **arguments)
    return run


# First start


def test_a_new_model_waits_for_its_dataset_and_serves_nothing(bench: LoopBench) -> None:
    bench.labelled = 999
    status = bench.tick(3)
    assert (status.phase, status.run, bench.driver.observe().revisions) == ("Bootstrapping", None, ())


def test_enough_labelled_events_start_the_first_run(bench: LoopBench) -> None:
    bench.labelled = 1000
    bench.tick()
    assert list(bench.runner.started) == [bench.started()]
    decision = bench.log.decisions()[-1]
    assert (decision.kind, decision.figures["cause"], decision.figures["labelled"]) == ("start-run", "initial", 1000)
    assert "1,000 labelled events are there" in decision.reason


def test_the_first_version_goes_straight_to_all_traffic(bench: LoopBench) -> None:
    first = bench.bootstrap()
    assert bench.kinds() == ["start-run", "grant", "start-rollout", "set-traffic", "promote"]
    assert [(one.version, one.share) for one in bench.driver.observe().revisions] == [(first, 100)]
    assert bench.registry.aliases(bench.resource.id) == {"champion": first}
    assert bench.log.decisions()[-1].figures["artifact"] == f"/artifacts/{first}"


def test_the_first_version_serves_only_once_it_is_ready() -> None:
    bench = LoopBench(ready_at_once=False)
    bench.labelled = 1000
    bench.tick()
    run = candidate(bench)
    assert bench.tick(5).phase == "Bootstrapping"
    bench.driver.become_ready(run)
    assert bench.tick(3).phase == "Serving"


def test_a_first_version_whose_server_fails_leaves_nothing_served(bench: LoopBench) -> None:
    bench = LoopBench(ready_at_once=False)
    bench.labelled = 1000
    bench.tick()
    run = candidate(bench)
    bench.driver.fail(run, "out of memory")
    status = bench.tick(4)
    assert (status.champion, status.candidate, status.rollout) == (None, None, None)
    assert bench.kinds()[-2:] == ["roll-back", "rolled-back"]


def test_with_initial_none_a_person_starts_the_first_run() -> None:
    model = {"codec": "inspection.model:Codec", "trainer": "inspection.model:Trainer"}
    bench = LoopBench(example_resource(model=model))
    bench.labelled = 10_000
    assert bench.tick(3).run is None
    answer = bench.ask("retrain", reason="the data is in")
    assert (answer.kind, answer.figures["cause"], answer.subject) == ("start-run", "manual", bench.started())


# Drift


def test_drift_leads_to_a_candidate_and_its_promotion(serving: LoopBench) -> None:
    old = champion(serving)
    serving.signal("brightness")
    serving.tick()
    new = candidate(serving)
    serving.judged_until(lambda status: status.phase == "Watching", {old: 0.4, new: 0.05})
    assert champion(serving) == new
    assert serving.registry.aliases(serving.resource.id) == {"champion": new, "previous": old}
    assert [one.share for one in serving.driver.observe().revisions] == [100]
    shares = [sum(one.share for one in wanted.revisions if one.version == new) for wanted in serving.driver.applied]
    assert shares == sorted(shares)
    assert set(shares) <= {0, 5, 25, 50, 100}


def test_a_bad_candidate_is_taken_back(serving: LoopBench) -> None:
    old = champion(serving)
    serving.signal()
    serving.tick()
    new = candidate(serving)
    status = serving.judged_until(lambda status: status.candidate is None, {old: 0.1, new: 0.9})
    assert (champion(serving), status.phase, status.previous) == (old, "Serving", None)
    assert [(one.version, one.share) for one in serving.driver.observe().revisions] == [(old, 100)]
    assert serving.registry.aliases(serving.resource.id) == {"champion": old}
    assert serving.kinds()[-2:] == ["roll-back", "rolled-back"]


def test_the_run_knows_since_when_the_input_drifts(serving: LoopBench) -> None:
    first = serving.signal("brightness")
    serving.signal("contrast", since=first.since and first.since - 3000)
    serving.tick()
    figures = serving.claim(serving.started()).figures
    assert figures["since"] == (first.since or 0) - 3000
    decision = next(one for one in serving.log.decisions() if one.subject == serving.started())
    assert decision.figures["features"] == ["brightness", "contrast"]
    assert "brightness fell" in decision.reason
    assert "contrast fell" in decision.reason


def test_a_signal_about_another_version_starts_nothing(serving: LoopBench) -> None:
    serving.signal(version="r20200101-000000")
    assert serving.tick(3).run is None
    assert serving.status.drift.alarms == ()


def test_a_state_of_the_watch_is_shown_and_starts_nothing(serving: LoopBench) -> None:
    serving.signal(kind="state", message="the reference is too small, it needs 345 votes")
    status = serving.tick(3)
    assert (status.run, [one.message for one in status.drift.states]) == (
        None,
        ["the reference is too small, it needs 345 votes"],
    )


def test_drift_is_latched_while_a_run_and_its_rollout_go_on(serving: LoopBench) -> None:
    old = champion(serving)
    serving.signal("brightness")
    serving.tick()
    serving.signal("contrast")
    new = candidate(serving)
    serving.signal("sharpness")
    serving.ask("abort", reason="enough")
    serving.clock.advance(400)
    status = serving.tick(8)
    assert (status.run, status.candidate, champion(serving)) == (None, None, old)
    assert [one.feature for one in status.drift.alarms] == ["brightness", "contrast", "sharpness"]
    assert list(serving.runner.started) == [old, new]


def test_an_alarm_after_a_failed_run_starts_the_next(serving: LoopBench) -> None:
    serving.signal()
    serving.tick()
    first = serving.started()
    grant = serving.claim(first)
    serving.ask("failed", run=first, token=grant.figures["token"], step="train", error="no memory")
    serving.signal()
    serving.clock.advance(400)
    serving.tick()
    assert serving.started() > first


def test_an_alarm_within_the_cooldown_waits_for_its_end(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.signal()
    assert bench.tick(4).run is None
    bench.clock.advance(300)
    assert bench.tick().run is not None


def test_a_promotion_starts_the_detectors_anew(serving: LoopBench) -> None:
    serving.signal()
    serving.tick()
    candidate(serving)
    serving.tick(2)
    serving.ask("promote", reason="I looked at it")
    assert serving.tick(4).drift.alarms == ()


# Volume and people


def test_new_labels_since_the_champions_data_start_a_run(serving: LoopBench) -> None:
    serving.labelled = 999
    assert serving.tick(2).run is None
    serving.labelled = 1000
    serving.tick()
    assert serving.log.decisions()[-1].figures["cause"] == "volume"


def test_labels_are_counted_from_the_grant_of_the_champions_run() -> None:
    bench = LoopBench()
    bench.labelled = 1000
    bench.tick()
    grant = bench.claim(bench.started())
    bench.clock.advance(60)
    bench.propose(grant)
    bench.tick(4)
    assert bench.status.champion is not None
    assert bench.status.champion.data_until == grant.time


def test_a_person_starts_a_run_within_the_cooldown(bench: LoopBench) -> None:
    bench.bootstrap()
    answer = bench.ask("retrain", by="ada", reason="a new lens", skip_gates=True)
    assert (answer.kind, answer.reason) == ("start-run", "asked for by ada: a new lens")
    assert bench.runner.started[answer.subject]["skip_gates"] is True


def test_a_person_is_told_what_runs_already(serving: LoopBench) -> None:
    serving.ask("retrain", reason="first")
    answer = serving.ask("retrain", reason="second")
    assert (answer.kind, answer.reason) == ("refuse", f"already running: {serving.started()}")


def test_skipped_gates_are_shown_where_the_rollout_starts(serving: LoopBench) -> None:
    answer = serving.ask("retrain", by="ada", reason="a drill", skip_gates=True)
    started = serving.propose(serving.claim(answer.subject))
    assert "gates were skipped, as ada asked" in started.reason
    assert started.figures["skip_gates"] is True


def test_a_rollout_is_paused_and_resumed(serving: LoopBench) -> None:
    old = champion(serving)
    serving.ask("retrain", reason="a drill")
    new = candidate(serving)
    serving.tick(2)
    assert serving.ask("pause").kind == "pause"
    serving.judge({old: 0.4, new: 0.05}, seconds=60)
    assert serving.status.rollout is not None
    assert serving.status.rollout.weight == 5
    serving.ask("resume")
    serving.judged_until(lambda status: status.phase == "Watching", {old: 0.4, new: 0.05})
    assert champion(serving) == new


@pytest.mark.parametrize("kind", ["abort", "pause", "resume", "promote"])
def test_without_a_rollout_there_is_nothing_to_ask_of_it(serving: LoopBench, kind: str) -> None:
    answer = serving.ask(kind)
    assert (answer.kind, answer.reason) == ("refuse", "no rollout is under way")


def test_a_request_is_answered_once_however_often_it_is_written(serving: LoopBench) -> None:
    first = serving.ask("retrain", request_id="twice", reason="a new lens")
    published = len(serving.log.published)
    serving.write("retrain", request_id="twice", reason="a new lens")
    serving.tick(2)
    assert serving.answer("twice") == first
    assert len(serving.log.published) == published
    assert len(serving.runner.started) == 2


def test_a_request_from_before_an_outage_is_refused(serving: LoopBench) -> None:
    name = serving.write("retrain", reason="hours ago")
    serving.clock.advance(3600)
    serving.tick()
    assert serving.answer(name).kind == "refuse"
    assert "ask again" in serving.answer(name).reason


# Paused


def test_a_paused_model_starts_nothing_and_says_so(serving: LoopBench) -> None:
    serving.declare(example_resource(paused=True))
    serving.signal()
    assert serving.tick(3).run is None
    assert serving.ask("retrain", reason="now").reason == "the model is paused (spec.paused)"
    assert serving.ask("claim", run="ui-1").kind == "refuse"


def test_a_paused_model_is_retrained_by_force(serving: LoopBench) -> None:
    serving.declare(example_resource(paused=True))
    assert serving.ask("retrain", reason="now", force=True).kind == "start-run"
    assert serving.claim(serving.started()).kind == "grant"


def test_an_alarm_while_paused_is_answered_afterwards(serving: LoopBench) -> None:
    serving.declare(example_resource(paused=True))
    serving.signal()
    serving.tick(2)
    serving.declare(example_resource())
    assert serving.tick().run is not None


def test_pausing_stops_a_canary_where_it_is(serving: LoopBench) -> None:
    old = champion(serving)
    serving.ask("retrain", reason="a drill")
    new = candidate(serving)
    serving.tick(2)
    serving.declare(example_resource(paused=True))
    serving.judge({old: 0.4, new: 0.05}, seconds=30)
    assert serving.status.rollout is not None
    assert serving.status.rollout.weight == 5
    assert serving.ask("abort", reason="a person may").kind == "roll-back"
    assert serving.tick(2).candidate is None


# What does not answer


def test_nothing_is_concluded_from_a_proxy_that_does_not_answer(serving: LoopBench) -> None:
    serving.ask("retrain", reason="a drill")
    candidate(serving)
    serving.driver.unavailable = True
    status = serving.tick(40)
    assert status.rollout is not None
    assert status.rollout.phase == "starting"
    assert any("traffic" in trouble for trouble in status.seen.troubles)
    serving.driver.unavailable = False
    status = serving.tick(12)
    assert status.rollout is not None
    assert (status.rollout.phase, status.seen.troubles) == ("canary", ())


def test_an_idle_loop_writes_nothing_and_moves_nothing(serving: LoopBench) -> None:
    serving.tick(20)
    writes, moves = serving.store.writes, len(serving.driver.applied)
    serving.registry.set_alias = lambda *_: pytest.fail("an alias that stands is set again")  # type: ignore[method-assign]
    serving.tick(100)
    assert (serving.store.writes, len(serving.driver.applied)) == (writes, moves)


def promoted(serving: LoopBench) -> tuple[str, str]:
    """A second version, promoted; the version before, and it."""
    old = champion(serving)
    serving.ask("retrain", reason="a drill")
    new = candidate(serving)
    serving.judged_until(lambda status: status.phase == "Watching", {old: 0.4, new: 0.05})
    return old, new


def found_late(serving: LoopBench, version: str) -> None:
    """All answers of a version turn out to have been wrong, and much later others are judged."""
    late = [one for one in serving.log.judged if isinstance(one, Outcome) and one.version == version]
    serving.log.judged += [msgspec.structs.replace(one, revision=1, loss=1.0) for one in late]
    serving.clock.advance(25 * 3600)


def test_errors_that_are_found_late_bring_back_the_version_before(serving: LoopBench) -> None:
    old, new = promoted(serving)
    found_late(serving, new)
    serving.judged_until(lambda status: status.phase == "Serving", {old: 0.4, new: 0.05}, seconds=20)
    status = serving.status
    assert status.champion is not None
    assert (status.champion.version, status.previous, status.watching) == (old, None, None)
    assert serving.kinds()[-6:] == ["watch-began", "revert", "watch-ended", "start-rollout", "set-traffic", "promote"]
    said = next(one for one in serving.log.decisions() if one.kind == "revert")
    assert said.subject == new
    assert said.reason.startswith(f"{old} is brought back: with late and corrected labels")
    assert [(one.version, one.share) for one in serving.driver.observe().revisions] == [(old, 100)]


def test_a_promotion_that_stands_is_told_to_stand(serving: LoopBench) -> None:
    old, new = promoted(serving)
    serving.clock.advance(25 * 3600)
    serving.judged_until(lambda status: status.phase == "Serving", {old: 0.4, new: 0.05}, seconds=30)
    assert champion(serving) == new
    said = next(one for one in serving.log.decisions() if one.kind == "watch-ended")
    assert said.reason.startswith("it is over, and the promotion stands: with late and corrected labels (0 changed)")


def test_a_new_candidate_ends_the_watch(serving: LoopBench) -> None:
    _, new = promoted(serving)
    serving.clock.advance(600)
    serving.ask("retrain", reason="another drill")
    third = candidate(serving)
    said = next(one for one in serving.log.decisions() if one.kind == "watch-ended")
    assert (said.subject, said.reason) == (new, f"{third} is the next candidate")
    assert serving.status.watching is None


def test_a_person_brings_the_version_before_back_and_a_run_in_flight_ends(serving: LoopBench) -> None:
    old, _ = promoted(serving)
    serving.clock.advance(600)
    serving.ask("retrain", reason="another drill")
    run = serving.started()
    assert serving.ask("revert", reason="customers complain").kind == "revert"
    serving.until(lambda status: status.phase == "Serving")
    assert champion(serving) == old
    assert serving.status.run is None
    assert run in serving.runner.stopped
    refused = serving.ask("revert")
    assert (refused.kind, refused.reason) == ("refuse", "there is no version before this one")


def test_a_person_brings_the_version_before_back_although_the_model_is_paused(serving: LoopBench) -> None:
    old, _ = promoted(serving)
    serving.declare(example_resource(paused=True))
    assert serving.ask("revert", reason="customers complain").kind == "revert"
    serving.until(lambda status: status.phase == "Serving")
    assert champion(serving) == old


def test_while_the_model_is_paused_the_watch_brings_nothing_back(serving: LoopBench) -> None:
    old, new = promoted(serving)
    serving.declare(example_resource(paused=True))
    found_late(serving, new)
    serving.judge({new: 0.05})
    serving.tick(20)
    assert (champion(serving), serving.status.phase) == (new, "Watching")
    serving.declare(example_resource())
    serving.judged_until(lambda status: champion(serving) == old, {new: 0.05}, seconds=30)


def test_a_watch_is_found_again_after_the_status_is_lost(serving: LoopBench) -> None:
    promoted(serving)
    watching = serving.status.watching
    serving.store.lose_status(serving.resource.id)
    serving.restart()
    assert serving.tick().watching == watching
    assert serving.status.phase == "Watching"


def test_without_a_watch_a_promotion_stays(serving: LoopBench) -> None:
    serving.declare(example_resource(rollout={"analysis": {"margin": 0.1, "minOutcomes": 20}, "watch": None}))
    old = champion(serving)
    serving.ask("retrain", reason="a drill")
    new = candidate(serving)
    serving.judged_until(lambda status: status.phase == "Serving", {old: 0.4, new: 0.05})
    assert serving.status.watching is None


def test_somebody_elses_edit_of_the_split_is_told_while_it_stands() -> None:
    bench = LoopBench()
    bench.bootstrap()
    bench.driver.foreign = "HTTPRoute phone-inspection-tidemill was edited by kubectl-edit"
    (told,) = bench.tick(12).seen.troubles
    assert told.startswith("traffic: HTTPRoute phone-inspection-tidemill was edited by kubectl-edit. It stands until")
    bench.driver.foreign = None
    assert bench.tick(12).seen.troubles == ()
