"""From votes to references: the shares, how far they may be off, how dependent the votes are, what can be promised.

The newer half of the votes makes a reference; the older half is replayed against it as if it were live. An alarm there
means that the tolerance is below what is natural here: it is raised until there is none, and that is shown.

c_ref: the shares are further from the truth than that anywhere, over all quantities, with a probability of 1 %. Nine
tenths of each quantity's part of it are for what it is, one for its missing rate. A number's edges have the bound of a
whole distribution, a category's shares and a loss those of single means (`tidemill.stats.radius`), of N/tau votes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.spec.model import DriftTrigger
from tidemill.stats.dependence import TICKS_PER_TAU, Dependence, measure_dependence
from tidemill.stats.drift import BINS, HOUR_MS, MISSING, ROWS, Detectors, expected_votes, only, start, step
from tidemill.stats.radius import distribution_radius, mean_radius, values_needed
from tidemill.watch.quantity import ENTITIES, FeatureReference, MissingReference, State, in_hour, watched
from tidemill.watch.season import fit_season, hourly
from tidemill.watch.votes import FeatureVotes

__all__ = ["budget_period_ms", "measure", "replayed"]

Floats = npt.NDArray[np.float64]

DELTA = 0.01
"""Probability that a share is further than c_ref from the truth anywhere, over all quantities."""
OF_MISSING = 0.1
"""Part of it that is for missing rates."""
RAISE = 1.25
"""Factor by which the tolerance grows until the older half does not alarm."""
LARGEST_TOLERANCE = 0.5
"""Beyond it half of all values may move unseen: nothing worth promising is left."""
FEW = 0.1
"""Share of the rows below which a category's commonest values are not common."""
THIRTY_DAYS_MS = 30 * 86_400_000
_CHUNK = 512
"""Ticks of the older half that are replayed at a time, so that many features need little memory."""


@dataclass(frozen=True)
class _Shares:
    """What a half of the votes says of the rows."""

    shares: Floats
    edges: Floats
    margins: Floats
    """c_ref by row."""
    needed: float
    """Votes, were they independent, from which the margins are at most half the tolerance; inf: never."""


def measure(votes: Sequence[FeatureVotes], trigger: DriftTrigger, *, quantities: int) -> tuple[FeatureReference, ...]:
    """The references of quantities whose votes come from one stream.

    Args:
        votes: of each quantity.
        trigger: tolerance, rise, budget and window tick.
        quantities: how many share the budget, these and those of other streams.
    """
    tick_ms, period = round(trigger.every / timedelta(milliseconds=1)), budget_period_ms(trigger)
    halves = [_halves(of) for of in votes]
    measured = [_measure(of, newer, trigger, quantities) for of, (_, newer) in zip(votes, halves, strict=True)]
    measured = replayed(measured, [older for older, _ in halves], tick_ms=tick_ms, period=period)
    against = replace(watched(measured), weights=np.full(len(measured), 1 / quantities))
    return tuple(
        _with_power(feature, newer, against, row, tick_ms=tick_ms, period=period)
        for row, (feature, (_, newer)) in enumerate(zip(measured, halves, strict=True))
    )


def budget_period_ms(trigger: DriftTrigger) -> float:
    """The time in which one false alarm may be expected, milliseconds."""
    return trigger.false_alarms.per / timedelta(milliseconds=1) / trigger.false_alarms.count


def _halves(votes: FeatureVotes) -> tuple[FeatureVotes, FeatureVotes]:
    """The older half, and the newer with the whole tick in the middle."""
    if not len(votes):
        return votes, votes
    middle, end = int(votes.ticks[len(votes) // 2]), int(votes.gaps.ticks[-1])
    return votes.between(int(votes.gaps.ticks[0]), middle - 1), votes.between(middle, end)


def _measure(whole: FeatureVotes, newer: FeatureVotes, trigger: DriftTrigger, quantities: int) -> FeatureReference:
    tolerance = trigger.rise if whole.kind == "loss" else trigger.tolerance
    blank = FeatureReference(name=whole.name, kind=whole.kind, state="reference-too-small", tolerance=tolerance)
    if not len(newer):
        return msgspec.structs.replace(blank, reason=f"reference too small: no row has a value of {whole.name}")
    edges = _edges(newer) if whole.kind == "number" else np.zeros(0)
    ticks, hits, counts = whole.hits(edges)
    seen = hourly(ticks, hits, counts, round(trigger.every / timedelta(milliseconds=1)))
    found = measure_dependence(hits, counts, seen.groups)
    risk = (1 - OF_MISSING) * DELTA / quantities
    rows = _shares(newer, edges, found.tau, tolerance, risk)
    each = risk / len(rows.shares) if whole.kind == "category" else risk
    fit = fit_season(seen, ticks >= newer.ticks[0], _tick_means(whole), tau=found.tau, risk=each, tolerance=tolerance)
    c_ref = float(rows.margins.max()) if fit.c_ref is None else fit.c_ref + whole.cut
    needed = 2 * math.ceil(rows.needed * found.tau) if math.isfinite(rows.needed) else 0
    state, reason = _verdict(whole, needed, found, c_ref > tolerance / 2, tolerance)
    if fit.tolerance > tolerance and fit.tolerance >= LARGEST_TOLERANCE:
        state, reason = "cannot-promise", f"{reason or 'cannot promise'}; {fit.words}"
    missing, without = _missing(whole, newer, OF_MISSING * DELTA / quantities)
    is_category = whole.kind == "category"
    return msgspec.structs.replace(
        blank,
        state=state,
        reason=reason or "; ".join(filter(None, [fit.words, without])),
        edges=tuple(map(float, edges)),
        labels=whole.labels,
        others=whole.others,
        shares=tuple(map(float, rows.shares)),
        votes=len(newer),
        ticks=found.ticks,
        tau=found.tau,
        c_ref=c_ref,
        tolerance=fit.tolerance,
        raised=fit.tolerance > tolerance,
        season=fit.season,
        margins=() if whole.kind == "number" else tuple(map(float, rows.margins)),
        missing=missing,
        votes_needed=needed,
        mean=None if is_category else float(newer.values.mean()),
        deviation=None if is_category else whole.deviation,
        entities={} if is_category else {name: float(mean[0]) for name, mean in _means(newer).items()},
        entity_shares={name: tuple(map(float, mean)) for name, mean in _means(newer).items()} if is_category else {},
    )


def _tick_means(votes: FeatureVotes) -> Floats:
    """Mean of the votes of each tick (T,); of a category, whose means say nothing, its first label's share."""
    _, starts = np.unique(votes.ticks, return_index=True)
    values = votes.values.reshape(len(votes), -1)[:, 0]
    means: Floats = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    return means


def _edges(newer: FeatureVotes) -> Floats:
    inner = np.quantile(newer.values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    lowest, highest = np.nextafter(newer.values.min(), -np.inf), newer.values.max()
    return np.unique(np.concatenate([[lowest], inner, [highest]]))


def _shares(newer: FeatureVotes, edges: Floats, tau: float, tolerance: float, risk: float) -> _Shares:
    independent = len(newer) / tau
    if newer.kind == "number":
        shares = np.searchsorted(np.sort(newer.values), edges, side="right") / len(newer)
        c_ref = distribution_radius(independent, risk)
        needed = float(np.log(2 / risk) / (2 * (tolerance / 2) ** 2))
        return _Shares(shares, edges, np.full(len(edges), c_ref), needed)
    shares = np.clip(newer.table.mean(axis=0), 0.0, 1.0)
    # Of a loss one side is bet on; of a category both sides of each row.
    each = 2 * risk if newer.kind == "loss" else risk / len(shares)
    room = tolerance / 2 - newer.cut
    needed = values_needed(shares, room, each) if room > 0 else math.inf
    return _Shares(shares, edges, mean_radius(shares, independent, each) + newer.cut, needed)


def _missing(whole: FeatureVotes, newer: FeatureVotes, risk: float) -> tuple[MissingReference | None, str]:
    """The missing rate, or why it is not watched."""
    _, hits, counts = whole.missing()
    found = measure_dependence(hits, counts)
    if found.grows or not found.long_enough:
        what = f"cannot promise: how often {whole.name} is missing depends on the past for longer than was seen"
        return None, f"{what} (tau {found.tau:.1f}, {found.ticks} window ticks); that alone is not watched"
    share = float(newer.gaps.shares.mean())
    c_ref = float(mean_radius(np.array([share]), len(newer.gaps.ticks) / found.tau, risk)[0])
    return MissingReference(share=share, c_ref=c_ref, tau=found.tau), ""


def _verdict(
    votes: FeatureVotes, needed: int, found: Dependence, too_small: bool, tolerance: float
) -> tuple[State, str]:
    state, reason = _promise(votes, needed, found, too_small, tolerance)
    if state != "ok" and votes.others:
        known = 1 - float(votes.table[:, -1].mean())
        if known < FEW:
            reason += (
                f"; of its values the {len(votes.labels)} commonest hold only {known:.2f} of the rows, as if of ids"
            )
    return state, reason


def _promise(
    votes: FeatureVotes, needed: int, found: Dependence, too_small: bool, tolerance: float
) -> tuple[State, str]:
    if found.grows:
        reason = f"the dependence of its votes (tau {found.tau:.1f} or more) still grows at the longest block"
        return "cannot-promise", f"cannot promise: {reason} that {found.ticks} window ticks allow"
    if too_small and not needed:
        values = f"{len(votes.labels) + votes.others:,} values"
        reason = f"of its {values} only the commonest are counted, which moves shares by {votes.cut:.2f}"
        return "cannot-promise", f"cannot promise: {reason}"
    if too_small:
        figures = f"has {len(votes):,} votes, needs {needed:,} at tolerance {tolerance:g} and tau {found.tau:.1f}"
        return "reference-too-small", f"reference too small: {figures}"
    if not found.long_enough:
        wanted = math.ceil(TICKS_PER_TAU * found.tau)
        return "cannot-promise", f"cannot promise: {found.ticks} window ticks are fewer than 50 tau ({wanted:,})"
    return "ok", ""


def _means(votes: FeatureVotes) -> dict[str, Floats]:
    """Mean vote by entity, in each row of a category; nothing where there are too many entities."""
    counts = np.bincount(votes.whose)
    there = np.flatnonzero(counts)
    if len(there) > ENTITIES:
        return {}
    means = np.stack([np.bincount(votes.whose, weights=row)[there] for row in votes.table.T], axis=1)
    return dict(zip((votes.names[one] for one in there), means / counts[there][:, None], strict=True))


def replayed(
    measured: Sequence[FeatureReference], older: Sequence[FeatureVotes], *, tick_ms: int, period: float
) -> list[FeatureReference]:
    """Raise the tolerance of each feature whose older half alarms when it is played against it, until none does."""
    while alarmed := _alarms_in(measured, older, tick_ms=tick_ms, period=period):
        measured = [_raise(feature) if row in alarmed else feature for row, feature in enumerate(measured)]
    return list(measured)


def _alarms_in(
    measured: Sequence[FeatureReference], older: Sequence[FeatureVotes], *, tick_ms: int, period: float
) -> set[int]:
    """Which features alarm when the older half is played against the reference."""
    against = watched(measured)
    state, alarmed = start(against), set[int]()
    for number, hits, votes in _ticks(measured, older):
        end = (number + 1) * tick_ms
        state, alarms = step(against, state, hits, votes, end=end, tick=tick_ms, period=period)
        alarmed.update(row for alarm in alarms for row in alarm.features)
    return alarmed


def _ticks(measured: Sequence[FeatureReference], older: Sequence[FeatureVotes]) -> Iterator[tuple[int, Floats, Floats]]:
    """The ticks of the older half, one after the other: number, hits and votes in each row (F, R)."""
    numbers = np.unique(np.concatenate([of.gaps.ticks for of in older])) if older else np.zeros(0, dtype=np.int64)
    for chunk in (numbers[begin : begin + _CHUNK] for begin in range(0, len(numbers), _CHUNK)):
        hits = np.zeros((len(chunk), len(measured), ROWS))
        votes = np.zeros_like(hits)
        for row, (feature, of) in enumerate(zip(measured, older, strict=True)):
            part = of.between(chunk[0], chunk[-1])
            at_ticks, at_hits, at_votes = part.hits(np.asarray(feature.edges))
            at = np.searchsorted(chunk, at_ticks)
            hits[at, row, : at_hits.shape[1]], votes[at, row, :MISSING] = at_hits, at_votes[:, None]
            at_ticks, at_hits, at_votes = part.missing()
            at = np.searchsorted(chunk, at_ticks)
            hits[at, row, MISSING], votes[at, row, MISSING] = at_hits[:, 0], at_votes
        yield from zip(map(int, chunk), hits, votes, strict=True)


def _raise(feature: FeatureReference) -> FeatureReference:
    tolerance = feature.tolerance * RAISE
    if tolerance < LARGEST_TOLERANCE:
        return msgspec.structs.replace(feature, tolerance=tolerance, raised=True)
    reason = f"cannot promise: the older half of the reference lies more than {feature.tolerance:.2f} from the newer"
    return msgspec.structs.replace(feature, state="cannot-promise", reason=reason)


def _with_power(
    feature: FeatureReference, newer: FeatureVotes, against: Detectors, row: int, *, tick_ms: int, period: float
) -> FeatureReference:
    """With the events until a lasting move is found, in the slower direction."""
    if feature.state != "ok":
        return feature
    moved, hours = _moved(feature, newer, against.edges[row, :MISSING]), None
    if feature.season is not None and feature.season.by_hour:
        moved, hours = _moved_by_hour(feature, newer, against.edges[row, :MISSING], tick_ms)
    own = only(against, row)
    votes = [expected_votes(own, 0, to, tick=tick_ms, period=period, hours=hours) for to in moved]
    slowest = max(votes, default=math.inf)
    votes_a_tick = len(newer) / len(np.unique(newer.ticks))
    found = slowest / votes_a_tick * tick_ms <= THIRTY_DAYS_MS
    events = math.ceil(slowest * newer.rows / len(newer)) if found else None
    if feature.kind == "number":
        return msgspec.structs.replace(feature, finds_one_sigma_in=events)
    return msgspec.structs.replace(feature, finds_in=events)


def _moved(feature: FeatureReference, newer: FeatureVotes, edges: Floats) -> list[Floats]:
    """The shares after a move: a number's by one deviation either way, of a category half to new values, a loss up."""
    shares = np.asarray(feature.shares)
    if feature.kind == "category":
        return [shares / 2 + np.append(np.zeros(len(shares) - 1), 0.5)]
    if feature.kind == "loss":
        return [np.minimum(shares + 2 * feature.tolerance, 1.0)]
    if newer.deviation == 0:
        return []
    ordered = np.sort(newer.values)
    shifts = (newer.deviation, -newer.deviation)
    return [np.searchsorted(ordered, edges - shift, side="right") / len(ordered) for shift in shifts]


def _moved_by_hour(
    feature: FeatureReference, newer: FeatureVotes, edges: Floats, tick_ms: int
) -> tuple[list[Floats], Floats]:
    """The same by hour (H, R), and which part of the votes each hour has (H,)."""
    count = len(feature.season.shares) if feature.season is not None else 1
    parts = np.bincount(newer.ticks * tick_ms // HOUR_MS % count, minlength=count) / len(newer)
    by_hour = [
        _moved(in_hour(feature, hour * HOUR_MS), _votes_in(newer, hour, count, tick_ms) if part else newer, edges)
        for hour, part in enumerate(parts)
    ]
    return [np.stack(ways) for ways in zip(*by_hour, strict=True)], parts


def _votes_in(votes: FeatureVotes, hour: int, count: int, tick_ms: int) -> FeatureVotes:
    return votes.where(lambda ticks: ticks * tick_ms // HOUR_MS % count == hour)
