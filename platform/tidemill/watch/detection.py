"""The detectors of the version that serves: a closed tick's votes to evidence, and evidence to signals. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tidemill.core.ids import deterministic_id
from tidemill.events.records import Signal
from tidemill.stats.drift import Alarm, Detectors, DriftState, feature_evidence, start, step
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reference import ENTITIES, FeatureReference, Reference, watched
from tidemill.watch.ticks import ClosedTick
from tidemill.watch.words import drift_message, moved_entities

__all__ = ["EVERYONE", "Detection", "begin", "detection", "evidence", "judge"]

RECENT = 0.25
"""Weight of a new vote in the moving mean that signals name: about the last seven votes count."""
EVERYONE = ""
"""Key of the moving mean over all entities."""


@dataclass(frozen=True)
class Detection:
    """What is watched, and the evidence so far. Without a reference nothing is."""

    version: str | None
    reference: Reference | None
    detectors: Detectors
    drift: DriftState
    recent: Mapping[str, Mapping[str, float]]
    """Moving mean of the votes by feature and entity; of all entities under "" ."""

    @property
    def features(self) -> tuple[FeatureReference, ...]:
        """The features of the reference, in the order of the detectors."""
        return self.reference.features if self.reference is not None else ()


def detection(version: str | None, reference: Reference | None, plan: WatchPlan) -> Detection:
    """Detectors without evidence against a version's reference."""
    detectors = watched(reference.features if reference is not None else (), tolerance=plan.tolerance)
    return Detection(version, reference, detectors, start(detectors), {})


def begin(version: str, reference: Reference | None, at: int, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    """Start anew for a version that serves from `at`; says which features are not watched as declared, and why."""
    begun = detection(version, reference, plan)
    reasons = {feature.name: _reason(feature, reference, plan) for feature in begun.features}
    return begun, [_state_signal(name, reason, version, at, plan) for name, reason in reasons.items() if reason]


def judge(state: Detection, tick: ClosedTick, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    """The evidence after one closed tick, and a signal for each alarm."""
    if state.reference is None or not state.features or state.reference.tick_ms != plan.tick_ms:
        return state, []
    votes = [_votes_of(tick, feature.name) for feature in state.features]
    values = [np.fromiter(by_entity.values(), dtype=np.float64) for by_entity in votes]
    below = np.stack(
        [
            (of_feature[:, None] <= edges).sum(axis=0)
            for of_feature, edges in zip(values, state.detectors.edges, strict=True)
        ]
    )
    drift, alarms = step(
        state.detectors,
        state.drift,
        below.astype(np.float64),
        np.array([len(of_feature) for of_feature in values], dtype=np.float64),
        end=tick.end,
        tick=plan.tick_ms,
        period=plan.period_ms,
    )
    recent = {
        feature.name: _moved_on(state.recent.get(feature.name, {}), by_entity, named=bool(feature.entities))
        for feature, by_entity in zip(state.features, votes, strict=True)
    }
    after = replace(state, drift=drift, recent=recent)
    return after, [_drift_signal(after, alarm, tick.end, plan) for alarm in alarms]


def evidence(state: Detection) -> dict[str, float]:
    """Each feature's part of M; an alarm is at 1."""
    parts = feature_evidence(state.detectors, state.drift)
    return {feature.name: float(part) for feature, part in zip(state.features, parts, strict=True)}


def _votes_of(tick: ClosedTick, name: str) -> dict[str, float]:
    sums = {entity: features[name] for entity, features in sorted(tick.votes.items()) if name in features}
    means = {entity: total / count for entity, (count, total) in sums.items()}
    return {entity: mean for entity, mean in means.items() if np.isfinite(mean)}


def _moved_on(recent: Mapping[str, float], votes: Mapping[str, float], *, named: bool) -> Mapping[str, float]:
    if not votes:
        return recent
    moved = dict(recent)
    everyone = sum(votes.values()) / len(votes)
    for entity, vote in ({**votes, EVERYONE: everyone} if named else {EVERYONE: everyone}).items():
        if entity in moved:
            moved[entity] += RECENT * (vote - moved[entity])
        elif len(moved) <= ENTITIES:
            moved[entity] = vote
    return moved


def _reason(feature: FeatureReference, reference: Reference | None, plan: WatchPlan) -> str:
    if reference is not None and reference.tick_ms != plan.tick_ms:
        lengths = f"the reference's votes are of {reference.tick_ms} ms, now they are of {plan.tick_ms} ms"
        return f"cannot promise: {lengths}; the next version's reference will fit"
    if feature.raised:
        declared = reference.tolerance if reference is not None else plan.tolerance
        return f"tolerance raised from {declared:g} to {feature.tolerance:.2g}: the reference's older half alarms below"
    return feature.reason


def _state_signal(feature: str, reason: str, version: str, at: int, plan: WatchPlan) -> Signal:
    return Signal(
        signal_id=deterministic_id("state", plan.model, version, feature, at),
        kind="state",
        feature=feature,
        time=at,
        version=version,
        evidence=0.0,
        message=f"{feature}: {reason}",
    )


def _drift_signal(state: Detection, alarm: Alarm, end: int, plan: WatchPlan) -> Signal:
    feature, *others = (state.features[row] for row in alarm.features)
    also: Sequence[str] = [other.name for other in others]
    recent = state.recent[feature.name]
    moved = moved_entities(feature, recent, alarm.rises)
    version = state.version or ""
    return Signal(
        signal_id=deterministic_id("drift", plan.model, version, feature.name, end),
        kind="drift",
        feature=feature.name,
        time=end,
        since=alarm.since,
        version=version,
        evidence=alarm.evidence,
        before=feature.mean,
        now=recent[EVERYONE],
        entities=moved,
        also=list(also),
        message=drift_message(feature, alarm, recent[EVERYONE], moved, entity=plan.entity, also=also),
    )
