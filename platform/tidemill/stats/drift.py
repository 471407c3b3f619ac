"""Drift with a promised false-alarm rate: mixtures of e-detectors over shares of what is watched of each feature.

A *window tick* brings each feature some votes, one per entity. A feature has up to 18 *rows*, each a share that is bet
on, and in each a vote has a hit I in [0, 1]:

    a number     one row an edge q of the reference's bins: I = 1{vote <= q}
    a category   one row a value, and one for all others: I is the share of the entity's rows with it
    a loss       one row: I is the entity's mean loss
    any          the last row is its missing rate: I is the share of the entity's rows without a value

Let F be the reference's mean of I. Drift is what lies beyond the tolerance:

    up:   E(I) > F + tolerance + c_ref                  down:   E(1 - I) > 1 - F + tolerance + c_ref

Call the right-hand side p. For a fixed bet lambda in (0, 1/p) the capital of a vote with hit h (h = I or 1 - I) is
1 + lambda (h - p): its mean is at most 1 while there is no drift (Waudby-Smith & Ramdas 2024, "Estimating
means of bounded random variables by betting", JRSS-B 86: the capital process prod_i (1 + lambda_i (X_i - m))). The
product over the tick's votes is e. Only sums of hits are kept: since the logarithm is concave,

    log(1 + lambda (h - p)) >= h log(1 + lambda (1 - p)) + (1 - h) log(1 - lambda p),

with equality for h in {0, 1}, what is added up is at most the true capital: it alarms later, never more often. Votes
are not independent, so log e is divided by g = 2 tau (`tidemill.stats.dependence`); with it the promise is asymptotic.

Each (row, direction, bet) is a Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo 2024, "E-detectors: a
nonparametric framework for sequential change detection", NEJSDS: M_n = L_n (M_{n-1} + 1)), scaled to event time:

    M <- (M + u) e,     u = (end of this tick - end of the last updated one, at most one tick) / budget period

so that E[M at a stopping time] <= E[budget periods until then]. Averages of e-detectors are e-detectors: M_f is
the mean over the feature's bets, M = sum of w_f M_f with sum of w_f = 1. An alarm takes at least 1 out of M (a feature
alone at w_f M_f >= 1, or all together at M >= 1), hence on average at most one alarm per budget period, and
P(any within T) <= T / period (Markov at the first alarm).

Beside each M runs the e-CUSUM of the same paper in logs, max(0, S + log e): the tick at which it last stood at 0
maximises the product of e over starting points, and is shown as "since".

Where hours differ of themselves (`tidemill.watch.season`) F is that of the tick's hour: the null of a tick is known
before it, which is all that a bet needs. A bet that is off in an hour rests in it (e = 1).

All is pure and vectorised: O(features x rows x bets) a tick. Products are formed in logs; M itself is bounded by
the alarm and kept as it is, so that a state written as text is read back the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = [
    "BETS",
    "BINS",
    "MISSING",
    "ROWS",
    "Alarm",
    "Detectors",
    "DriftState",
    "Missing",
    "Watched",
    "at",
    "detectors",
    "expected_votes",
    "feature_evidence",
    "grow",
    "only",
    "reset",
    "start",
    "step",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 16
"""Bins between quantiles of the reference; their 17 edges include the outer two, where F is 0 and 1."""
ROWS = BINS + 2
"""Rows of a feature: 17 edges, or 15 values and all others, and the missing rate."""
MISSING = ROWS - 1
"""The row of the missing rate, whatever the others are."""
BETS = (0.1, 0.3, 0.6, 0.95)
"""Bets as shares of the largest one, lambda = share / p: from a small excess over p to a complete shift."""
NAMED = 0.1
"""Share of the evidence from which a feature is named in an alarm of all together."""
HOUR_MS = 3_600_000
HOURS_A_WEEK = 168
_LARGEST_LOG = 700.0
"""exp of more overflows; far above any alarm."""


@dataclass(frozen=True)
class Missing:
    """What is watched of a feature's missing rate; it has votes of its own, and so slack of its own."""

    share: float
    c_ref: float
    tau: float


@dataclass(frozen=True)
class Watched:
    """What is watched of one feature: the rows' shares (at most 17), and the slack around them."""

    edges: Sequence[float]
    """Of a number, rising, one a row; else empty."""
    shares: Sequence[float]
    """F in each row."""
    tolerance: float
    c_ref: float
    tau: float
    on: bool = True
    """Whether it may alarm; one that may not keeps its weight, unused."""
    margins: Sequence[float] = ()
    """c_ref of each row, where they differ."""
    missing: Missing | None = None
    only_rise: bool = False
    """Whether only more hits than before are drift."""
    hours: Sequence[Sequence[float]] = ()
    """F by hour since 1970 modulo 24 or 168, in place of `shares`; nothing is bet on in an hour without."""


@dataclass(frozen=True)
class Detectors:
    """The fixed part of F features' detectors. Arrays are (F, R), (F, R, 2) with up = 0, down = 1, or (F, R, 2, B)."""

    edges: Floats
    """inf where a row has none."""
    hit: Floats
    """log(1 + lambda (1 - p)) / g: what a hit adds to log e (F, R, 2, B)."""
    miss: Floats
    """log(1 - lambda p) / g: what a miss adds (F, R, 1, B)."""
    on: npt.NDArray[np.bool_]
    """Which rows and directions are bet on (F, R, 2)."""
    mixture: Floats
    """Weight of each bet in M_f (F, R, 2, 1): one over their number, 0 where off."""
    weights: Floats
    """w_f (F,)."""
    scale: Floats
    """g (F, R, 1, 1)."""
    seasonal: Ints
    """Positions of the features whose hours differ (S,)."""
    by_hour: Floats
    """Their p by hour of the week since 1970 (S, 168, MISSING, 2); 1 where there is no bet."""


@dataclass(frozen=True)
class DriftState:
    """The moving part. Times are milliseconds of event time."""

    evidence: Floats
    """M of each bet (F, R, 2, B)."""
    cusum: Floats
    """The e-CUSUM in logs (F, R, 2, B)."""
    since: Ints
    """End of the tick at which the e-CUSUM last stood at 0 (F, R, 2, B)."""
    updated: Ints
    """End of the last tick with votes (F,); -1 before the first."""


@dataclass(frozen=True)
class Alarm:
    """One alarm: it took `evidence` >= 1 out of M."""

    features: tuple[int, ...]
    """Positions of the features it names, the strongest first; exactly one where a feature alarmed alone."""
    evidence: float
    since: int
    edge: float
    """The edge at which the strongest feature's strongest bet was won; inf where its row has none."""
    rises: bool
    """Whether more votes than before lie above that edge (else below): fewer hits than before."""
    row: int = 0
    """The strongest feature's row in which it was won."""

    @property
    def more(self) -> bool:
        """Whether there are more hits than before in that row (else fewer)."""
        return not self.rises


def detectors(features: Sequence[Watched]) -> Detectors:
    """The detectors of `features`, with equal weights 1/F."""
    shape = (len(features), ROWS)
    edges, nulls, on = np.full(shape, np.inf), np.ones((*shape, 2)), np.zeros((*shape, 2), dtype=bool)
    tau = np.ones(shape)
    for number, feature in enumerate(features):
        edges[number, : len(feature.edges)] = feature.edges
        nulls[number], tau[number] = _nulls(feature)
        on[number, :, 0] = feature.on
        on[number, :, 1] = feature.on and not feature.only_rise
    on &= nulls < 1
    seasonal = np.array([number for number, feature in enumerate(features) if feature.hours], dtype=np.int64)
    by_hour = np.ones((len(seasonal), HOURS_A_WEEK, MISSING, 2))
    for place, number in enumerate(seasonal):
        by_hour[place] = _nulls_by_hour(features[number])
        on[number, :MISSING] = (by_hour[place] < 1).any(axis=0)
    scale = 2 * tau[..., None, None]
    count = np.maximum(on.sum(axis=(1, 2)) * len(BETS), 1).reshape(-1, 1, 1)
    return Detectors(
        edges=edges,
        hit=_hit(nulls, on) / scale,
        miss=np.log1p(-np.asarray(BETS)) / scale,
        on=on,
        mixture=(on / count)[..., None],
        weights=np.full(len(features), 1 / max(len(features), 1)),
        scale=scale,
        seasonal=seasonal,
        by_hour=by_hour,
    )


def only(watched: Detectors, feature: int) -> Detectors:
    """The detectors of one feature of many, with the weight that it has among them."""
    one, its = slice(feature, feature + 1), watched.seasonal == feature
    return Detectors(
        edges=watched.edges[one],
        hit=watched.hit[one],
        miss=watched.miss[one],
        on=watched.on[one],
        mixture=watched.mixture[one],
        weights=watched.weights[one],
        scale=watched.scale[one],
        seasonal=np.flatnonzero(its[its]),
        by_hour=watched.by_hour[its],
    )


def at(watched: Detectors, begin: int) -> Detectors:
    """The detectors with the nulls of the hour in which a tick begins (milliseconds)."""
    if not len(watched.seasonal):
        return watched
    nulls = watched.by_hour[:, begin // HOUR_MS % HOURS_A_WEEK]
    hit, on = watched.hit.copy(), watched.on.copy()
    on[watched.seasonal, :MISSING] = nulls < 1
    hit[watched.seasonal, :MISSING] = _hit(nulls, nulls < 1) / watched.scale[watched.seasonal, :MISSING]
    return replace(watched, hit=hit, on=on)


def _hit(nulls: Floats, on: npt.NDArray[np.bool_]) -> Floats:
    """log(1 + lambda (1 - p)) of each bet."""
    p = np.where(on, nulls, 0.5)[..., None]
    log: Floats = np.log1p(np.asarray(BETS) * (1 - p) / p)
    return log


def _nulls_by_hour(feature: Watched) -> Floats:
    """The largest means that are no drift by hour of the week (168, MISSING, 2)."""
    nulls = np.ones((len(feature.hours), MISSING, 2))
    for hour, shares in enumerate(feature.hours):
        if shares and feature.on:
            share = np.asarray(shares, dtype=np.float64)
            nulls[hour, : len(share)] = np.stack([share, 1 - share], axis=-1) + feature.tolerance + feature.c_ref
    if feature.only_rise:
        nulls[..., 1] = 1.0
    return np.tile(nulls, (HOURS_A_WEEK // max(len(nulls), 1), 1, 1))


def _nulls(feature: Watched) -> tuple[Floats, Floats]:
    """The largest means of hits that are no drift (R, 2), 1 where nothing is watched; and tau (R,)."""
    width, missing = len(feature.shares), feature.missing
    share, slack, tau = np.ones(ROWS), np.ones(ROWS), np.ones(ROWS)
    share[:width], slack[:width], tau[:width] = feature.shares, feature.margins or feature.c_ref, feature.tau
    if missing is not None:
        share[MISSING], slack[MISSING], tau[MISSING] = missing.share, missing.c_ref, missing.tau
    return np.stack([share, 1 - share], axis=-1) + (feature.tolerance + slack)[:, None], tau


def start(watched: Detectors) -> DriftState:
    """The state before the first tick: no evidence."""
    shape = watched.hit.shape
    return DriftState(np.zeros(shape), np.zeros(shape), np.full(shape, -1), np.full(shape[0], -1))


def feature_evidence(watched: Detectors, state: DriftState) -> Floats:
    """w_f M_f of each feature (F,): its part of M."""
    parts: Floats = watched.weights * (state.evidence * watched.mixture).sum(axis=(1, 2, 3))
    return parts


def step(
    watched: Detectors, state: DriftState, hits: Floats, votes: Floats, *, end: int, tick: int, period: float
) -> tuple[DriftState, tuple[Alarm, ...]]:
    """One window tick: `grow`, then alarms, each of which sets what it took back to 0.

    A feature without votes may be of another stream, with another time: should an alarm of all together take its
    evidence, that begins anew at its own next tick.
    """
    state = grow(watched, state, hits, votes, end=end, tick=tick, period=period)
    parts = feature_evidence(watched, state)
    if parts.sum() < 1:
        return state, ()
    order = [int(row) for row in np.argsort(-parts, kind="stable")]
    alone = [row for row in order if parts[row] >= 1]
    found = [_alarm(watched, state, (row,), float(parts[row])) for row in alone]
    taken = np.isin(np.arange(len(parts)), alone)
    left = float(parts[~taken].sum())
    if left >= 1:
        named = tuple(row for row in order if not taken[row] and parts[row] >= NAMED * left)
        found.append(_alarm(watched, state, named, left))
        taken[:] = True
    silent = taken & ~(votes.reshape(len(votes), -1) > 0).any(axis=1)
    return reset(reset(state, taken, end), silent, -1), tuple(found)


def grow(
    watched: Detectors, state: DriftState, hits: Floats, votes: Floats, *, end: int, tick: int, period: float
) -> DriftState:
    """The evidence after one window tick.

    Args:
        watched: the detectors.
        state: as the last call left it.
        hits: their sum over the votes, in each row (F, R).
        votes: how many votes there are (F,), or in each row (F, R); a row with none is left as it is.
        end: end of the tick, milliseconds.
        tick: its length, milliseconds.
        period: the time in which one false alarm may be expected, milliseconds.
    """
    watched = at(watched, end - tick)
    votes = np.broadcast_to(votes.reshape(len(votes), -1), hits.shape)
    both = np.stack([hits, votes - hits], axis=-1)[..., None]
    log_e = both * watched.hit + (votes[..., None, None] - both) * watched.miss
    fresh = np.where(state.updated < 0, tick, np.clip(end - state.updated, 0, tick)) / period
    with np.errstate(divide="ignore"):  # no evidence and nothing fresh: the log of 0, and 0 it stays
        grown = np.log(state.evidence + fresh.reshape(-1, 1, 1, 1)) + log_e
    cusum = np.maximum(state.cusum + log_e, 0.0)
    live = (votes > 0)[..., None, None] & watched.on[..., None]
    return DriftState(
        evidence=np.where(live, np.exp(np.minimum(grown, _LARGEST_LOG)), state.evidence),
        cusum=np.where(live, cusum, state.cusum),
        since=np.where(live & (cusum <= 0.0), end, np.where(live & (state.since < 0), end - tick, state.since)),
        updated=np.where((votes > 0).any(axis=1), end, state.updated),
    )


def reset(state: DriftState, features: npt.NDArray[np.bool_], end: int) -> DriftState:
    """The state without the evidence of `features` (F,), which begins anew at `end`."""
    gone = features.reshape(-1, 1, 1, 1)
    return replace(
        state,
        evidence=np.where(gone, 0.0, state.evidence),
        cusum=np.where(gone, 0.0, state.cusum),
        since=np.where(gone, end, state.since),
    )


def _alarm(watched: Detectors, state: DriftState, rows: tuple[int, ...], evidence: float) -> Alarm:
    best = np.unravel_index(np.argmax(state.evidence[rows[0]]), state.evidence.shape[1:])
    return Alarm(
        features=rows,
        evidence=evidence,
        since=int(state.since[rows[0]][best]),
        edge=float(watched.edges[rows[0], best[0]]),
        rises=bool(best[1] == 1),
        row=int(best[0]),
    )


def expected_votes(
    watched: Detectors, feature: int, shares: Floats, *, tick: int, period: float, hours: Floats | None = None
) -> float:
    """About how many votes it takes until a feature alarms once its first rows' shares are `shares`; inf: never.

    The bet that gets there first, from one tick's fresh M to 1/w_f: log(period / (tick w_f share in the mixture))
    over the mean of log e a vote. Where its hours differ `shares` are by hour (H, R), and `hours` says which part of
    the votes each hour has (H,).
    """
    rows = slice(shares.shape[-1])
    growth = np.zeros((shares.shape[-1], *watched.hit.shape[2:]))
    for hour, after in enumerate(np.atleast_2d(shares)):
        then = watched if hours is None else at(watched, hour * HOUR_MS)
        hits = np.stack([after, 1 - after], axis=-1)[..., None]
        log_e = hits * then.hit[feature, rows] + (1 - hits) * then.miss[feature, rows]
        growth += np.where(then.on[feature, rows, :, None], log_e, 0.0) * (1.0 if hours is None else hours[hour])
    weight = np.broadcast_to(watched.mixture[feature, rows] * watched.weights[feature], growth.shape)
    wins = (weight > 0) & (growth > 0)
    if not wins.any():
        return float("inf")
    return float((np.log(period / (tick * weight[wins])) / growth[wins]).min())
