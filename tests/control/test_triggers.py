"""Why a run starts, and why it does not: in words."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tidemill.control.state import LoopStatus
from tidemill.control.triggers import why_not_now
from tidemill.testing.loop import LoopBench, example_resource


def why_not(bench: LoopBench) -> tuple[str, ...]:
    return why_not_now(bench.resource, bench.status, bench.clock.now())


@pytest.fixture
def bench() -> LoopBench:
    return LoopBench()


def told(bench: LoopBench) -> tuple[str, ...]:
    """After the time in which what was seen is told again."""
    bench.tick(10)
    return why_not(bench)


def test_before_the_first_version_it_waits_for_labelled_events(bench: LoopBench) -> None:
    bench.labelled = 412
    assert told(bench) == ("the first run needs 1,000 labelled events; there are 412",)


def test_without_an_initial_dataset_it_waits_for_a_person() -> None:
    bench = LoopBench(example_resource(model={"codec": "a:B", "trainer": "a:C"}))
    (reason,) = told(bench)
    assert "tidemill retrain" in reason


def test_while_serving_it_waits_for_drift_and_for_labels(bench: LoopBench) -> None:
    version = bench.bootstrap()
    bench.clock.advance(400)
    bench.labelled = 17
    assert told(bench) == (
        f"no drift was signalled that is not answered yet for version {version}",
        "17 of 1,000 new labels since the champion's data",
    )


def test_a_cause_within_the_cooldown_is_told_with_what_is_left_of_it(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.signal()
    bench.clock.advance(59)
    bench.tick(4)
    hindrance, cause, volume = why_not(bench)
    assert volume == "0 of 1,000 new labels since the champion's data"
    assert hindrance == "the cooldown of 5m has 4m left"
    assert cause == "there is a cause: brightness fell from 0.62 to 0.41"


def test_a_run_and_a_rollout_are_reasons_by_themselves(bench: LoopBench) -> None:
    bench.bootstrap()
    run = bench.ask("retrain", by="ada", reason="a drill").subject
    assert why_not(bench) == (f"run {run} is under way (manual: asked for by ada: a drill)",)
    bench.propose(bench.claim(run))
    assert why_not(bench) == (f"candidate {run} is being rolled out",)


def test_a_paused_model_says_so_first(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.clock.advance(400)
    bench.declare(example_resource(paused=True))
    bench.signal()
    bench.tick()
    assert why_not(bench) == (
        "the model is paused (spec.paused)",
        "there is a cause: brightness fell from 0.62 to 0.41",
        "0 of 1,000 new labels since the champion's data",
    )


def test_nothing_is_said_when_a_run_is_about_to_start(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.clock.advance(400)
    signal = bench.signal()
    status = bench.status
    drift = msgspec.structs.replace(status.drift, pending=(signal,))
    about_to = msgspec.structs.replace(status, drift=drift)
    assert why_not_now(bench.resource, about_to, bench.clock.now()) == ()


@pytest.mark.parametrize("left_s", [1, 59.2, 61])
def test_the_cooldown_ends_exactly(bench: LoopBench, left_s: float) -> None:
    bench.bootstrap()
    ended = bench.status.quiet_from
    assert ended is not None
    bench.signal()
    bench.clock.advance(300 - left_s - 1)
    while bench.clock.now().timestamp() * 1000 < ended + 300_000 - 250:
        assert bench.tick().run is None
    assert bench.tick(2).run is not None


def test_without_triggers_only_people_start_runs() -> None:
    bench = LoopBench(example_resource(triggers={"volume": {"newLabels": 1000}}))
    bench.bootstrap()
    bench.declare(example_resource(triggers={}))
    bench.labelled = 10**6
    bench.clock.advance(timedelta(days=2).total_seconds())
    bench.signal()
    status: LoopStatus = bench.tick(3)
    assert status.run is None
    assert why_not(bench) == ("nothing is declared that would start one (spec.triggers)",)


def test_a_rise_of_the_error_starts_a_run_in_its_own_name(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.clock.advance(400)
    bench.signal("brightness")
    said = "error rose from 0.04 to 0.19, station=B, since 12:03"
    risen = bench.signal("error", kind="concept", subject="errors", slice="station=B", message=said)
    bench.tick()
    run = bench.status.run
    assert run is not None
    assert (run.cause, run.since) == ("concept", risen.since)
    assert run.reason == f"{said}; brightness fell from 0.62 to 0.41"


def test_of_several_quantities_with_one_name_each_state_and_alarm_is_kept(bench: LoopBench) -> None:
    bench.bootstrap()
    first = bench.signal("error", kind="state", subject="errors", message="error: reference too small")
    other = bench.signal(
        "error", kind="state", subject="errors", slice="station=B", message="error, station=B: too small"
    )
    bench.tick()
    assert bench.status.drift.states == (first, other)
    again = bench.signal("error", kind="state", subject="errors", message="error: cannot promise")
    bench.tick()
    assert bench.status.drift.states == (other, again)


def declared(**triggers: Any) -> LoopBench:
    """Serving, past the cooldown, with these triggers."""
    bench = LoopBench()
    bench.bootstrap()
    bench.clock.advance(400)
    bench.declare(example_resource(triggers={"cooldown": "5m"} | triggers))
    return bench


def started_for(bench: LoopBench) -> tuple[str, str]:
    run = bench.status.run
    assert run is not None
    return run.cause, run.reason


def figures(bench: LoopBench) -> dict[str, Any]:
    return next(one for one in reversed(bench.log.decisions()) if one.kind == "start-run").figures


RISEN = "error rose from 0.04 to 0.12, since 12:03"
DRIFT = {"tolerance": 0.2, "every": "1s"}


def test_a_performance_alarm_starts_a_run_only_where_that_is_declared() -> None:
    for triggers, cause in (({"performance": {}, "drift": DRIFT}, "performance"), ({"drift": DRIFT}, None)):
        bench = declared(**triggers)
        bench.signal("error", kind="performance", subject="errors", message=RISEN)
        bench.signal("error", kind="concept", subject="errors", version="another")
        run = bench.tick().run
        assert (run and run.cause) == cause


def test_a_performance_alarm_which_comes_only_once_is_answered_again_where_its_run_fails() -> None:
    bench = declared(performance={}, drift=DRIFT)
    bench.signal("error", kind="performance", subject="errors", message=RISEN)
    bench.tick()
    first = bench.claim(bench.started())
    bench.ask("failed", run=first.subject, token=first.figures["token"], step="train", error="the disk is full")
    assert bench.status.run is None
    bench.clock.advance(400)
    bench.tick()
    assert started_for(bench) == ("performance", RISEN)


def test_a_performance_alarm_is_answered_again_where_the_gates_refuse_or_the_rollout_is_rolled_back() -> None:
    bench = declared(performance={}, drift=DRIFT)
    bench.signal("error", kind="performance", subject="errors", message=RISEN)
    bench.tick()
    refused = bench.claim(bench.started())
    bench.ask("finished", run=refused.subject, token=refused.figures["token"], gates="[]")
    assert bench.tick().run is None, "not before the cooldown"
    bench.clock.advance(400)
    bench.tick()
    assert started_for(bench) == ("performance", RISEN)
    bench.propose(bench.claim(bench.started()))
    bench.tick(2)
    bench.ask("abort", reason="no better")
    bench.until(lambda status: status.rollout is None)
    bench.clock.advance(400)
    bench.tick()
    assert started_for(bench) == ("performance", RISEN)
    bench.propose(bench.claim(bench.started()))
    bench.tick(2)
    bench.ask("promote", reason="better")
    bench.until(lambda status: status.rollout is None)
    bench.clock.advance(400)
    assert bench.tick().run is None, "another version serves"


def test_a_performance_alarm_during_a_run_that_brings_nothing_waits_for_the_next() -> None:
    bench = declared(performance={}, drift=DRIFT)
    grant = bench.claim(bench.ask("retrain", reason="a drill").subject)
    bench.signal("error", kind="performance", subject="errors", message=RISEN)
    bench.tick()
    bench.ask("finished", run=grant.subject, token=grant.figures["token"])
    bench.clock.advance(400)
    bench.tick()
    assert started_for(bench) == ("performance", RISEN)


def test_a_performance_alarm_is_a_cause_after_the_status_is_lost() -> None:
    bench = declared(performance={}, drift=DRIFT, cooldown="2h")
    bench.signal("error", kind="performance", subject="errors", message=RISEN)
    assert bench.tick().run is None
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    bench.tick()
    bench.clock.advance(3 * 3600)
    bench.tick()
    assert started_for(bench) == ("performance", RISEN)


def test_a_rise_of_the_loss_and_drift_of_it_are_two_things() -> None:
    bench = declared(performance={}, drift=DRIFT)
    bench.signal("error", kind="concept", subject="errors", message="error rose")
    bench.signal("error", kind="performance", subject="errors", message=RISEN)
    assert len(bench.tick().drift.alarms) == 2
    assert started_for(bench) == ("performance", RISEN)
    assert figures(bench)["also"] == {"drift": "error rose"}


def test_what_keeps_the_loss_from_being_watched_is_told() -> None:
    bench = declared(performance={"rise": 0.02}, drift=DRIFT)
    version = bench.status.champion.version if bench.status.champion else ""
    waiting = f"no rise of the loss by more than 0.02 was signalled for version {version}"
    assert told(bench)[0] == waiting
    said = "performance: reference too small: has 40 votes, needs 9,000"
    bench.signal("performance", kind="state", subject="errors", message=said)
    assert told(bench)[0] == f"{waiting} ({said})"


def test_examples_of_a_class_that_the_champion_does_not_know_start_a_run() -> None:
    bench = declared(newClass={"minExamples": 50})
    version = bench.status.champion.version if bench.status.champion else ""
    assert told(bench) == (f"no label names a class that {version} does not know",)
    bench.new_classes = {"flip": 12, "fold": 49}
    assert told(bench) == ("49 of 50 examples of the new class 'fold'",)
    bench.new_classes = {"flip": 12, "fold": 50}
    bench.tick()
    assert started_for(bench) == ("newClass", f"50 examples of 'fold', which {version} does not know; 50 start a run")
    assert figures(bench)["new_classes"] == {"fold": 50, "flip": 12}


def test_with_all_a_run_waits_until_each_has_a_cause() -> None:
    bench = declared(volume={"newLabels": 100}, schedule={"cron": "0 * * * *"}, combine="all")
    bench.labelled = 100
    assert told(bench)[:2] == (
        "2 of 2 triggers must have a cause at the same time, 1 has one",
        "there is a cause: 100 new labels since the champion's data, 100 start a run",
    )
    at = "2026-01-02 04:00 UTC (0 * * * *)"
    bench.labelled = 99
    bench.clock.advance(3600)
    assert bench.tick(9).run is None
    bench.labelled = 100
    bench.tick()
    cause, reason = started_for(bench)
    assert cause == "combined"
    assert reason == f"100 new labels since the champion's data, 100 start a run; scheduled for {at}"
    assert figures(bench)["triggers"]["volume"] == {"labelled": 100, "needed": 100}


def test_at_least_two_of_three_and_either_kind_of_drift_is_one() -> None:
    three = {"volume": {"newLabels": 100}, "drift": DRIFT, "newClass": {"minExamples": 10}}
    bench = declared(**three, combine={"atLeast": 2})
    bench.signal()
    risen = bench.signal("error", kind="concept", subject="errors", message="error rose")
    assert bench.tick(9).run is None
    bench.new_classes = {"fold": 10}
    bench.tick()
    cause, reason = started_for(bench)
    assert (cause, bench.status.run and bench.status.run.since) == ("combined", risen.since)
    assert reason.startswith("error rose; brightness fell from 0.62 to 0.41; 10 examples of 'fold'")


def test_all_of_one_trigger_is_that_trigger() -> None:
    bench = declared(volume={"newLabels": 100}, combine="all")
    bench.labelled = 100
    bench.tick()
    assert started_for(bench)[0] == "volume"


def test_the_first_version_needs_no_trigger() -> None:
    bench = LoopBench(example_resource(triggers={"volume": {"newLabels": 10}, "newClass": {}, "combine": "all"}))
    bench.labelled = 10
    bench.tick()
    assert started_for(bench)[0] == "initial"
