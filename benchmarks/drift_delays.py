"""How long a shift of one feature of five takes to be found, beside the false alarms on the same kind of stream.

Delays are in votes of a feature from the beginning of the shift to the first alarm that names it: the median over
repeats. A false alarm that happens to come then counts as found, which flatters those that have many.
"""

from dataclasses import dataclass

import numpy as np
from benchmarks.drift_alarms import DAYS, SLOW, upper_bound
from benchmarks.drift_peers import FEATURES, PEERS, WINDOW, Peer
from benchmarks.drift_streams import (
    DAY_MS,
    Floats,
    Kind,
    autocorrelated,
    independent,
    seasonal,
)
from benchmarks.report import Figure

__all__ = ["Compared", "simulate_delays"]

WARM = 9 * WINDOW
"""Votes before the shift."""
WARM_SLOW = WINDOW // 2
"""The same of a peer that is slow."""
RAMP = 100_000
"""Votes in which a slow shift grows to 1 sigma."""
ON, CYCLE = 2_000, 8_000
"""Votes that a recurring shift of 1 sigma lasts, and after which it comes again."""
SHIFTS = ("0.3", "0.5", "1", "2", "slow to 1", "recurring 1")
KINDS: dict[str, Kind] = {
    "iid": Kind(independent, 600),
    "AR(1) 0.9": Kind(autocorrelated(0.9), 8_000),
    "daily season 1 sigma": Kind(seasonal(1.0, tick_ms=SLOW), 28 * DAYS, 0.2, SLOW),
}
"""Kinds of stream; the tolerance is 0.05, and 0.2 with the season."""


@dataclass(frozen=True)
class Compared:
    """How much is simulated."""

    models: int
    days: float
    slow_votes: int
    """Votes that a slow peer is given."""
    repeats: int
    limit: int
    """Votes after which a shift counts as not found."""


def simulate_delays(size: Compared, rng: np.random.Generator) -> list[Figure]:
    """One figure for each kind of stream and way to watch: false alarms, with the delays as its note."""
    figures = []
    for name, kind in KINDS.items():
        alarms = dict.fromkeys(PEERS, 0)
        for _ in range(size.models):
            reference = _votes(kind, rng, kind.ticks * kind.votes)
            stream = _votes(kind, rng, round(size.days * DAY_MS / kind.tick_ms) * kind.votes)
            for peer, watching in PEERS.items():
                played = stream[: size.slow_votes] if watching.slow else stream
                found = watching.find(reference, played, kind, len(stream))
                alarms[peer] += len({position for position, _ in found})
        delays = _delays(kind, size, rng)
        for peer, watching in PEERS.items():
            days = size.slow_votes / kind.votes * kind.tick_ms / DAY_MS if watching.slow else size.days
            days *= size.models
            figures.append(_figure(f"{name}: {peer}", alarms[peer], days, delays[peer], size.limit))
    return figures


def _figure(name: str, alarms: int, days: float, delays: dict[str, float], limit: int) -> Figure:
    told = "; ".join(
        f"{shift} sigma {took:,.0f}" if took < limit else f"{shift} sigma not in {limit:,}"
        for shift, took in delays.items()
    )
    bound = upper_bound(alarms) * 30 / days
    return Figure(
        name,
        alarms * 30 / days,
        "false alarms per 30 d",
        note=f"{alarms} in {days:.3g} days, bound {bound:,.2g}; votes to find: {told}",
    )


def _votes(kind: Kind, rng: np.random.Generator, votes: int) -> Floats:
    """Votes of a model's features in the order in which they come (n, FEATURES)."""
    source = kind.make(rng, FEATURES, kind.votes)
    return np.concatenate([source.tick().T for _ in range(votes // kind.votes)])


def _delays(kind: Kind, size: Compared, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Median delay by peer and shift; the limit where it was not found."""
    took: dict[str, dict[str, list[float]]] = {peer: {shift: [] for shift in SHIFTS} for peer in PEERS}
    for _ in range(size.repeats):
        reference = _votes(kind, rng, kind.ticks * kind.votes)
        stream = _votes(kind, rng, WARM + size.limit)
        for shift in SHIFTS:
            shifted = stream.copy()
            shifted[WARM:, 0] += _path(shift, len(stream) - WARM)
            for peer, watching in PEERS.items():
                took[peer][shift].append(_delay(watching, reference, shifted, kind, size.limit))
    return {
        peer: {shift: float(np.median(delays)) for shift, delays in by_shift.items()} for peer, by_shift in took.items()
    }


def _path(shift: str, votes: int) -> Floats:
    """What is added to each vote."""
    since = np.arange(votes)
    if shift.startswith("slow"):
        return np.minimum(since / RAMP, 1.0)
    if shift.startswith("recurring"):
        return (since % CYCLE < ON).astype(np.float64)
    return np.full(votes, float(shift))


def _delay(watching: Peer, reference: Floats, stream: Floats, kind: Kind, limit: int) -> float:
    begin = WARM - WARM_SLOW if watching.slow else 0
    if watching.alone:
        stream = stream[:, :1]
    found = watching.find(reference, stream[begin:], kind, WARM - begin)
    after = [position + begin - WARM for position, feature in found if feature == 0 and position + begin > WARM]
    return float(min(after, default=limit))
