"""Whether the champion has become worse than it may: `triggers.performance`, at a risk of its own. Pure.

Drift of the loss shares a budget of false alarms with everything else, for ever. This is one test of one version: with
probability at most `risk` it ever says that the mean loss has risen by more than `rise` above its level at the
promotion although it has not, however long the version serves and however often one looks.

For each start n the product of the bets from n on is an e-process; so is their mean with weights that add up to 1
(Shin, Ramdas & Rinaldo 2024, "E-detectors", section 3: a mixture over starts). A start at age t of the version has the
weight H / (t + H)² dt: half of it is spent in the first H, and a rise that begins late is found later, as log(t / H).
It is said once, when the mixture reaches 1/risk (Ville's inequality). Votes, reference, slack for the reference's own
error, and tempering for dependence are those of drift of the loss (`tidemill.stats.drift`).
"""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from tidemill.core.ids import deterministic_id
from tidemill.events.records import Signal
from tidemill.stats.drift import Detectors, DriftState, feature_evidence, grow, start
from tidemill.watch.hits import hits_of
from tidemill.watch.losses import ERROR
from tidemill.watch.plan import WatchPlan
from tidemill.watch.quantity import FeatureReference, in_hour, watched
from tidemill.watch.reference import Reference
from tidemill.watch.ticks import ClosedTick

__all__ = ["Performance", "StoredPerformance", "begin", "evidence", "judge", "pack", "resumed"]

HALF_MS = 24 * 3_600_000
"""H: the age of a version by which half of the weight of starts is spent."""


class StoredPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Its state between two batches."""

    since: int
    """When the version was promoted, in milliseconds."""
    said: bool = False
    evidence: tuple[float, ...] = ()
    cusum: tuple[float, ...] = ()
    began: tuple[int, ...] = ()
    updated: int = -1


@dataclass(frozen=True)
class Performance:
    """The test of the version that serves; without a reference of its loss there is none."""

    version: str
    since: int
    reference: FeatureReference | None
    detectors: Detectors
    drift: DriftState
    said: bool = False


def begin(version: str, reference: Reference | None, since: int, plan: WatchPlan) -> tuple[Performance, Signal | None]:
    """The test for a version that serves from `since`, and why there is none, where that is so."""
    known = _loss(reference)
    reason = _unfit(known, reference, plan)
    found = None if reason else known
    made = watched(
        () if found is None else (msgspec.structs.replace(found, state="ok", tolerance=plan.performance_rise),)
    )
    state = Performance(version, since, found, made, start(made))
    if not reason:
        return state, None
    said = Signal(
        signal_id=deterministic_id("state", plan.model, version, "performance", since),
        kind="state",
        subject="errors",
        feature="performance",
        time=since,
        version=version,
        evidence=0.0,
        message=f"performance: {reason}",
    )
    return state, said


def judge(state: Performance, tick: ClosedTick, plan: WatchPlan) -> tuple[Performance, Signal | None]:
    """The evidence after one closed tick of outcomes; a signal at most once."""
    feature = state.reference
    if feature is None or state.said:
        return state, None
    found = hits_of(feature, tick.votes, state.detectors.edges[0])
    if not found.votes.any():
        return state, None
    first, last = (max(0, at - state.since) for at in (tick.end - plan.tick_ms, tick.end))
    weight = max(HALF_MS / (first + HALF_MS) - HALF_MS / (last + HALF_MS), 1e-15)
    drift = grow(
        state.detectors,
        state.drift,
        found.hits[None],
        found.votes[None],
        end=tick.end,
        tick=plan.tick_ms,
        period=plan.tick_ms / weight,  # so that a start in this tick has this weight
    )
    state = replace(state, drift=drift)
    if evidence(state) < 1 / plan.performance_risk:
        return state, None
    usual, (row, bet) = in_hour(feature, tick.end - plan.tick_ms), _strongest(drift)
    signal = Signal(
        signal_id=deterministic_id("performance", plan.model, state.version, feature.key, state.since),
        kind="performance",
        subject="errors",
        feature=ERROR,
        time=tick.end,
        since=int(drift.since[0, row, 0, bet]),
        version=state.version,
        evidence=evidence(state),
        before=usual.mean,
        message=(
            f"the mean loss has risen by more than {plan.performance_rise:g} above the {usual.shares[0]:.3g} of the "
            f"promotion of {state.version}: evidence {evidence(state):.3g}, {1 / plan.performance_risk:.3g} was needed"
        ),
    )
    return replace(state, said=True), signal


def evidence(state: Performance) -> float:
    """The mixture now; it is said at 1/risk."""
    return float(feature_evidence(state.detectors, state.drift).sum()) if state.reference is not None else 0.0


def pack(state: Performance) -> StoredPerformance:
    """The state for storing."""
    drift = state.drift
    return StoredPerformance(
        since=state.since,
        said=state.said,
        evidence=tuple(drift.evidence.ravel().tolist()),
        cusum=tuple(drift.cusum.ravel().tolist()),
        began=tuple(drift.since.ravel().tolist()),
        updated=int(drift.updated[0]) if len(drift.updated) else -1,
    )


def resumed(stored: StoredPerformance, version: str, reference: Reference | None, plan: WatchPlan) -> Performance:
    """The test as stored; anew where that does not fit."""
    made, _ = begin(version, reference, stored.since, plan)
    if len(stored.evidence) != made.drift.evidence.size:
        return made
    shape = made.drift.evidence.shape
    drift = DriftState(
        evidence=np.array(stored.evidence).reshape(shape),
        cusum=np.array(stored.cusum).reshape(shape),
        since=np.array(stored.began, dtype=np.int64).reshape(shape),
        updated=np.full(shape[0], stored.updated, dtype=np.int64),
    )
    return replace(made, drift=drift, said=stored.said)


def _loss(reference: Reference | None) -> FeatureReference | None:
    known = reference.features if reference is not None else ()
    return next((one for one in known if one.kind == "loss" and one.slice is None), None)


def _unfit(known: FeatureReference | None, reference: Reference | None, plan: WatchPlan) -> str:
    """Why there is no test; empty: there is one."""
    if not plan.control:
        return "not watched: labels.control is 0, and no label says how good the model is"
    if known is None or reference is None:
        return "not watched: the version's reference has no loss to compare with; the next version's has"
    if reference.tick_ms != plan.tick_ms:
        return f"cannot promise: the reference's votes are of {reference.tick_ms} ms, now of {plan.tick_ms} ms"
    if known.state == "cannot-promise" or not known.shares:
        return known.reason
    if known.c_ref > plan.performance_rise / 2:
        slack = f"its mean loss is known within {known.c_ref:.2g}, half of the rise is {plan.performance_rise / 2:.2g}"
        return f"reference too small: {slack}"
    return ""


def _strongest(drift: DriftState) -> tuple[int, int]:
    """Row and bet with the most evidence of more hits."""
    row, bet = np.unravel_index(np.argmax(drift.evidence[0, :, 0]), drift.evidence[0, :, 0].shape)
    return int(row), int(bet)
