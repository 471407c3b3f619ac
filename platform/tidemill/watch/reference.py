"""The reference: what the inputs looked like when a version was made, and how well drift from it can be found.

It is part of the version's artifact (`reference.json`). It holds no rows: of each feature the bin edges, the share of
votes at or below each, and the figures that the promise rests on.

The newer half of the votes makes the reference; the older half is replayed against it as if it were live. An alarm
there means that the tolerance is below what is natural here: it is raised until there is none, and that is shown.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal

import msgspec
import numpy as np
import polars as pl

from tidemill.core.errors import Corrupt
from tidemill.spec.model import DriftTrigger
from tidemill.stats.dependence import TICKS_PER_TAU, Dependence, measure_dependence
from tidemill.stats.drift import BINS, Detectors, Watched, detectors, expected_votes, start, step
from tidemill.watch.votes import FeatureVotes, votes_of

__all__ = [
    "ENTITIES",
    "FILE",
    "FeatureReference",
    "Reference",
    "budget_period_ms",
    "build_reference",
    "decode_reference",
    "encode_reference",
    "replayed",
    "watched",
]

FILE = "reference.json"
"""Its name in an artifact."""

ENTITIES = 64
"""Entities up to which each one's mean is kept, so that a signal can name those that moved."""

FORMAT = 1

DELTA = 0.01
"""Probability that the shares are further than c_ref from the truth anywhere, over all features."""
RAISE = 1.25
"""Factor by which the tolerance grows until the older half does not alarm."""
LARGEST_TOLERANCE = 0.5
"""Beyond it half of all values may move unseen: nothing worth promising is left."""
THIRTY_DAYS_MS = 30 * 86_400_000


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True):
    """One feature. A vote is the mean of one entity's rows in one window tick."""

    name: str
    state: Literal["ok", "reference-too-small", "cannot-promise"]
    """Whether drift of it is signalled; if not, `reason` says why, with figures."""
    reason: str = ""
    edges: tuple[float, ...] = ()
    """Bin edges, rising: one below the smallest vote, quantiles, the largest vote."""
    shares: tuple[float, ...] = ()
    """Share of votes at or below each edge; 0 first, 1 last."""
    votes: int = 0
    """Votes in the half that makes the reference."""
    ticks: int = 0
    """Window ticks with votes in the whole reference."""
    tau: float = 1.0
    """Variance inflation of block means: how many dependent votes are worth one independent vote."""
    c_ref: float = 1.0
    """How far the shares may be from the truth, except with 1 %."""
    tolerance: float
    """The tolerance in use; above the declared one where the older half alarmed."""
    raised: bool = False
    """Whether it was raised."""
    votes_needed: int = 0
    """Votes in the whole reference from which c_ref is at most half the declared tolerance."""
    mean: float | None = None
    """Mean of the votes that make the reference."""
    deviation: float | None = None
    """Standard deviation of the rows."""
    entities: Mapping[str, float] = {}
    """Mean by entity; empty where there are more than 64."""
    finds_one_sigma_in: int | None = None
    """Events, in about so many of which a shift of one `deviation` is found; None: not in 30 days, or never."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's inputs are compared with."""

    format: int = FORMAT
    tick_ms: int
    """Length of a window tick; votes of another length are not comparable."""
    tolerance: float
    """The declared tolerance."""
    features: tuple[FeatureReference, ...]
    first_event: int | None = None
    """Event time of its oldest row."""
    last_event: int | None = None
    """Event time of its newest row."""
    rows: int = 0
    rows_per_vote: float = 0.0
    """Mean number of rows behind a vote; live votes of far fewer or more rows spread differently."""

    def feature(self, name: str) -> FeatureReference | None:
        """One feature by name."""
        return next((feature for feature in self.features if feature.name == name), None)


def encode_reference(reference: Reference) -> bytes:
    """The file's content: JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(reference), indent=1)


def decode_reference(data: bytes, origin: str) -> Reference:
    """The reference in `data`; raises `Corrupt` naming `origin`."""
    try:
        reference = msgspec.json.decode(data, type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{origin} is no reference: {error}", hint="retrain, or restore the artifact") from error
    if reference.format != FORMAT:
        raise Corrupt(f"{origin} has format {reference.format}; this version of Tidemill reads {FORMAT}")
    for feature in reference.features:
        rising = bool(np.all(np.diff(feature.edges) > 0)) and bool(np.all(np.diff(feature.shares) >= 0))
        if len(feature.edges) != len(feature.shares) or not rising:
            raise Corrupt(f"{origin}: edges and shares of {feature.name} do not fit")
    return reference


def watched(features: Sequence[FeatureReference], *, tolerance: float = 0.0) -> Detectors:
    """The detectors against `features`; a declared `tolerance` above theirs holds at once."""
    return detectors(
        [
            Watched(
                edges=feature.edges,
                shares=feature.shares,
                tolerance=max(feature.tolerance, tolerance),
                c_ref=feature.c_ref,
                tau=feature.tau,
                on=feature.state == "ok",
            )
            for feature in features
        ]
    )


def build_reference(frame: pl.DataFrame, features: Sequence[str], trigger: DriftTrigger) -> Reference:
    """The reference that rows make.

    Args:
        frame: rows with columns `entity`, `event_time` (a Datetime) and each of `features`; nulls and what is not
            finite do not vote. They should be all rows of their time: a sample has fewer rows a vote than live.
        features: what is watched; together they share the budget.
        trigger: tolerance, budget of false alarms, length of a window tick.

    Raises:
        InvalidInput: a column is missing or of another type.
    """
    tick_ms = round(trigger.every / timedelta(milliseconds=1))
    period = budget_period_ms(trigger)
    votes = votes_of(frame, features, tick_ms)
    halves = [_halves(feature) for feature in votes]
    measured = [
        _measure(whole, newer, len(votes), trigger.tolerance) for whole, (_, newer) in zip(votes, halves, strict=True)
    ]
    measured = replayed(measured, [older for older, _ in halves], tick_ms=tick_ms, period=period)
    detectors_of_all = watched(measured)
    powers = [
        _events_to_find(newer, detectors_of_all, row, tick_ms=tick_ms, period=period)
        for row, (_, newer) in enumerate(halves)
    ]
    first, last = _span(frame)
    return Reference(
        tick_ms=tick_ms,
        tolerance=trigger.tolerance,
        features=tuple(
            msgspec.structs.replace(feature, finds_one_sigma_in=power if feature.state == "ok" else None)
            for feature, power in zip(measured, powers, strict=True)
        ),
        first_event=first,
        last_event=last,
        rows=frame.height,
        rows_per_vote=sum(feature.rows for feature in votes) / max(sum(map(len, votes)), 1),
    )


def budget_period_ms(trigger: DriftTrigger) -> float:
    """The time in which one false alarm may be expected, milliseconds."""
    return trigger.false_alarms.per / timedelta(milliseconds=1) / trigger.false_alarms.count


def _halves(votes: FeatureVotes) -> tuple[FeatureVotes, FeatureVotes]:
    """The older half, and the newer with the whole tick in the middle."""
    if not len(votes):
        return votes, votes
    newer = votes.ticks >= votes.ticks[len(votes) // 2]
    return votes.part(~newer), votes.part(newer)


def _measure(whole: FeatureVotes, newer: FeatureVotes, features: int, tolerance: float) -> FeatureReference:
    if not len(newer):
        reason = f"reference too small: no row has a value of {whole.name}"
        return FeatureReference(name=whole.name, state="reference-too-small", reason=reason, tolerance=tolerance)
    inner = np.quantile(newer.values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    lowest, highest = np.nextafter(newer.values.min(), -np.inf), newer.values.max()
    edges = np.unique(np.concatenate([[lowest], inner, [highest]]))
    _, below, counts = whole.below(edges)
    found = measure_dependence(below, counts)
    log_term = np.log(2 * features / DELTA)
    c_ref = float(np.sqrt(log_term * found.tau / (2 * len(newer))))
    needed = 2 * int(np.ceil(log_term * found.tau / (2 * (tolerance / 2) ** 2)))
    state, reason = _verdict(len(whole), needed, found, c_ref > tolerance / 2, tolerance)
    return FeatureReference(
        name=whole.name,
        state=state,
        reason=reason,
        edges=tuple(map(float, edges)),
        shares=tuple(map(float, np.searchsorted(np.sort(newer.values), edges, side="right") / len(newer))),
        votes=len(newer),
        ticks=found.ticks,
        tau=found.tau,
        c_ref=c_ref,
        tolerance=tolerance,
        votes_needed=needed,
        mean=float(newer.values.mean()),
        deviation=whole.deviation,
        entities=_means(newer),
    )


def _verdict(
    votes: int, needed: int, found: Dependence, too_small: bool, tolerance: float
) -> tuple[Literal["ok", "reference-too-small", "cannot-promise"], str]:
    if found.grows:
        reason = f"the dependence of its votes (tau {found.tau:.1f} or more) still grows at the longest block"
        return "cannot-promise", f"cannot promise: {reason} that {found.ticks} window ticks allow"
    if too_small:
        figures = f"has {votes:,} votes, needs {needed:,} at tolerance {tolerance:g} and tau {found.tau:.1f}"
        return "reference-too-small", f"reference too small: {figures}"
    if not found.long_enough:
        wanted = math.ceil(TICKS_PER_TAU * found.tau)
        return "cannot-promise", f"cannot promise: {found.ticks} window ticks are fewer than 50 tau ({wanted:,})"
    return "ok", ""


def _means(votes: FeatureVotes) -> dict[str, float]:
    names, codes = np.unique(np.asarray(votes.entities), return_inverse=True)
    if len(names) > ENTITIES:
        return {}
    means = np.bincount(codes, weights=votes.values) / np.bincount(codes)
    return {str(name): float(mean) for name, mean in zip(names, means, strict=True)}


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
    ticks = np.unique(np.concatenate([votes.ticks for votes in older])) if older else np.zeros(0, dtype=np.int64)
    below = np.zeros((len(ticks), *against.edges.shape), dtype=np.float32)  # counts; the largest array here
    counts = np.zeros((len(ticks), len(measured)))
    for row, (feature, votes) in enumerate(zip(measured, older, strict=True)):
        numbers, at_or_below, total = votes.below(np.asarray(feature.edges))
        at = np.searchsorted(ticks, numbers)
        below[at, row, : len(feature.edges)] = at_or_below
        counts[at, row] = total
    state, alarmed = start(against), set[int]()
    for number, tick_below, tick_counts in zip(ticks, below, counts, strict=True):
        end = int(number + 1) * tick_ms
        state, alarms = step(against, state, tick_below, tick_counts, end=end, tick=tick_ms, period=period)
        alarmed.update(row for alarm in alarms for row in alarm.features)
    return alarmed


def _raise(feature: FeatureReference) -> FeatureReference:
    tolerance = feature.tolerance * RAISE
    if tolerance < LARGEST_TOLERANCE:
        return msgspec.structs.replace(feature, tolerance=tolerance, raised=True)
    reason = f"cannot promise: the older half of the reference lies more than {feature.tolerance:.2f} from the newer"
    return msgspec.structs.replace(feature, state="cannot-promise", reason=reason)


def _events_to_find(newer: FeatureVotes, against: Detectors, row: int, *, tick_ms: int, period: float) -> int | None:
    """Events until a lasting shift of all entities by one deviation of the rows is found, the slower direction."""
    if not len(newer) or newer.deviation == 0:
        return None
    ordered = np.sort(newer.values)
    slowest = 0.0
    for shift in (newer.deviation, -newer.deviation):
        shares = np.searchsorted(ordered, against.edges[row] - shift, side="right") / len(ordered)
        votes = expected_votes(against, row, shares, tick=tick_ms, period=period)
        slowest = max(slowest, votes)
    votes_a_tick = len(newer) / len(np.unique(newer.ticks))
    if slowest / votes_a_tick * tick_ms > THIRTY_DAYS_MS:
        return None
    return math.ceil(slowest * newer.rows / len(newer))


def _span(frame: pl.DataFrame) -> tuple[int | None, int | None]:
    times = frame["event_time"].dt.epoch("ms")
    first, last = times.min(), times.max()
    return (first, last) if isinstance(first, int) and isinstance(last, int) else (None, None)
