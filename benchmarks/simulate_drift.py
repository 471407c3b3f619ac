"""Drift: false alarms per 30 days with a 95 % bound, and how long shifts take to find.

The references are built by the product's own code from simulated votes, and the detectors are the product's; only
the votes are simulated, many streams at a time. Rows marked "control" leave a safeguard out, to show that the
simulation would see its absence; they have no goal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from benchmarks.drift_streams import (
    PERIOD_MS,
    TICK_MS,
    VOTES,
    Floats,
    Make,
    Votes,
    against,
    autocorrelated,
    below,
    copied,
    independent,
    reference,
)
from benchmarks.report import Figure, Report, environment

from tidemill.spec.model import DriftTrigger
from tidemill.stats.dependence import measure_dependence
from tidemill.stats.drift import Detectors, Watched, detectors, feature_evidence, grow, reset, start, step
from tidemill.watch.reference import FeatureReference, build_reference
from tidemill.watch.votes import votes_of

__all__ = ["run"]

SEED = 20_250_301


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    streams: int
    references: int
    days: float
    control_days: float
    repeats: int


SIZES = {
    "small": Size(streams=30, references=6, days=3.1, control_days=0.25, repeats=20),
    "full": Size(streams=60, references=60, days=30.0, control_days=2.0, repeats=200),
}


def counting(source: Votes, watched: Detectors) -> Callable[[], Floats]:
    """The source's next tick as counts."""
    return lambda: below(source.tick(), watched.edges)


def count_alarms(watched: Detectors, counts: Callable[[], Floats], ticks: int) -> int:
    """Alarms of all streams in so many ticks."""
    state, alarms, streams = start(watched), 0, len(watched.weights)
    votes = np.full(streams, float(VOTES))
    for number in range(ticks):
        end = (number + 1) * TICK_MS
        state = grow(watched, state, counts(), votes, end=end, tick=TICK_MS, period=PERIOD_MS)
        over = feature_evidence(watched, state) >= 1
        if over.any():
            alarms += int(over.sum())
            state = reset(state, over, end)
    return alarms


def upper_bound(count: int) -> float:
    """The upper 95 % bound of a Poisson mean of which `count` were seen."""
    low, high = 0.0, 10.0 + 4 * count
    for _ in range(60):
        middle = (low + high) / 2
        terms = [math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) for k in range(count + 1)]
        low, high = (middle, high) if sum(terms) > 0.05 else (low, middle)
    return high


def false_alarms(name: str, alarms: int, stream_days: float, *, control: bool = False, note: str = "") -> Figure:
    """Alarms per 30 days with their bound."""
    rate, bound = alarms * 30 / stream_days, upper_bound(alarms) * 30 / stream_days
    note = f"{alarms} in {stream_days:.0f} stream-days, 95 % bound {bound:.2g}" + (f"; {note}" if note else "")
    if control:
        return Figure(f"control: {name}", rate, "false alarms per 30 d", note=note)
    return Figure(name, rate, "false alarms per 30 d", goal="95 % bound <= 1", holds=bound <= 1, note=note)


ENOUGH = 900
"""Votes from which a reference at tolerance 0.2 is practically never refused: 692 are needed at tau 1."""
STREAMS: dict[str, tuple[Make, int]] = {
    "iid": (independent, 12_000),
    "AR(1) 0.5": (autocorrelated(0.5), 45_000),
    "AR(1) 0.9": (autocorrelated(0.9), 200_000),
    "copies x5 under other names": (copied, 90_000),
}
"""Kinds of stream, and the votes of their references."""


def simulate_false_alarms(
    size: Size, rng: np.random.Generator
) -> tuple[list[Figure], dict[str, list[FeatureReference]]]:
    """False alarms of each kind of stream, and the references that were drawn."""
    figures, drawn = [], {}
    ticks, control_ticks = (round(days * 86_400_000 / TICK_MS) for days in (size.days, size.control_days))
    for name, (make, votes) in STREAMS.items():
        found = drawn[name] = [reference(make, rng, votes, 0.05) for _ in range(size.references)]
        watched, source = against(found, size.streams), make(rng, size.streams, VOTES)
        alarms = count_alarms(watched, counting(source, watched), ticks)
        ok = sum(feature.state == "ok" for feature in found)
        note = f"tau {np.mean([feature.tau for feature in found]):.1f}, {ok} of {len(found)} references promise"
        figures.append(false_alarms(name, alarms, size.streams * size.days, note=note))
        if make is not independent:
            naive = against(found, size.streams, tau=0.5)
            alarms = count_alarms(naive, counting(source, naive), control_ticks)
            figures.append(
                false_alarms(f"{name}, not tempered", alarms, size.streams * size.control_days, control=True)
            )
    figures.append(vote_rule(rng))
    return figures + boundary(size, drawn["iid"], rng, ticks) + small_references(size, rng, ticks, control_ticks), drawn


def boundary(size: Size, found: Sequence[FeatureReference], rng: np.random.Generator, ticks: int) -> list[Figure]:
    """Streams that lie as far off as is allowed, at every edge."""
    watched = against(found, size.streams)
    shares = np.ones(watched.edges.shape)
    for stream in range(size.streams):
        feature = found[stream % len(found)]
        slack = feature.tolerance + feature.c_ref
        shares[stream, : len(feature.shares)] = np.minimum(np.array(feature.shares) + slack, 1.0)
    bins = np.diff(shares, axis=1, prepend=0.0)
    bins /= bins.sum(axis=1, keepdims=True)
    alarms = count_alarms(watched, lambda: rng.multinomial(VOTES, bins).cumsum(axis=1).astype(np.float64), ticks)
    return [false_alarms("iid, on the exact boundary", alarms, size.streams * size.days)]


def small_references(size: Size, rng: np.random.Generator, ticks: int, control_ticks: int) -> list[Figure]:
    """References that are too small: they are refused, and without that they would alarm."""
    figures = []
    for votes in (100, 1_500):
        found = [reference(independent, rng, votes, 0.05) for _ in range(size.streams)]
        source = independent(rng, size.streams, VOTES)
        watched = against(found, size.streams)
        alarms = count_alarms(watched, counting(source, watched), ticks // 20)
        refused = sum(feature.state != "ok" for feature in found)
        name = f"iid, reference of {votes:,} votes"
        figures.append(
            Figure(name, refused, f"of {len(found)} refused", "all, no alarm", refused == len(found) and not alarms)
        )
        bare = against(found, size.streams, tau=1.0, c_ref=0.0)
        alarms = count_alarms(bare, counting(source, bare), control_ticks)
        figures.append(false_alarms(f"{name}, without c_ref", alarms, size.streams * size.control_days, control=True))
    return figures


def vote_rule(rng: np.random.Generator) -> Figure:
    """Rows of one entity within a tick are one vote, however many there are."""
    rows = demo_rows(rng, 100)
    alone, copies = (votes_of(frame, ["x0"], 1_000)[0] for frame in (rows, pl.concat([rows] * 5)))
    same = np.allclose(alone.values, copies.values, rtol=1e-12)
    return Figure("copies x5 of one entity's rows", len(copies) / len(alone), "times the votes", "1", same)


def simulate_delays(size: Size, drawn: dict[str, list[FeatureReference]], rng: np.random.Generator) -> list[Figure]:
    """Mean number of events until a lasting shift is found."""
    published = {"iid": (375, 90, 30), "AR(1) 0.5": (2_880, 540, 150), "AR(1) 0.9": (26_000, 3_300, 1_000)}
    figures = []
    for name, earlier in published.items():
        ok = [feature for feature in drawn[name] if feature.state == "ok"]
        watched = against(ok, size.streams)
        for shift, before in zip((0.5, 1.0, 2.0), earlier, strict=True):
            took = delays(watched, STREAMS[name][0](rng, size.streams, VOTES), shift)
            note = f"an earlier sketch: {before:,}"
            if shift == 1.0:
                shown = [feature.finds_one_sigma_in or math.inf for feature in ok]
                note += f"; shown to the user: about {np.mean(shown):,.0f}"
            figures.append(Figure(f"{name}, shift of {shift:g} sigma", float(np.mean(took)), "events", note=note))
    return figures


def delays(watched: Detectors, source: Votes, shift: float, *, warm: int = 30, limit: int = 6_000) -> Floats:
    """Events from the shift to the first alarm, by stream; the limit where there is none."""
    streams = len(watched.weights)
    state, votes, first = start(watched), np.full(streams, float(VOTES)), np.full(streams, float(limit))
    for number in range(warm + limit):
        values = source.tick() + (shift if number >= warm else 0.0)
        end = (number + 1) * TICK_MS
        state = grow(watched, state, below(values, watched.edges), votes, end=end, tick=TICK_MS, period=PERIOD_MS)
        over = (feature_evidence(watched, state) >= 1) & (number >= warm)
        first = np.where(over, np.minimum(first, number - warm + 1), first)
        if (first < limit).all():
            break
    return first * VOTES


def simulate_demo(size: Size, rng: np.random.Generator) -> list[Figure]:
    """The demo's shape: 5 features, 3 entities, ticks of a second, tolerance 0.2, a complete shift."""
    trigger, figures = DriftTrigger.model_validate({"tolerance": 0.2, "every": "1s"}), []
    for votes in (720, 900, 1_200, 1_800):
        took: dict[int, list[int]] = {1: [], 5: []}
        refused = 0
        for _ in range(size.repeats):
            built = build_reference(demo_rows(rng, votes // 3), [f"x{row}" for row in range(5)], trigger).features
            refused += sum(feature.state != "ok" for feature in built)
            watched = detectors(
                [Watched(f.edges, f.shares, f.tolerance, f.c_ref, f.tau, on=f.state == "ok") for f in built]
            )
            for moved, ticks in took.items():
                ticks.append(demo_delay(watched, moved, rng))
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


def demo_delay(watched: Detectors, moved: int, rng: np.random.Generator, *, warm: int = 60, limit: int = 200) -> int:
    """Ticks from a complete shift of `moved` features to the alarm."""
    state = start(watched)
    for number in range(warm + limit):
        values = rng.standard_normal((5, 3)) + np.array([-0.3, 0.0, 0.3])
        if number >= warm:
            values[:moved] -= 100.0
        counts, end = below(values, watched.edges), (number + 1) * 1_000
        state, alarms = step(watched, state, counts, np.full(5, 3.0), end=end, tick=1_000, period=PERIOD_MS)
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


def run(size_name: str) -> Report:
    """Run it all at one size."""
    size, rng = SIZES[size_name], np.random.default_rng(SEED)
    alarms, drawn = simulate_false_alarms(size, rng)
    figures = [*simulate_tau(size, rng), *alarms, *simulate_delays(size, drawn, rng), *simulate_demo(size, rng)]
    ran: dict[str, Any] = {
        "seed": SEED,
        "streams": size.streams,
        "references": size.references,
        "days": size.days,
        "votes_a_tick": VOTES,
        "tick_ms": TICK_MS,
        "tolerance": 0.05,
        "reference_votes": {name: votes for name, (_, votes) in STREAMS.items()},
        "repeats": size.repeats,
    }
    return Report("simulate", "drift", size_name, ran, figures, environment(("numpy", "polars")))
