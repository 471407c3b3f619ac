from threading import Event, Timer

import pytest
import structlog

from tidemill.core.errors import InvalidInput, NotFound, Transient, Unavailable
from tidemill.events.waiting import Stopped, Waiting


class Flaky:
    """Fails with the given errors, one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def test_an_action_that_succeeds_is_not_talked_about() -> None:
    with structlog.testing.capture_logs() as logs:
        assert Waiting("w", Event()).until_done(Flaky()) == "done"
    assert logs == []


def test_an_outage_is_reported_once_and_so_is_its_end() -> None:
    with structlog.testing.capture_logs() as logs:
        assert Waiting("w", Event()).until_done(Flaky(*[Unavailable("no answer")] * 3)) == "done"
    assert [(line["log_level"], line["event"]) for line in logs] == [("error", "waiting"), ("info", "waited no longer")]
    assert logs[0]["reason"] == "no answer"


def test_what_waiting_cannot_heal_is_raised_at_once() -> None:
    with pytest.raises(InvalidInput):
        Waiting("w", Event()).until_done(Flaky(InvalidInput("wrong")))


def test_more_kinds_of_failure_can_be_waited_out() -> None:
    action = Flaky(NotFound("not yet"), Unavailable("no answer"))
    assert Waiting("w", Event()).until_done(action, (Transient, NotFound)) == "done"


def test_whoever_asks_for_the_end_ends_the_wait() -> None:
    stop = Event()
    Timer(0.05, stop.set).start()
    with pytest.raises(Stopped, match="no answer"):
        Waiting("w", stop).until_done(Flaky(*[Unavailable("no answer")] * 1000))
