"""The detectors of the version that serves: a closed tick's votes to evidence, and evidence to signals. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tidemill.core.ids import deterministic_id
from tidemill.events.records import FeatureSketch, Signal
from tidemill.stats.drift import Alarm, Detectors, DriftState, feature_evidence, start, step
from tidemill.watch.changes import change
from tidemill.watch.hits import hits_of, moved_on
from tidemill.watch.plan import WatchPlan
from tidemill.watch.quantity import FeatureReference, in_hour, watched
from tidemill.watch.reference import Reference
from tidemill.watch.ticks import ClosedTick

__all__ = ["Detection", "begin", "detection", "evidence", "judge"]


@dataclass(frozen=True)
class Detection:
    """What is watched, and the evidence so far. Without a reference nothing is."""

    version: str | None
    reference: Reference | None
    detectors: Detectors
    drift: DriftState
    recent: Mapping[str, Mapping[str, float]]
    """Moving means of the votes by `tidemill.watch.hits.level` and entity; of all entities under ""."""

    @property
    def features(self) -> tuple[FeatureReference, ...]:
        """The features of the reference, in the order of the detectors."""
        return self.reference.features if self.reference is not None else ()

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The values of each category that are told apart; of others a tick need not remember all."""
        return {feature.name: feature.labels for feature in self.features if feature.kind == "category"}


def detection(version: str | None, reference: Reference | None, plan: WatchPlan) -> Detection:
    """Detectors without evidence against a version's reference."""
    detectors = watched(reference.features if reference is not None else (), tolerance=plan.tolerance)
    return Detection(version, reference, detectors, start(detectors), {})


def begin(version: str, reference: Reference | None, at: int, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    """Start anew for a version that serves from `at`; says which features are not watched as declared, and why."""
    begun = detection(version, reference, plan)
    reasons = [(feature, _reason(feature, reference, plan)) for feature in begun.features]
    return begun, [_state_signal(feature, reason, version, at, plan) for feature, reason in reasons if reason]


def judge(state: Detection, tick: ClosedTick, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    """The evidence after one closed tick, and a signal for each alarm."""
    if state.reference is None or not state.features or state.reference.tick_ms != plan.tick_ms:
        return state, []
    found = [
        hits_of(feature, _votes_of(tick, feature.name), edges)
        for feature, edges in zip(state.features, state.detectors.edges, strict=True)
    ]
    drift, alarms = step(
        state.detectors,
        state.drift,
        np.stack([of.hits for of in found]),
        np.stack([of.votes for of in found]),
        end=tick.end,
        tick=plan.tick_ms,
        period=plan.period_ms,
    )
    recent = state.recent
    for feature, of in zip(state.features, found, strict=True):
        recent = moved_on(recent, feature, of)
    after = replace(state, drift=drift, recent=recent)
    return after, [_drift_signal(after, alarm, tick.end, plan) for alarm in alarms]


def evidence(state: Detection) -> dict[str, float]:
    """Each feature's part of M; an alarm is at 1."""
    parts = feature_evidence(state.detectors, state.drift)
    return {feature.name: float(part) for feature, part in zip(state.features, parts, strict=True)}


def _votes_of(tick: ClosedTick, name: str) -> dict[str, FeatureSketch]:
    return {entity: features[name] for entity, features in sorted(tick.votes.items()) if name in features}


def _reason(feature: FeatureReference, reference: Reference | None, plan: WatchPlan) -> str:
    if reference is not None and reference.tick_ms != plan.tick_ms:
        lengths = f"the reference's votes are of {reference.tick_ms} ms, now they are of {plan.tick_ms} ms"
        return f"cannot promise: {lengths}; the next version's reference will fit"
    if feature.state != "ok" or not feature.raised:
        return feature.reason
    declared = reference.tolerance if reference is not None else plan.tolerance
    before = "" if feature.kind == "loss" else f" from {declared:g}"
    raised = f"tolerance raised{before} to {feature.tolerance:.2g}"
    if feature.season is None or feature.season.deviation <= declared:
        raised += ": the reference's older half alarms below"
    return f"{raised}; {feature.reason}" if feature.reason else raised


def _state_signal(feature: FeatureReference, reason: str, version: str, at: int, plan: WatchPlan) -> Signal:
    return Signal(
        signal_id=deterministic_id("state", plan.model, version, feature.name, at),
        kind="state",
        subject=feature.subject,
        feature=feature.name,
        time=at,
        version=version,
        evidence=0.0,
        slice=feature.slice,
        message=f"{feature.name}: {reason}",
    )


def _drift_signal(state: Detection, alarm: Alarm, end: int, plan: WatchPlan) -> Signal:
    feature, *others = (state.features[row] for row in alarm.features)
    also: Sequence[str] = [other.name for other in others]
    found = change(in_hour(feature, end - plan.tick_ms), alarm, state.recent, entity=plan.entity, also=also)
    version = state.version or ""
    return Signal(
        signal_id=deterministic_id("drift", plan.model, version, feature.name, end),
        kind="concept" if feature.kind == "loss" else "drift",
        subject=feature.subject,
        feature=feature.name,
        time=end,
        since=alarm.since,
        version=version,
        evidence=alarm.evidence,
        before=found.before,
        now=found.now,
        entities=list(found.entities),
        also=list(also),
        slice=feature.slice,
        message=found.message,
    )
