"""Runs by schedule: when they fall due, what makes up for missed ones, and what does not fire for the past."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tidemill.control.schedule import answered, begun_schedule
from tidemill.control.state import Schedule
from tidemill.control.triggers import why_not_now
from tidemill.core.clock import from_ms, to_ms
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import LoopBench, example_resource

BERLIN = ZoneInfo("Europe/Berlin")


def nightly(cron: str = "0 3 * * *", timezone: str = "Europe/Berlin", **triggers: object) -> ContinualModel:
    declared = {"schedule": {"cron": cron, "timezone": timezone}, "volume": {"newLabels": 1000}, "cooldown": "5m"}
    return example_resource(triggers=declared | triggers)


def until(bench: LoopBench, moment: datetime) -> None:
    bench.clock.advance((moment - bench.clock.now()).total_seconds())


def finish(bench: LoopBench) -> str:
    """The run in flight ends without a version; returns it."""
    run = bench.started()
    grant = bench.claim(run)
    bench.ask("finished", request_id=f"{run}-finished", run=run, token=grant.figures["token"])
    return run


def starts(bench: LoopBench) -> list[tuple[str, datetime]]:
    """Every run so far: its cause, and when it began."""
    return [(one.figures["cause"], from_ms(one.time)) for one in bench.log.decisions() if one.kind == "start-run"]


@pytest.fixture
def bench() -> LoopBench:
    """Serving since 2026-01-02, 03:04 UTC: past the night's firing in Berlin."""
    bench = LoopBench(nightly())
    bench.bootstrap()
    return bench


def due(schedule: Schedule | None) -> datetime:
    assert schedule is not None
    assert schedule.due is not None
    return from_ms(schedule.due).astimezone(ZoneInfo(schedule.timezone))


def test_a_run_starts_at_the_set_time_in_its_zone(bench: LoopBench) -> None:
    until(bench, datetime(2026, 1, 3, 1, 59, 59, tzinfo=UTC))
    assert bench.tick().run is None
    until(bench, datetime(2026, 1, 3, 2, 0, 0, tzinfo=UTC))
    run = bench.tick().run
    assert run is not None
    assert (run.cause, run.reason) == ("schedule", "scheduled for 2026-01-03 03:00 Europe/Berlin (0 3 * * *)")
    assert due(bench.status.schedule) == datetime(2026, 1, 4, 3, tzinfo=BERLIN)


def test_why_not_names_the_next_time(bench: LoopBench) -> None:
    until(bench, datetime(2026, 1, 2, 12, tzinfo=UTC))
    bench.tick(9)
    assert why_not_now(bench.resource, bench.status, bench.clock.now()) == (
        "0 of 1,000 new labels since the champion's data",
        "the next scheduled run is at 2026-01-03 03:00 Europe/Berlin",
    )


def test_after_an_outage_of_a_week_there_is_one_run(bench: LoopBench) -> None:
    until(bench, datetime(2026, 1, 9, 17, tzinfo=UTC))
    bench.tick()
    finish(bench)
    bench.clock.advance(3600)
    bench.tick(20)
    assert [cause for cause, _ in starts(bench)] == ["initial", "schedule"]
    assert due(bench.status.schedule) == datetime(2026, 1, 10, 3, tzinfo=BERLIN)


def test_firings_during_a_run_and_its_cooldown_are_made_up_for_by_one() -> None:
    bench = LoopBench(nightly("*/10 * * * *", cooldown="30m", budget={"runs": 100}))
    bench.bootstrap()
    bench.clock.advance(3600)
    bench.tick()
    run = bench.started()
    for _ in range(6):
        bench.clock.advance(600)
        bench.tick()
    assert bench.started() == run
    finish(bench)
    ended = bench.clock.now()
    bench.clock.advance(1700)
    assert bench.tick().run is None
    bench.clock.advance(100)
    assert bench.tick(2).run is not None
    assert bench.status.schedule is not None
    assert due(bench.status.schedule) > bench.clock.now()
    assert (starts(bench)[-1][1] - ended).total_seconds() >= 1800


def test_a_run_for_another_reason_answers_what_was_due(bench: LoopBench) -> None:
    until(bench, datetime(2026, 1, 3, 1, 59, 0, tzinfo=UTC))
    bench.ask("retrain", reason="a drill")
    until(bench, datetime(2026, 1, 3, 3, tzinfo=UTC))
    bench.tick()
    finish(bench)  # it was under way at 03:00, which it does not answer
    bench.clock.advance(400)
    assert bench.tick(2).run is not None
    assert [cause for cause, _ in starts(bench)] == ["initial", "manual", "schedule"]
    finish(bench)
    until(bench, datetime(2026, 1, 4, 2, tzinfo=UTC))
    bench.write("retrain", reason="just when it is due")
    bench.tick()
    finish(bench)
    bench.clock.advance(3600)
    bench.tick(2)
    assert [cause for cause, _ in starts(bench)][3:] == ["manual"]


def test_a_schedule_that_is_declared_or_changed_does_not_fire_for_the_past(bench: LoopBench) -> None:
    until(bench, datetime(2026, 1, 3, 1, 30, tzinfo=UTC))
    bench.declare(nightly("0 2 * * *"))  # half an hour ago in Berlin
    assert bench.tick(2).run is None
    assert due(bench.status.schedule) == datetime(2026, 1, 4, 2, tzinfo=BERLIN)
    bench.declare(nightly("0 2 * * *", timezone="UTC"))
    bench.tick()
    assert due(bench.status.schedule) == datetime(2026, 1, 3, 2, tzinfo=UTC)
    bench.declare(example_resource(triggers={"volume": {"newLabels": 1000}}))
    until(bench, datetime(2026, 1, 5, tzinfo=UTC))
    assert bench.tick(2).schedule is None
    bench.declare(nightly())
    assert bench.tick(2).run is None
    assert [one.reason for one in bench.log.decisions() if one.kind == "schedule"][-2:] == [
        "no schedule is declared any more",
        "runs are scheduled by 0 3 * * * (Europe/Berlin), first at 2026-01-05 03:00 Europe/Berlin",
    ]


def test_the_hours_of_a_clock_change_fire_once() -> None:
    spring = begun_schedule("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert due(spring) == datetime(2026, 3, 29, 3, 0, tzinfo=BERLIN)  # 02:30 is skipped; Debian's cron runs it at once
    assert due(answered(spring, spring.due or 0)) == datetime(2026, 3, 30, 2, 30, tzinfo=BERLIN)
    autumn = begun_schedule("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert due(autumn) == datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert due(answered(autumn, autumn.due or 0)) == datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN)


def test_what_is_not_due_yet_is_not_answered() -> None:
    schedule = begun_schedule("0 3 * * *", "UTC", datetime(2026, 1, 2, tzinfo=UTC))
    assert answered(schedule, to_ms(datetime(2026, 1, 2, 2, 59, tzinfo=UTC))) is schedule
    assert answered(None, 0) is None
