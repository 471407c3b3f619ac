"""False alarms per 30 days of each kind of stream with a 95 % bound; whether what cannot be promised is said."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from benchmarks.drift_streams import (
    DAY_MS,
    PERIOD_MS,
    START_MS,
    TICK_MS,
    VOTES,
    Floats,
    Kind,
    Source,
    against,
    autocorrelated,
    below,
    bursts,
    copied,
    independent,
    present,
    reference,
    seasonal,
)
from benchmarks.report import Figure

from tidemill.stats.drift import Detectors, feature_evidence, grow, reset, start
from tidemill.watch.reference import FeatureReference

__all__ = ["KINDS", "Long", "counting", "false_alarms", "play", "simulate_false_alarms", "upper_bound"]

Counts = Callable[[], tuple[Floats, Floats]]
"""The next tick's hits (streams, rows) and votes (streams,)."""

SLOW = 2 * TICK_MS
DAYS, WEEKS = 144, 7 * 144
"""Slow ticks in a day and in a week."""
WEEK_OF_CONTROL = 7.0
"""Days that a season's control lasts at least."""
SEASON = seasonal(1.0, tick_ms=SLOW)

KINDS: dict[str, Kind] = {
    "iid": Kind(independent, 400),
    "AR(1) 0.5": Kind(autocorrelated(0.5), 1_500),
    "AR(1) 0.9": Kind(autocorrelated(0.9), 7_000),
    "AR(1) 0.99": Kind(autocorrelated(0.99), 20_000, tolerance=0.1),
    "copies x5 under other names": Kind(copied, 3_000),
    "idle streams, bursts and silences": Kind(bursts, 3_000),
    "daily season 1 sigma, reference of 28 days": Kind(SEASON, 28 * DAYS, 0.2, SLOW),
    "daily season 1 sigma, reference of 9 days": Kind(SEASON, 9 * DAYS, 0.2, SLOW),
    "weekends 1 sigma, reference of 12 weeks": Kind(seasonal(1.0, tick_ms=SLOW, week=1.0), 12 * WEEKS, 0.2, SLOW),
    "season, wander 0.1 sigma a day, reference of 28 days": Kind(
        seasonal(1.0, tick_ms=SLOW, wander=0.1), 28 * DAYS, 0.2, SLOW, promises=False
    ),
    "season, wander 0.1 sigma a day, reference of 12 weeks": Kind(
        seasonal(1.0, tick_ms=SLOW, wander=0.1), 12 * WEEKS, 0.2, SLOW
    ),
    "season, wander 0.5 sigma a day, reference of 28 days": Kind(
        seasonal(1.0, tick_ms=SLOW, wander=0.5), 28 * DAYS, 0.2, SLOW, promises=False
    ),
    "daily season 1 sigma, reference of 1 day": Kind(SEASON, DAYS, 0.2, SLOW, promises=False),
}
"""Kinds of stream, and how long their references are."""


@dataclass(frozen=True)
class Long:
    """How much is simulated of each kind."""

    streams: int
    references: int
    days: float
    control_days: float


def counting(source: Source, watched: Detectors) -> Counts:
    """The source's next tick as counts."""

    def tick() -> tuple[Floats, Floats]:
        values = source.tick()
        return below(values, watched.edges), present(values)

    return tick


def play(watched: Detectors, counts: Counts, ticks: int, tick_ms: int = TICK_MS) -> int:
    """Alarms of all streams in so many ticks."""
    state, alarms = start(watched), 0
    for number in range(ticks):
        hits, votes = counts()
        end = START_MS + (number + 1) * tick_ms
        state = grow(watched, state, hits, votes, end=end, tick=tick_ms, period=PERIOD_MS)
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


def simulate_false_alarms(long: Long, rng: np.random.Generator) -> list[Figure]:
    """False alarms of each kind of stream, and whether references that cannot promise say so."""
    figures: list[Figure] = []
    for name, kind in KINDS.items():
        found = [reference(kind, rng) for _ in range(long.references)]
        figures += _of_kind(name, kind, found, long, rng)
        if name == "iid":
            figures += _boundary(long, found, rng)
    return figures + _small_references(long, rng)


def _of_kind(
    name: str, kind: Kind, found: Sequence[FeatureReference], long: Long, rng: np.random.Generator
) -> list[Figure]:
    ok = [feature for feature in found if feature.state == "ok"]
    said = f"tau {np.mean([feature.tau for feature in found]):.1f}, {len(ok)} of {len(found)} references promise"
    if any(feature.season for feature in ok):
        said += f", tolerance {np.mean([feature.tolerance for feature in ok]):.2f}"
    figures = []
    if ok:
        watched, source = against(ok, long.streams), kind.make(rng, long.streams, kind.votes)
        alarms = play(watched, counting(source, watched), _ticks(kind, long.days), kind.tick_ms)
        figures.append(false_alarms(name, alarms, long.streams * long.days, note=said))
    else:
        goal = "some promise" if kind.promises else "no promise, no alarm"
        figures.append(Figure(name, len(found), f"of {len(found)} refused", goal, not kind.promises, said))
    return figures + _without(name, kind, found, long, rng)


def _without(
    name: str, kind: Kind, found: Sequence[FeatureReference], long: Long, rng: np.random.Generator
) -> list[Figure]:
    """The same with evidence not tempered, and with the season ignored and the declared tolerance."""
    if kind.make in (independent, bursts):
        return []
    bare = [msgspec.structs.replace(feature, season=None, tolerance=kind.tolerance) for feature in found]
    what = "season ignored, not tempered" if kind.tick_ms == SLOW else "not tempered"
    days = max(long.control_days, WEEK_OF_CONTROL) if kind.tick_ms == SLOW else long.control_days
    watched, source = against(bare, long.streams, tau=0.5), kind.make(rng, long.streams, kind.votes)
    alarms = play(watched, counting(source, watched), _ticks(kind, days), kind.tick_ms)
    return [false_alarms(f"{name}, {what}", alarms, long.streams * days, control=True)]


def _ticks(kind: Kind, days: float) -> int:
    return round(days * DAY_MS / kind.tick_ms)


def _boundary(long: Long, found: Sequence[FeatureReference], rng: np.random.Generator) -> list[Figure]:
    """Streams that lie as far off as is allowed, at every edge."""
    watched = against(found, long.streams)
    shares = np.ones(watched.edges.shape)
    for stream in range(long.streams):
        feature = found[stream % len(found)]
        slack = feature.tolerance + feature.c_ref
        shares[stream, : len(feature.shares)] = np.minimum(np.array(feature.shares) + slack, 1.0)
    bins = np.diff(shares, axis=1, prepend=0.0)
    bins /= bins.sum(axis=1, keepdims=True)

    def counts() -> tuple[Floats, Floats]:
        hits = rng.multinomial(VOTES, bins).cumsum(axis=1).astype(np.float64)
        hits[:, -1] = 0.0  # nothing is missing
        return hits, np.full(long.streams, float(VOTES))

    alarms = play(watched, counts, _ticks(KINDS["iid"], long.days))
    return [false_alarms("iid, on the exact boundary", alarms, long.streams * long.days)]


def _small_references(long: Long, rng: np.random.Generator) -> list[Figure]:
    """References that are too small: they are refused, and without that they would alarm."""
    figures = []
    for ticks in (4, 50):
        kind = Kind(independent, ticks)
        found = [reference(kind, rng) for _ in range(long.streams)]
        refused = sum(feature.state != "ok" for feature in found)
        name = f"iid, reference of {ticks * VOTES:,} votes"
        figures.append(Figure(name, refused, f"of {len(found)} refused", "all", refused == len(found)))
        bare, source = against(found, long.streams, tau=1.0, c_ref=0.0), independent(rng, long.streams, VOTES)
        alarms = play(bare, counting(source, bare), _ticks(kind, long.control_days))
        figures.append(false_alarms(f"{name}, without c_ref", alarms, long.streams * long.control_days, control=True))
    return figures
