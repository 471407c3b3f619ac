"""Drift: false alarms per 30 days with a 95 % bound, and how long shifts take to find, beside other ways to watch.

The references are built by the product's own code from simulated votes, and the detectors are the product's; only
the votes are simulated, many streams at a time. Rows marked "control" leave a safeguard out, to show that the
simulation would see its absence; they have no goal.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from benchmarks.drift_alarms import KINDS, Long, simulate_false_alarms
from benchmarks.drift_delays import Compared, simulate_delays
from benchmarks.drift_streams import DAY_MS, PERIOD_MS, below
from benchmarks.report import Figure, Report, environment

from tidemill.spec.model import DriftTrigger
from tidemill.stats.dependence import measure_dependence
from tidemill.stats.drift import Detectors, start, step
from tidemill.watch.reference import build_reference, watched
from tidemill.watch.votes import votes_of

__all__ = ["PARTS", "SIZES", "run"]

SEED = 20_250_301


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    alarms: Long
    compared: Compared
    repeats: int


SIZES = {
    "small": Size(
        Long(streams=30, references=2, days=10.0, control_days=1.0),
        Compared(models=1, days=1.0, slow_votes=300, repeats=1, limit=30_000),
        repeats=15,
    ),
    "full": Size(
        Long(streams=100, references=10, days=30.0, control_days=3.0),
        Compared(models=5, days=30.0, slow_votes=1_000, repeats=5, limit=120_000),
        repeats=200,
    ),
}
ENOUGH = 900
"""Votes from which a reference at tolerance 0.2 is practically never refused."""


def alarms(size: Size, rng: np.random.Generator) -> list[Figure]:
    """See `benchmarks.drift_alarms`."""
    return simulate_false_alarms(size.alarms, rng)


def delays(size: Size, rng: np.random.Generator) -> list[Figure]:
    """See `benchmarks.drift_delays`."""
    return simulate_delays(size.compared, rng)


def vote_rule(rng: np.random.Generator) -> Figure:
    """Rows of one entity within a tick are one vote, however many there are."""
    rows = demo_rows(rng, 100)
    alone, copies = (votes_of(frame, ["x0"], 1_000)[0] for frame in (rows, pl.concat([rows] * 5)))
    same = np.allclose(alone.values, copies.values, rtol=1e-12)
    return Figure("copies x5 of one entity's rows", len(copies) / len(alone), "times the votes", "1", same)


def simulate_demo(size: Size, rng: np.random.Generator) -> list[Figure]:
    """The demo's shape: 5 features, 3 entities, ticks of a second, tolerance 0.2, a complete shift."""
    trigger, figures = DriftTrigger.model_validate({"tolerance": 0.2, "every": "1s"}), [vote_rule(rng)]
    for votes in (720, 900, 1_200, 1_800):
        took: dict[int, list[int]] = {1: [], 5: []}
        refused = 0
        for _ in range(size.repeats):
            built = build_reference(demo_rows(rng, votes // 3), [f"x{row}" for row in range(5)], trigger).features
            refused += sum(feature.state != "ok" for feature in built)
            against = watched(built)
            for moved, ticks in took.items():
                ticks.append(demo_delay(against, moved, rng))
        for moved, ticks in took.items():
            figures.append(
                Figure(
                    f"demo, reference of {votes:,} votes, {moved} of 5 features shift",
                    float(np.mean(ticks)),
                    "ticks of 1 s",
                    goal="<= 15 on average" if votes >= ENOUGH else "",
                    holds=bool(np.mean(ticks) <= 15) if votes >= ENOUGH else None,
                    note=f"slowest {max(ticks)}; {refused} of {5 * size.repeats} features refused as too small",
                )
            )
    return figures


def demo_rows(rng: np.random.Generator, ticks: int) -> pl.DataFrame:
    """Rows of 3 stations that differ a little, one vote each a second."""
    times = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=tick) for tick in range(ticks)]
    values = rng.standard_normal((ticks, 3, 5)) + np.array([-0.3, 0.0, 0.3])[None, :, None]
    return pl.DataFrame(
        {
            "entity": ["A", "B", "C"] * ticks,
            "event_time": [time for time in times for _ in range(3)],
            **{f"x{row}": values[:, :, row].ravel() for row in range(5)},
        }
    )


def demo_delay(against: Detectors, moved: int, rng: np.random.Generator, *, warm: int = 60, limit: int = 200) -> int:
    """Ticks from a complete shift of `moved` features to the alarm."""
    state = start(against)
    for number in range(warm + limit):
        values = rng.standard_normal((5, 3)) + np.array([-0.3, 0.0, 0.3])
        if number >= warm:
            values[:moved] -= 100.0
        counts, end = below(values, against.edges), (number + 1) * 1_000
        state, alarms = step(against, state, counts, np.full(5, 3.0), end=end, tick=1_000, period=PERIOD_MS)
        if alarms and number >= warm:
            return number - warm + 1
    return limit


def simulate_tau(size: Size, rng: np.random.Generator) -> list[Figure]:
    """What tau comes out at, beside what it is."""
    figures = []
    for ticks, rho in ((240, 0.0), (1_000, 0.0), (240, 0.5), (1_000, 0.5), (1_500, 0.9)):
        found = [measured(rng, ticks, rho) for _ in range(5 * size.repeats)]
        true = 1 + 2 * (2 / np.pi * np.arcsin(rho ** np.arange(1.0, 500.0))).sum() if rho else 1.0
        taus = np.array(found)
        too_small = float(np.mean(2 * taus < true))
        figures.append(
            Figure(
                f"tau, {ticks:,} ticks of 3 entities, AR(1) {rho:g} from tick to tick",
                float(taus.mean()),
                "",
                goal="<= 1.1" if not rho else ">= the truth",
                holds=bool(taus.mean() <= 1.1) if not rho else bool(taus.mean() >= true),
                note=f"truth {true:.2f}; 5 to 95 %: {np.quantile(taus, 0.05):.2f} to {np.quantile(taus, 0.95):.2f}; "
                f"g = 2 tau below the truth in {too_small:.1%}",
            )
        )
    return figures


def measured(rng: np.random.Generator, ticks: int, rho: float) -> float:
    """Tau of one simulated reference, each of 3 entities an AR(1) of its own."""
    values = rng.standard_normal((ticks, 3))
    for tick in range(1, ticks):
        values[tick] = rho * values[tick - 1] + math.sqrt(1 - rho**2) * values[tick]
    edges = np.quantile(values, np.arange(1, 16) / 16, method="inverted_cdf")
    counts = (values[:, :, None] <= edges).sum(axis=1).astype(np.float64)
    return measure_dependence(counts, np.full(ticks, 3.0)).tau


PARTS: dict[str, Callable[[Size, np.random.Generator], list[Figure]]] = {
    "tau": simulate_tau,
    "false alarms": alarms,
    "delays": delays,
    "demo": simulate_demo,
}


def run(size_name: str) -> Report:
    """Run it all at one size."""
    size, figures = SIZES[size_name], []
    for number, part in enumerate(PARTS.values()):
        figures += part(size, np.random.default_rng([SEED, number]))
    ran: dict[str, Any] = {
        "seed": SEED,
        **asdict(size),
        "kinds": {
            name: {
                "tick_ms": kind.tick_ms,
                "votes_a_tick": kind.votes,
                "tolerance": kind.tolerance,
                "reference_days": kind.ticks * kind.tick_ms / DAY_MS,
            }
            for name, kind in KINDS.items()
        },
    }
    return Report("simulate", "drift", size_name, ran, figures, environment(("numpy", "polars", "river", "scipy")))
