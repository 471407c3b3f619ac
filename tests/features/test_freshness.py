from datetime import timedelta
from itertools import count

import pytest

from tidemill.core.telemetry import REGISTRY
from tidemill.features.freshness import Freshness
from tidemill.testing.clock import ManualClock

_models = (f"default.fresh-{number}" for number in count())


@pytest.fixture
def model() -> str:
    """A model of this test alone: metrics are the process's."""
    return next(_models)


def told(name: str, model: str) -> float | None:
    return REGISTRY.get_sample_value(f"tidemill_{name}", {"model": model, "view": "events"})


def test_freshness_grows_while_no_newer_event_is_written(model: str) -> None:
    clock = ManualClock()
    freshness = Freshness(model, "events", timedelta(seconds=30), clock)
    assert told("feature_freshness_seconds", model) is None
    begun = clock.now()
    freshness.wrote(newest=begun, arrived=begun)
    clock.advance(30)
    assert (told("feature_freshness_seconds", model), told("feature_freshness_slo_ok", model)) == (30, 1)
    freshness.wrote(
        newest=begun - timedelta(hours=1), arrived=clock.now()
    )  # a late event makes nothing fresher or older
    clock.advance(1)
    assert (told("feature_freshness_seconds", model), told("feature_freshness_slo_ok", model)) == (31, 0)
    freshness.wrote(newest=clock.now(), arrived=clock.now())
    assert (told("feature_freshness_seconds", model), told("feature_freshness_slo_ok", model)) == (0, 1)


def test_without_an_slo_none_is_told(model: str) -> None:
    clock = ManualClock()
    Freshness(model, "events", None, clock).wrote(newest=clock.now(), arrived=clock.now())
    assert told("feature_freshness_slo_ok", model) is None


def test_the_delay_is_from_arrival_to_the_row(model: str) -> None:
    clock = ManualClock()
    arrived = clock.now()
    clock.advance(0.3)
    Freshness(model, "events", None, clock).wrote(newest=arrived, arrived=arrived)
    assert told("online_delay_seconds_sum", model) == pytest.approx(0.3)
