"""A lost status is found again, at every point of the story, and the story goes on."""

from collections.abc import Callable

import msgspec
import pytest

from tidemill.control.state import LoopStatus
from tidemill.testing.loop import LoopBench, example_resource

Story = Callable[[LoopBench], None]


def serving(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()


def started(bench: LoopBench) -> None:
    serving(bench)
    bench.signal()
    bench.tick()


def granted(bench: LoopBench) -> None:
    started(bench)
    bench.claim(bench.started())


def canary(bench: LoopBench) -> None:
    granted(bench)
    run = bench.started()
    bench.propose(bench.answer(f"{run}-claim"))
    bench.tick(2)


def second_step(bench: LoopBench) -> None:
    canary(bench)
    old, new = shares(bench)
    bench.judged_until(lambda status: bool(status.rollout and status.rollout.weight == 25), {old: 0.3, new: 0.2})
    bench.tick(2)


def paused(bench: LoopBench) -> None:
    canary(bench)
    bench.ask("pause")


def promoted(bench: LoopBench) -> None:
    canary(bench)
    bench.ask("promote", reason="seen enough")
    bench.tick(4)


def taken_back(bench: LoopBench) -> None:
    canary(bench)
    bench.ask("abort", reason="enough")
    bench.tick(4)


def shares(bench: LoopBench) -> list[str]:
    return [one.version for one in bench.driver.observe().revisions]


def essence(status: LoopStatus) -> dict[str, object]:
    """What matters of a status: all but what is shown, what is bounded, and figures that nothing depends on."""
    run = status.run and msgspec.structs.replace(status.run, seen=False, step=None)
    rollout = status.rollout and msgspec.structs.replace(
        status.rollout, candidate_before=None, champion_before=None, figures={}, reason="", held=None, phase_since=0
    )
    champion = status.champion and msgspec.structs.replace(status.champion, since=0)
    return {
        "phase": status.phase,
        "champion": champion,
        "candidate": status.candidate and status.candidate.version,
        "previous": status.previous and status.previous.version,
        "run": run,
        "rollout": rollout,
        "traffic": msgspec.structs.replace(status.traffic, decision=""),
        "quiet_from": status.quiet_from,
        "starts": status.starts,
        "schedule": status.schedule,
        "held": status.agreement is not None and status.agreement.trusted is False,
        "last_run": status.last_run,
        "created_at": status.created_at,
        "alarms": status.drift.alarms,
    }


@pytest.mark.parametrize("story", [serving, started, granted, canary, second_step, paused, promoted, taken_back])
def test_a_lost_status_is_found_again(story: Story) -> None:
    bench = LoopBench()
    story(bench)
    before = bench.tick()
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    applied = len(bench.driver.applied)
    after = bench.tick(1, every_s=0)
    assert essence(after) == essence(before) | {"created_at": bench.log.decisions()[0].time}
    assert len(bench.driver.applied) == applied, "the traffic has moved"
    assert bench.kinds().count("rebuild") == 1


def refused_and_forced(bench: LoopBench) -> None:
    """Runs by hand and from the KFP UI, one of them by force."""
    serving(bench)
    for name in ("ui-1", "ui-2"):
        answer = bench.ask("claim", by="kfp", run=name, force=True)
        bench.ask("failed", run=name, token=answer.figures["token"], step="train", error="x")
        bench.clock.advance(700)
    bench.ask("claim", by="kfp", run="ui-3")


def held(bench: LoopBench) -> None:
    serving(bench)
    bench.agree(0.62)


def released(bench: LoopBench) -> None:
    held(bench)
    bench.tick()
    bench.clock.advance(300)
    bench.agree(0.9)


def scheduled(bench: LoopBench) -> None:
    bench.bootstrap()
    bench.clock.advance(8000)
    bench.tick()
    bench.ask("claim", request_id="first-claim", run=bench.started())
    bench.clock.advance(30_000)


def due_again(bench: LoopBench) -> None:
    scheduled(bench)
    run = bench.status.run
    assert run is not None
    assert run.grant is not None
    bench.ask("failed", run=run.run, token=run.grant.token, step="train", error="x")


@pytest.mark.parametrize("story", [refused_and_forced, held, released, scheduled, due_again])
def test_budget_schedule_and_hold_are_found_again(story: Story) -> None:
    triggers = {
        "schedule": {"cron": "7 */6 * * *", "timezone": "Europe/Berlin"},
        "volume": {"newLabels": 1000},
        "cooldown": "5m",
        "budget": {"runs": 3, "per": "2h"},
    }
    bench = LoopBench(example_resource(triggers=triggers))
    story(bench)
    before = bench.tick()
    bench.log.judged.clear()  # as if it were too far back for a restart to read it
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    after = bench.tick(1, every_s=0)
    assert essence(after) == essence(before) | {"created_at": bench.log.decisions()[0].time}
    assert after.starts
    assert after.schedule is not None


@pytest.mark.parametrize("story", [started, granted, canary, second_step])
def test_the_story_goes_on_after_the_loss(story: Story) -> None:
    bench = LoopBench()
    story(bench)
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    bench.tick()
    if bench.status.run is not None:
        run = bench.started()
        asked = any(one.request_id == f"{run}-claim" for one in bench.log.asked)
        bench.propose(bench.answer(f"{run}-claim") if asked else bench.claim(run))
        bench.tick(2)
    old, new = shares(bench)
    bench.judged_until(lambda status: status.phase == "Watching", {old: 0.4, new: 0.05})
    assert shares(bench) == [new]


def test_the_loss_spends_no_risk_twice() -> None:
    """The evidence after the loss is that of the same outcomes, neither more nor less."""
    bench, other = LoopBench(), LoopBench()
    for one in (bench, other):
        second_step(one)
        old, new = shares(one)
        one.judge({old: 0.3, new: 0.2}, seconds=5)
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    for one in (bench, other):
        one.tick(10)
    same = ("e_promote", "e_roll_back", "candidate_outcomes", "blocks")
    assert bench.status.seen.rollout["e_promote"] != 1.0
    assert [bench.status.seen.rollout[name] for name in same] == [other.status.seen.rollout[name] for name in same]


def test_a_model_without_traces_is_new() -> None:
    bench = LoopBench()
    status = bench.tick()
    assert (status.phase, status.champion, bench.kinds()) == ("Bootstrapping", None, [])


def test_without_decisions_the_aliases_say_which_version_serves() -> None:
    bench = LoopBench()
    serving(bench)
    bench.log.published.clear()
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    status = bench.tick()
    assert status.champion is not None
    assert [status.champion.version] == shares(bench)
    assert status.champion.artifact == f"/artifacts/{status.champion.version}"


def test_without_decisions_and_aliases_the_traffic_says_which_version_serves() -> None:
    bench = LoopBench()
    serving(bench)
    bench.log.published.clear()
    bench.registry.set_alias(bench.resource.id, "champion", None)
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    status = bench.tick()
    assert status.champion is not None
    assert [status.champion.version] == shares(bench)
    assert bench.registry.aliases(bench.resource.id) == {"champion": status.champion.version}


def test_a_status_that_cannot_be_read_is_a_lost_one() -> None:
    bench = LoopBench()
    serving(bench)
    stored = bench.store.get(bench.resource.id)
    bench.store.put_status(bench.resource.id, b'{"phase": "Ser', version=stored.version)
    bench.restart()
    assert bench.tick().phase == "Serving"


def test_answered_requests_are_not_answered_again_and_open_ones_are() -> None:
    bench = LoopBench()
    serving(bench)
    bench.ask("abort", request_id="old")
    waiting = bench.write("pause", request_id="open")
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    bench.tick(2)
    assert bench.answer(waiting).kind == "refuse"
    assert bench.answer("old").kind == "refuse"
    assert len([one for one in bench.log.decisions() if one.answers]) == len(bench.log.asked)


def test_of_two_answers_of_which_one_was_lost_only_that_one_is_given_again() -> None:
    """They lie on different partitions, so that a crash may keep either."""
    bench = LoopBench()
    serving(bench)
    for name in ("first", "second"):
        bench.write("pause", request_id=name)
    bench.tick()
    bench.log.published = [one for one in bench.log.published if one.answers != "first"]
    bench.store.lose_status(bench.resource.id)
    bench.restart()
    bench.tick()
    assert [one.answers for one in bench.log.published if one.answers in {"first", "second"}] == ["second", "first"]
