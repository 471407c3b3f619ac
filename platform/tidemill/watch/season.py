"""Hours that differ of themselves: a season is compared with itself, or widens the tolerance, and is shown. Pure.

Hours are of UTC, by the beginning of a window tick. *Whether they differ* is asked by an analysis of variance over
blocks of one hour: the spread between hours of the day (or of the week, beyond what hours of the day explain) against
the spread of the same hour from day to day, pooled over edges. At least 3 repeats must have been seen. Blocks of the
same hour a day apart are less dependent than votes, so tau is not needed for this question.

*What is done* where some hour lies further than half the tolerance from what it would be compared with:

* a reference for each hour of the day from 14 days on, for each hour of the week from 8 weeks on. Its shares rest on
  the votes of that hour alone, so c_ref is that of the hour with the fewest, N_hour, and all H hours share the risk:
  sqrt(ln(2 H / risk) tau / (2 N_hour)). An hour whose c_ref would be above half the tolerance is not watched; where
  such hours hold more than a tenth of all votes there is no reference by hour;
* else the tolerance rises to the largest deviation of an hour from what it is compared with.

Either way dependence is measured with the season removed: it is not memory.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.stats.drift import HOUR_MS

__all__ = ["Fit", "Hourly", "Season", "fit_season", "hourly", "season_words"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY, WEEK = 24, 168
SEEN = 3
"""Repeats from which it can be told whether hours differ."""
REPEATS: Mapping[int, int] = {DAY: 14, WEEK: 8}
"""Repeats from which there may be a reference for each hour: 14 days, 8 weeks."""
ERRORS = 3.0
"""Standard errors above chance from which a difference between hours is believed."""
UNWATCHED = 0.1
"""Share of votes that may lie in hours with too few of them."""
Cycle = Literal["day", "week"]
NAMES: Mapping[int, Cycle] = {DAY: "day", WEEK: "week"}


class Season(msgspec.Struct, frozen=True, kw_only=True):
    """How hours of one feature differ, and what is done about it."""

    differ: Cycle
    """Whose hours differ."""
    by_hour: Literal["", "day", "week"] = ""
    """Of what each hour has a reference of its own; empty: the tolerance holds for all hours together."""
    spread: float
    """Largest deviation of an hour's share at an edge from that of all hours."""
    deviation: float
    """The same from what it is compared with, which the tolerance is at least; 0 from its own."""
    why_not: str = ""
    """Why there is no finer reference, with figures."""
    shares: tuple[tuple[float, ...], ...] = ()
    """Share at or below each edge by hour since 1970 modulo 24 or 168; empty for an hour that is not watched."""
    means: tuple[float | None, ...] = ()
    """Mean of the votes by hour."""


@dataclass(frozen=True)
class Hourly:
    """One feature's votes by window tick, and the cycle whose hours differ."""

    hours: Ints
    """Hour since 1970 of each tick with votes (T,), rising."""
    hits: Floats
    """Votes at or below each edge (T, E)."""
    votes: Floats
    """Votes (T,)."""
    cycle: int
    """1: hours do not differ, or too little was seen to tell; 24; 168."""

    @property
    def groups(self) -> Ints:
        """Hour of the cycle of each tick (T,)."""
        return self.hours % self.cycle

    @property
    def span(self) -> int:
        """Hours from the first vote to the last."""
        return int(self.hours[-1] - self.hours[0]) + 1 if len(self.hours) else 0


@dataclass(frozen=True)
class Fit:
    """What is done about a season."""

    season: Season | None
    tolerance: float
    """The declared one, or the deviation of hours where that is larger."""
    c_ref: float | None = None
    """That of a reference by hour; None where there is none."""
    words: str = ""
    """What people should know of it."""


def hourly(ticks: Ints, hits: Floats, votes: Floats, tick_ms: int) -> Hourly:
    """Find out whose hours differ: see the module."""
    found = Hourly(ticks * tick_ms // HOUR_MS, hits, votes, 1)
    for finer in (DAY, WEEK):
        if found.span >= SEEN * finer and _differ(found, finer):
            found = Hourly(found.hours, hits, votes, finer)
    return found


def fit_season(
    seen: Hourly, newer: npt.NDArray[np.bool_], means: Floats, *, tau: float, risk: float, tolerance: float
) -> Fit:
    """Choose what each hour is compared with.

    Args:
        seen: the whole reference.
        newer: which ticks are in the half that makes the reference (T,).
        means: mean of the votes of each tick (T,).
        tau: dependence, season removed.
        risk: probability that some share of some hour is further than c_ref from the truth.
        tolerance: the declared one.
    """
    if seen.cycle == 1:
        return Fit(None, tolerance)
    spread = deviation = _deviation(seen, newer, 1)
    chosen, why_not = 1, ""
    for cycle in (DAY, WEEK):
        if cycle > seen.cycle or deviation <= tolerance / 2:
            break
        why_not = _refused(seen, _by_hour(seen, newer, cycle)[0], _needed(cycle, tau, risk, tolerance), cycle)
        if not why_not:
            chosen, deviation = cycle, _deviation(seen, newer, cycle)
    season = Season(differ=NAMES[seen.cycle], spread=spread, deviation=deviation, why_not=why_not)
    if chosen == 1:
        return Fit(season, max(tolerance, deviation), words=season_words(season) if deviation > tolerance else "")
    counts, table = _by_hour(seen, newer, chosen)
    kept = counts >= _needed(chosen, tau, risk, tolerance)
    season = msgspec.structs.replace(
        season,
        by_hour=NAMES[chosen],
        shares=tuple(tuple(map(float, row)) if keep else () for row, keep in zip(table, kept, strict=True)),
        means=_means(seen.hours[newer] % chosen, means[newer], seen.votes[newer], chosen),
    )
    c_ref = float(np.sqrt(np.log(2 * chosen / risk) * tau / (2 * counts[kept].min())))
    return Fit(season, max(tolerance, deviation), c_ref, season_words(season))


def season_words(season: Season) -> str:
    """The season in a sentence."""
    text = f"hours of the {season.differ} differ by up to {season.spread:.2g}"
    if season.by_hour:
        text += f", each is compared with the same hour of the {season.by_hour}"
    if unwatched := sum(not row for row in season.shares):
        text += f" ({unwatched} of {len(season.shares)} have too few votes and are not watched)"
    if season.by_hour and season.why_not:
        text += f", from which hours of the week lie up to {season.deviation:.2g}"
    return f"{text}; {season.why_not}" if season.why_not else text


def _differ(seen: Hourly, finer: int) -> bool:
    """Whether hours of the finer cycle differ by more than those of the cycle already found explain."""
    blocks, starts = np.unique(seen.hours, return_index=True)
    hits = np.add.reduceat(seen.hits, starts, axis=0)
    votes = np.add.reduceat(seen.votes, starts)
    coarse, fine = blocks % seen.cycle, blocks % finer
    excess = hits - votes[:, None] * _shares(coarse, hits, votes, seen.cycle)[coarse]
    count = np.bincount(fine, minlength=finer).astype(np.float64)
    groups = int((count > 0).sum())
    between, within = groups - len(np.unique(coarse)), len(blocks) - groups
    if between < 1 or within < (SEEN - 1) * groups:
        return False
    means = _sums(fine, excess, finer) / np.maximum(count, 1.0)[:, None]
    left = excess - means[fine]
    spread = float((count[:, None] * np.square(means)).sum()) / between
    chance = float(np.square(left).sum()) / within
    covariance = left.T @ left
    few = float(np.square(covariance).sum()) / max(float(np.trace(covariance)) ** 2, np.finfo(float).tiny)
    noise = ERRORS * math.sqrt(2 * few * (1 / between + 1 / within))
    return bool(spread > chance * (1 + noise) + np.finfo(float).eps)


def _needed(cycle: int, tau: float, risk: float, tolerance: float) -> float:
    """Votes of an hour from which c_ref is at most half the tolerance."""
    return float(np.log(2 * cycle / risk) * tau / (2 * (tolerance / 2) ** 2))


def _deviation(seen: Hourly, newer: npt.NDArray[np.bool_], cycle: int) -> float:
    """Largest deviation of an hour's share at an edge from the newer half's share for the hour of `cycle`.

    0 from its own hour: whether halves differ is for the replay to say.
    """
    if cycle == seen.cycle:
        return 0.0
    counts = np.bincount(seen.groups, weights=seen.votes, minlength=seen.cycle)
    own = _shares(seen.groups, seen.hits, seen.votes, seen.cycle)
    _, table = _by_hour(seen, newer, cycle)
    apart = np.abs(own - table[np.arange(seen.cycle) % cycle])
    return float(apart[counts > 0].max(initial=0.0))


def _by_hour(seen: Hourly, newer: npt.NDArray[np.bool_], cycle: int) -> tuple[Floats, Floats]:
    """Votes (cycle,) and shares (cycle, E) of the newer half by hour."""
    groups, votes = seen.hours[newer] % cycle, seen.votes[newer]
    counts: Floats = np.bincount(groups, weights=votes, minlength=cycle).astype(np.float64)
    return counts, _shares(groups, seen.hits[newer], votes, cycle)


def _refused(seen: Hourly, counts: Floats, needed: float, cycle: int) -> str:
    """Why there is no reference for each hour of the cycle; empty where there may be one."""
    name, least = NAMES[cycle], REPEATS[cycle] * cycle
    if seen.span < least:
        wanted = f"{REPEATS[cycle]} {'days' if cycle == DAY else 'weeks'}"
        return f"a reference by hour of the {name} needs {wanted}, this has {seen.span / 24:.3g} days"
    if counts[counts < needed].sum() > UNWATCHED * counts.sum():
        has = f"this has about {np.median(counts[counts > 0]):,.0f}"
        return f"a reference by hour of the {name} needs {needed:,.0f} votes of each hour in its newer half, {has}"
    return ""


def _means(groups: Ints, values: Floats, votes: Floats, cycle: int) -> tuple[float | None, ...]:
    totals = np.bincount(groups, weights=values * votes, minlength=cycle)
    counts = np.bincount(groups, weights=votes, minlength=cycle)
    return tuple(float(total / count) if count else None for total, count in zip(totals, counts, strict=True))


def _shares(groups: Ints, hits: Floats, votes: Floats, cycle: int) -> Floats:
    """Share by group (cycle, E); 0 where there are no votes."""
    counts = np.bincount(groups, weights=votes, minlength=cycle)
    shares: Floats = _sums(groups, hits, cycle) / np.maximum(counts, 1.0)[:, None]
    return shares


def _sums(groups: Ints, rows: Floats, cycle: int) -> Floats:
    return np.stack([np.bincount(groups, weights=column, minlength=cycle) for column in rows.T], axis=-1)
