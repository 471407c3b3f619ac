"""Ways to watch a stream, ours and others', all asked the same: at which votes, and for which feature, do you alarm?

ADWIN and KSWIN are River's with its default settings. PSI > 0.2 over ten quantile bins, and the two-sample KS test at
5 %, compare each window of 1,000 votes with the reference; with several features the test is also corrected by
Bonferroni and by Benjamini-Hochberg. What is watched is what each is told: one model of several features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from benchmarks.drift_streams import PERIOD_MS, START, START_MS, Floats, Kind, below
from river.drift import ADWIN, KSWIN
from scipy.stats import kstwobign

from tidemill.spec.model import DriftTrigger
from tidemill.stats.drift import start, step
from tidemill.watch.reference import build_reference, watched

__all__ = ["FEATURES", "PEERS", "WINDOW", "Alarms", "Peer"]

FEATURES = 5
WINDOW = 1_000
"""Votes in a window of PSI and KS."""
Alarms = list[tuple[int, int]]
"""How many votes a feature had brought, and which feature it was."""


@dataclass(frozen=True)
class Peer:
    """One way to watch."""

    find: Callable[[Floats, Floats, Kind, int], Alarms]
    """Of a reference (m, features) and a stream (n, features); may stop at the first alarm after so many votes."""
    alone: bool = False
    """Whether it looks at each feature alone, so that one that is shifted can be played alone."""
    slow: bool = False
    """Whether it takes so long that it is played for hours rather than days."""


def ours(reference: Floats, stream: Floats, kind: Kind, until: int) -> Alarms:
    """The product's reference and detectors."""
    names = [f"x{number}" for number in range(reference.shape[1])]
    ticks = len(reference) // kind.votes
    times = pl.Series([START + timedelta(milliseconds=kind.tick_ms * tick) for tick in range(ticks)])
    frame = pl.DataFrame(reference, schema=names).with_columns(
        entity=pl.Series([f"e{position:02}" for position in range(kind.votes)] * ticks),
        event_time=times.gather(np.repeat(np.arange(ticks), kind.votes)),
    )
    trigger = DriftTrigger.model_validate({"tolerance": kind.tolerance, "every": f"{kind.tick_ms}ms"})
    against = watched(build_reference(frame, names, trigger).features)
    state, votes, alarms = start(against), np.full(len(names), float(kind.votes)), Alarms()
    for number in range(len(stream) // kind.votes):
        values = stream[number * kind.votes : (number + 1) * kind.votes].T
        end = START_MS + (number + 1) * kind.tick_ms
        hits = below(values, against.edges)
        state, found = step(against, state, hits, votes, end=end, tick=kind.tick_ms, period=PERIOD_MS)
        alarms += [((number + 1) * kind.votes, row) for alarm in found for row in alarm.features[:1]]
        if _is_over(alarms, until):
            break
    return alarms


def _is_over(alarms: Alarms, until: int) -> bool:
    return bool(alarms) and alarms[-1][0] > until


def _streaming(make: Callable[[], Any]) -> Callable[[Floats, Floats, Kind, int], Alarms]:
    """A detector of River, one a feature."""

    def find(reference: Floats, stream: Floats, kind: Kind, until: int) -> Alarms:
        alarms = Alarms()
        for feature in range(stream.shape[1]):
            detector, own = make(), Alarms()
            for number, value in enumerate(stream[:, feature].tolist()):
                detector.update(value)
                if detector.drift_detected:
                    own.append((number + 1, feature))
                    if _is_over(own, until):
                        break
            alarms += own
        return alarms

    return find


def _windows(
    found: Callable[[Floats, Floats], npt.NDArray[np.bool_]],
) -> Callable[[Floats, Floats, Kind, int], Alarms]:
    """A test of each window (WINDOW, features) against the sorted reference (m, features)."""

    def find(reference: Floats, stream: Floats, kind: Kind, until: int) -> Alarms:
        ordered, alarms = np.sort(reference, axis=0), Alarms()
        for end in range(WINDOW, len(stream) + 1, WINDOW):
            where = np.flatnonzero(found(ordered, stream[end - WINDOW : end]))
            alarms += [(end, int(feature)) for feature in where]
            if _is_over(alarms, until):
                break
        return alarms

    return find


def psi(ordered: Floats, window: Floats) -> npt.NDArray[np.bool_]:
    """Whether the population stability index is above 0.2, by feature."""
    bins = 10
    cuts = ordered[np.arange(1, bins) * len(ordered) // bins]
    at_or_below = (window[:, None, :] <= cuts).mean(axis=0)
    shares = np.diff(at_or_below, axis=0, prepend=0.0, append=1.0).clip(1e-4)
    return np.asarray(((shares - 1 / bins) * np.log(shares * bins)).sum(axis=0) > 0.2)


def _p_values(ordered: Floats, window: Floats) -> Floats:
    """Of the two-sample KS test by feature, with the limiting distribution."""
    size, worst = len(window), np.zeros(window.shape[1])
    steps = np.arange(size + 1) / size
    for feature, values in enumerate(np.sort(window, axis=0).T):
        at_or_below = np.searchsorted(ordered[:, feature], values, side="right") / len(ordered)
        worst[feature] = max((steps[1:] - at_or_below).max(), (at_or_below - steps[:-1]).max())
    effective = size * len(ordered) / (size + len(ordered))
    p_values: Floats = kstwobign.sf(worst * np.sqrt(effective))
    return p_values


def _benjamini_hochberg(p_values: Floats) -> npt.NDArray[np.bool_]:
    order = np.argsort(p_values)
    passes = p_values[order] <= 0.05 * np.arange(1, len(p_values) + 1) / len(p_values)
    kept = np.zeros(len(p_values), dtype=bool)
    kept[order[: int(np.flatnonzero(passes).max(initial=-1)) + 1]] = True
    return kept


PEERS: Mapping[str, Peer] = {
    "Tidemill": Peer(ours),
    "ADWIN": Peer(_streaming(ADWIN), alone=True),
    "KSWIN": Peer(_streaming(lambda: KSWIN(seed=1)), alone=True, slow=True),
    "PSI > 0.2": Peer(_windows(psi)),
    "KS 5 %": Peer(_windows(lambda ordered, window: _p_values(ordered, window) < 0.05)),
    "KS 5 %, Bonferroni": Peer(_windows(lambda ordered, window: _p_values(ordered, window) < 0.05 / window.shape[1])),
    "KS 5 %, BH": Peer(_windows(lambda ordered, window: _benjamini_hochberg(_p_values(ordered, window)))),
}
