"""A route's attempts: one at a time, with growing pauses, told in the log and a metric."""

from collections.abc import Iterator

import pytest
import structlog
from tests.alerts.life import route

from tidemill.alerts.delivery import FIRST_PAUSE_S, LONGEST_PAUSE_S, RouteDelivery
from tidemill.alerts.notifier import Failure
from tidemill.alerts.telemetry import FAILED
from tidemill.alerts.words import Message
from tidemill.testing.clock import ManualClock
from tidemill.testing.notifier import MemoryNotifier

URL = "json://user:secret@host/path"
MESSAGE = Message(route="oncall", title="brightness drifted", body="- since noon", level="warning")


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as found:
        yield found  # type: ignore[misc]


def delivery(notifier: MemoryNotifier, clock: ManualClock, model: str = "m", **environ: str) -> RouteDelivery:
    return RouteDelivery(model, route(), environ, notifier, clock)


def test_what_a_service_takes_is_said_once() -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    one = delivery(notifier, clock, ONCALL_URL=URL)
    assert one.taken() is None
    one.offer(MESSAGE)
    one.offer(MESSAGE)  # it is under way
    assert (one.taken(), one.taken()) == (MESSAGE, None)
    assert notifier.taken == [(URL, MESSAGE)]


def test_pauses_grow_and_end_with_the_first_message_that_is_taken(logs: list[dict[str, object]]) -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    notifier.dead[URL] = Failure.REFUSED
    one = delivery(notifier, clock, ONCALL_URL=URL)
    pauses, last = list[float](), 0.0
    while len(pauses) < 9:
        one.offer(MESSAGE)
        if len(notifier.tried) > len(pauses):
            pauses.append(clock.monotonic() - last)
            last = clock.monotonic()
        assert one.taken() is None
        clock.advance(1)
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300, 300]
    assert [(line["log_level"], line["said"]) for line in logs] == [("error", "the test says no")]
    notifier.dead.clear()
    clock.advance(LONGEST_PAUSE_S)
    one.offer(MESSAGE)
    assert one.taken() == MESSAGE
    notifier.dead[URL] = Failure.SILENT
    one.offer(MESSAGE)
    assert one.taken() is None
    clock.advance(FIRST_PAUSE_S)
    one.offer(MESSAGE)
    assert len(notifier.tried) == 12


def test_a_route_that_stays_dead_is_told_in_the_log_each_hour_and_counted(logs: list[dict[str, object]]) -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    notifier.dead[URL] = Failure.UNREACHABLE
    one = delivery(notifier, clock, "counted", ONCALL_URL=URL)
    for _ in range(7500):
        one.offer(MESSAGE)
        one.taken()
        clock.advance(1)
    assert len(logs) == 3
    counted = FAILED.labels("counted", "oncall", "unreachable")._value.get()
    assert counted == len(notifier.tried)


def test_a_variable_that_is_not_set_is_named_and_asked_for_seldom(logs: list[dict[str, object]]) -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    one = delivery(notifier, clock, "unset")
    for _ in range(900):
        one.offer(MESSAGE)
        clock.advance(1)
    assert [line["said"] for line in logs] == ["the environment variable ONCALL_URL is not set"]
    assert FAILED.labels("unset", "oncall", "misconfigured")._value.get() == 3


def test_no_url_is_ever_logged(logs: list[dict[str, object]]) -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    one = delivery(notifier, clock, ONCALL_URL=URL)
    for failure in [*Failure, None]:
        notifier.dead = {URL: failure} if failure else {}
        one.offer(MESSAGE)
        one.taken()
        clock.advance(7200)
    assert len(logs) >= 2
    assert "secret" not in str(logs)


def test_what_is_under_way_at_the_end_is_cancelled() -> None:
    notifier, clock = MemoryNotifier(), ManualClock()
    notifier.silent = {URL}
    one = delivery(notifier, clock, ONCALL_URL=URL)
    one.offer(MESSAGE)
    one.close()
    notifier.silent.clear()
    assert one.taken() is None
    assert notifier.taken == []
