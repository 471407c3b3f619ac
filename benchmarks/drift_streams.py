"""Simulated votes of many streams, and the product's references and detectors on them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.spec.model import DriftTrigger
from tidemill.stats.drift import MISSING, Detectors
from tidemill.watch.reference import FeatureReference, build_reference, watched

__all__ = [
    "DAY_MS",
    "PERIOD_MS",
    "START_MS",
    "TICK_MS",
    "VOTES",
    "Floats",
    "Kind",
    "Make",
    "Source",
    "Votes",
    "against",
    "autocorrelated",
    "below",
    "bursts",
    "copied",
    "independent",
    "present",
    "reference",
    "seasonal",
]

Floats = npt.NDArray[np.float64]

TICK_MS = 300_000
DAY_MS = 86_400_000
PERIOD_MS = 30.0 * DAY_MS
START = datetime(2025, 1, 2, tzinfo=UTC)
"""Whole weeks after 1970, so that hours of the day and of the week begin here."""
START_MS = round(START.timestamp() * 1_000)
VOTES = 30
"""Votes a tick: one of each of 30 entities."""


class Source(Protocol):
    """Many streams of votes."""

    def tick(self) -> Floats:
        """The next tick's votes (streams, votes); nan: no vote."""
        ...


Make = Callable[[np.random.Generator, int, int], Source]
"""Makes so many streams of so many votes a tick, which begin with a week."""


@dataclass(frozen=True)
class Kind:
    """A kind of stream, and the references that are made of it."""

    make: Make
    ticks: int
    """Window ticks of a reference."""
    tolerance: float = 0.05
    tick_ms: int = TICK_MS
    votes: int = VOTES
    promises: bool = True
    """Whether some references of it must promise; else it is as good if all say that they cannot."""

    @property
    def days(self) -> float:
        """Length of a reference in days."""
        return self.ticks * self.tick_ms / DAY_MS


class Votes:
    """Standard normal votes of many streams, AR(1) in the order in which they come, `copies` times each."""

    def __init__(
        self, rng: np.random.Generator, streams: int, votes: int, *, rho: float = 0.0, copies: int = 1
    ) -> None:
        self._rng, self._rho, self._copies = rng, rho, copies
        steps = np.arange(votes // copies)
        self._carry = rho ** (steps + 1)
        lag = steps[None, :] - steps[:, None]
        self._mix = np.where(lag >= 0, rho ** np.maximum(lag, 0), 0.0) * math.sqrt(1 - rho**2)
        self._last = rng.standard_normal(streams)

    def tick(self) -> Floats:
        """One tick's votes (streams, votes)."""
        noise = self._rng.standard_normal((len(self._last), len(self._carry)))
        values = self._last[:, None] * self._carry + noise @ self._mix if self._rho else noise
        self._last = values[:, -1]
        return np.repeat(values, self._copies, axis=1) if self._copies > 1 else values


class Seasonal:
    """Independent votes around a level that has a daily and a weekly season and wanders from day to day."""

    def __init__(
        self,
        rng: np.random.Generator,
        streams: int,
        votes: int,
        *,
        tick_ms: int,
        day: float,
        week: float,
        wander: float,
    ) -> None:
        self._rng, self._shape, self._tick_ms = rng, (streams, votes), tick_ms
        self._day, self._week, self._wander = day, week, wander
        self._time, self._level = 0, np.zeros(streams)

    def tick(self) -> Floats:
        """One tick's votes (streams, votes)."""
        if self._time % DAY_MS < self._tick_ms:
            self._level = self._wander * self._rng.standard_normal(self._shape[0])
        season = self._day * math.sin(2 * math.pi * self._time / DAY_MS)
        season += self._week * (self._time // DAY_MS % 7 >= 5)
        self._time += self._tick_ms
        return self._rng.standard_normal(self._shape) + season + self._level[:, None]


class Bursts:
    """Independent votes of streams that fall silent: half of the time nobody sends, else some or all do."""

    def __init__(self, rng: np.random.Generator, streams: int, votes: int) -> None:
        self._rng, self._shape = rng, (streams, votes)
        self._sends = rng.random(streams) < 0.5

    def tick(self) -> Floats:
        """One tick's votes (streams, votes)."""
        self._sends ^= self._rng.random(self._shape[0]) < 1 / 30
        active = np.where(self._sends, self._rng.choice([0.1, 0.5, 1.0], self._shape[0]), 0.0)
        values = self._rng.standard_normal(self._shape)
        values[self._rng.random(self._shape) >= active[:, None]] = np.nan
        return values


def independent(rng: np.random.Generator, streams: int, votes: int) -> Source:
    """No dependence."""
    return Votes(rng, streams, votes)


def autocorrelated(rho: float) -> Make:
    """AR(1) from vote to vote."""
    return lambda rng, streams, votes: Votes(rng, streams, votes, rho=rho)


def copied(rng: np.random.Generator, streams: int, votes: int) -> Source:
    """Every vote five times within its tick."""
    return Votes(rng, streams, votes, copies=5)


def seasonal(day: float, *, tick_ms: int, week: float = 0.0, wander: float = 0.0) -> Make:
    """A sine over the day, another level at weekends, and a level that is drawn anew each day; in sigma."""
    return lambda rng, streams, votes: Seasonal(rng, streams, votes, tick_ms=tick_ms, day=day, week=week, wander=wander)


def bursts(rng: np.random.Generator, streams: int, votes: int) -> Source:
    """Half an hour of votes, half an hour of none, on average."""
    return Bursts(rng, streams, votes)


def reference(kind: Kind, rng: np.random.Generator, *, features: int = 1) -> FeatureReference:
    """A reference of one feature of a model with so many, from simulated votes, by the product's own code."""
    source = kind.make(rng, 1, kind.votes)
    values = np.concatenate([source.tick()[0] for _ in range(kind.ticks)])
    times = [START + timedelta(milliseconds=kind.tick_ms * tick) for tick in range(kind.ticks)]
    frame = pl.DataFrame(
        {
            "entity": pl.Series([f"e{position:02}" for position in range(kind.votes)] * kind.ticks),
            "event_time": pl.Series(times).gather(np.repeat(np.arange(kind.ticks), kind.votes)),
            "x": values,
        }
    ).filter(pl.col("x").is_not_nan())
    trigger = DriftTrigger.model_validate({"tolerance": kind.tolerance, "every": f"{kind.tick_ms}ms"})
    return build_reference(frame, ["x"], trigger, quantities=features).features[0]


def against(
    found: Sequence[FeatureReference], streams: int, *, tau: float | None = None, c_ref: float | None = None
) -> Detectors:
    """One detector a stream, references dealt out in turn; each stream is a model with one feature.

    With `tau` or `c_ref` that safeguard is replaced and references are used whatever their state.
    """
    bare = tau is not None or c_ref is not None
    dealt = [found[stream % len(found)] for stream in range(streams)]
    features = [
        msgspec.structs.replace(
            feature,
            tau=feature.tau if tau is None else tau,
            c_ref=feature.c_ref if c_ref is None else c_ref,
            state="ok" if bare else feature.state,
        )
        for feature in dealt
    ]
    return replace(watched(features), weights=np.ones(streams))


def below(values: Floats, edges: Floats) -> Floats:
    """Hits: votes at or below each edge (streams, rows); of the missing rate none."""
    counts: Floats = (values[:, :, None] <= edges[:, None, :]).sum(axis=1).astype(np.float64)
    counts[:, MISSING] = 0.0
    return counts


def present(values: Floats) -> Floats:
    """Votes of each stream (streams,)."""
    votes: Floats = np.count_nonzero(~np.isnan(values), axis=1).astype(np.float64)
    return votes
