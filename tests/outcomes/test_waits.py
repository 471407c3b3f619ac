"""A worker that cannot reach its brokers or stores says so, for as long as it begins anew."""

import threading
from typing import Any

import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.core.telemetry import REGISTRY
from tidemill.outcomes import worker
from tidemill.testing.loop import example_resource


def test_a_worker_that_begins_anew_tells_that_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    resource, stop = example_resource("waits"), threading.Event()
    told: list[float | None] = []

    def live(*_: Any) -> None:
        told.append(REGISTRY.get_sample_value("tidemill_waiting", {"worker": "default.waits.outcomes"}))
        if len(told) == 2:
            stop.set()
        raise Unavailable("the brokers do not answer")

    monkeypatch.setattr(worker, "_live", live)
    monkeypatch.setattr(worker, "_FIRST_S", 0.01)
    worker.run(resource, kafka="", redis="", lake="", clock=SystemClock(), stop=stop)
    assert told == [None, 1]
