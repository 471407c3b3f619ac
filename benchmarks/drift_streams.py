"""Simulated votes of many streams, and the product's references and detectors on them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.spec.model import DriftTrigger
from tidemill.stats.drift import Detectors, Watched, detectors
from tidemill.watch.reference import FeatureReference, build_reference

__all__ = [
    "PERIOD_MS",
    "TICK_MS",
    "VOTES",
    "Floats",
    "Make",
    "Votes",
    "against",
    "autocorrelated",
    "below",
    "copied",
    "independent",
    "reference",
]

Floats = npt.NDArray[np.float64]
Make = Callable[[np.random.Generator, int, int], "Votes"]

TICK_MS = 10_000
PERIOD_MS = 30 * 86_400_000.0
VOTES = 30
"""Votes a tick: one of each of 30 entities."""


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


def independent(rng: np.random.Generator, streams: int, votes: int) -> Votes:
    """No dependence."""
    return Votes(rng, streams, votes)


def autocorrelated(rho: float) -> Make:
    """AR(1) from vote to vote."""
    return lambda rng, streams, votes: Votes(rng, streams, votes, rho=rho)


def copied(rng: np.random.Generator, streams: int, votes: int) -> Votes:
    """Every vote five times within its tick."""
    return Votes(rng, streams, votes, copies=5)


def reference(make: Make, rng: np.random.Generator, votes: int, tolerance: float) -> FeatureReference:
    """A reference of one feature from simulated votes, by the product's own code."""
    source, ticks = make(rng, 1, VOTES), -(-votes // VOTES)
    values = np.concatenate([source.tick()[0] for _ in range(ticks)])
    times = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(milliseconds=TICK_MS * tick) for tick in range(ticks)]
    frame = pl.DataFrame(
        {
            "entity": [f"e{position:02}" for position in range(VOTES)] * ticks,
            "event_time": pl.Series(times).gather(np.repeat(np.arange(ticks), VOTES)),
            "x": values,
        }
    )
    trigger = DriftTrigger.model_validate({"tolerance": tolerance, "every": "10s"})
    return build_reference(frame, ["x"], trigger).features[0]


def against(
    found: Sequence[FeatureReference], streams: int, *, tau: float | None = None, c_ref: float | None = None
) -> Detectors:
    """One detector a stream, references dealt out in turn; each stream is a model with one feature.

    With `tau` or `c_ref` that safeguard is replaced and references are used whatever their state.
    """
    watched = [
        Watched(
            edges=feature.edges,
            shares=feature.shares,
            tolerance=feature.tolerance,
            c_ref=feature.c_ref if c_ref is None else c_ref,
            tau=feature.tau if tau is None else tau,
            on=feature.state == "ok" or c_ref is not None,
        )
        for feature in (found[stream % len(found)] for stream in range(streams))
    ]
    return replace(detectors(watched), weights=np.ones(streams))


def below(values: Floats, edges: Floats) -> Floats:
    """Votes at or below each edge (streams, edges)."""
    counts: Floats = (values[:, :, None] <= edges[:, None, :]).sum(axis=1).astype(np.float64)
    return counts
