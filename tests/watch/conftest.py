"""A small world for the watch: three stations, two features, ticks of a second."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch, Sketch
from tidemill.spec.model import DriftTrigger
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reference import Reference, build_reference

FEATURES = ("brightness", "contrast")
STATIONS = ("A", "B", "C")
START = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def trigger() -> DriftTrigger:
    return DriftTrigger.model_validate({"tolerance": 0.2, "every": "1s"})


@pytest.fixture(scope="session")
def plan() -> WatchPlan:
    return WatchPlan(
        model="default.phones",
        entity="station",
        tick_ms=1_000,
        lateness_ms=500,
        period_ms=30 * 86_400_000.0,
        tolerance=0.2,
    )


def make_rows(
    seed: int = 0,
    seconds: int = 300,
    *,
    stations: Sequence[str] = STATIONS,
    shift: float = 0.0,
    copies: int = 1,
    start: datetime = START,
) -> pl.DataFrame:
    """`copies` rows a second of each station: brightness around 0.6, contrast around 0.3."""
    rng = np.random.default_rng(seed)
    shape = (seconds, len(stations), copies)
    offset = np.array([0.02 * position for position in range(len(stations))])[None, :, None]
    brightness = 0.6 + offset + 0.05 * rng.standard_normal(shape) + shift
    contrast = 0.3 + 0.02 * rng.standard_normal(shape)
    times = [start + timedelta(seconds=second, milliseconds=250) for second in range(seconds)]
    return pl.DataFrame(
        {
            "entity": [name for _ in times for name in stations for _ in range(copies)],
            "event_time": [time for time in times for _ in range(len(stations) * copies)],
            "brightness": brightness.ravel(),
            "contrast": contrast.ravel(),
        }
    )


@pytest.fixture(scope="session")
def rows() -> Callable[..., pl.DataFrame]:
    return make_rows


@pytest.fixture(scope="session")
def reference(trigger: DriftTrigger) -> Reference:
    return build_reference(make_rows(), FEATURES, trigger)


def make_sketch(
    tick: int,
    brightness: float,
    *,
    contrast: float = 0.3,
    stations: Sequence[str] = STATIONS,
    source: str = "cluster/topic/0",
    first: int | None = None,
    rows: int = 2,
    tick_ms: int = 1_000,
    jitter: bool = False,
) -> Sketch:
    """What ingest saw in one tick: `rows` rows of each station, offsets by the number of the tick.

    With `jitter` each station's means scatter as the reference's do; the same in each call for one tick.
    """
    noise = np.random.default_rng(tick).standard_normal((2, len(STATIONS))) * (jitter * np.array([[0.05], [0.02]]))
    votes = {
        name: {
            "brightness": FeatureSketch(
                count=rows, total=float(rows * (brightness + 0.02 * position + noise[0, position]))
            ),
            "contrast": FeatureSketch(count=rows, total=float(rows * (contrast + noise[1, position]))),
        }
        for position, name in enumerate(STATIONS)
        if name in stations
    }
    first = 10 * tick if first is None else first
    return Sketch(
        source=source,
        first_offset=first,
        last_offset=first + 9,
        max_event_time=(tick + 1) * tick_ms - 1,
        tick_ms=tick_ms,
        votes={tick: named(votes)},
    )


@pytest.fixture(scope="session")
def sketch() -> Callable[..., Sketch]:
    return make_sketch
