"""The detectors of the version that serves: a closed tick's votes to evidence, and evidence to signals. Pure.

A tick is of one stream, and moves the evidence of that stream's quantities alone; all quantities share one budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np

from tidemill.core.clock import from_ms
from tidemill.core.ids import deterministic_id
from tidemill.events.records import Signal
from tidemill.stats.drift import ROWS, Alarm, Detectors, DriftState, feature_evidence, start, step
from tidemill.watch.changes import change
from tidemill.watch.hits import EVERYONE, Hits, hits_of, moved_on, number_hits
from tidemill.watch.plan import WatchPlan
from tidemill.watch.quantity import FeatureReference, Subject, in_hour, watched
from tidemill.watch.reference import Reference
from tidemill.watch.ticks import ClosedTick

__all__ = ["Detection", "begin", "detection", "evidence", "judge", "state_signal"]

SILENT_TICKS = 60
"""Window ticks after which it is said that a quantity has no votes while others have."""
NO_HITS = Hits(np.zeros(ROWS), np.zeros(ROWS), {})
"""Of a quantity of another stream."""


@dataclass(frozen=True)
class Detection:
    """What is watched, and the evidence so far. Without a reference nothing is."""

    version: str | None
    reference: Reference | None
    detectors: Detectors
    drift: DriftState
    recent: Mapping[str, Mapping[str, float]]
    """Moving means of the votes by `tidemill.watch.hits.level` and entity; of all entities under ""."""
    features: tuple[FeatureReference, ...]
    """The quantities of the reference that are watched, in the order of the detectors."""

    @cached_property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The values of each category that are told apart; of others a tick need not remember all."""
        return {feature.name: feature.labels for feature in self.features if feature.kind == "category"}


def detection(version: str | None, reference: Reference | None, plan: WatchPlan) -> Detection:
    """Detectors without evidence against a version's reference."""
    features, detectors = _built.of(reference, plan)
    return Detection(version, reference, detectors, start(detectors), {}, features)


class _Built:
    """The detectors against the newest reference.

    A reducer begins each step with its reference and plan; of a thousand columns building them anew took 0.1 s.
    """

    def __init__(self) -> None:
        self._against: tuple[Reference | None, WatchPlan] | None = None
        self._built: tuple[tuple[FeatureReference, ...], Detectors] = (), watched(())

    def of(self, reference: Reference | None, plan: WatchPlan) -> tuple[tuple[FeatureReference, ...], Detectors]:
        """The quantities that are watched, and their detectors."""
        if self._against is None or self._against[0] is not reference or self._against[1] != plan:
            known = reference.features if reference is not None else ()
            features = tuple(feature for feature in known if feature.subject in plan.watch)
            self._built = features, watched(features, tolerance=plan.tolerance, rise=plan.rise)
            self._against = reference, plan
        return self._built


_built = _Built()


def begin(version: str, reference: Reference | None, at: int, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    """Start anew for a version that serves from `at`; says which features are not watched as declared, and why."""
    begun = detection(version, reference, plan)
    reasons = [(feature, _reason(feature, reference, plan)) for feature in begun.features]
    signals = [_state_signal(feature, reason, version, at, plan) for feature, reason in reasons if reason]
    if reference is not None:
        signals += [_unknown(subject, version, at, plan) for subject in plan.watch if not _knows(reference, subject)]
    return begun, signals


def judge(
    state: Detection, tick: ClosedTick, plan: WatchPlan, stream: Subject = "inputs"
) -> tuple[Detection, list[Signal]]:
    """The evidence after one closed tick of a stream, and a signal for each alarm."""
    if state.reference is None or not state.features or state.reference.tick_ms != plan.tick_ms:
        return state, []
    found = _hits(state, tick, stream)
    votes = np.stack([of.votes for of in found])
    voted = (votes.max(axis=1) > 0).tolist()
    recent, silent = _silence(state, tick, stream, voted, plan)
    if not any(voted):
        return replace(state, recent=recent), silent
    drift, alarms = step(
        state.detectors,
        state.drift,
        np.stack([of.hits for of in found]),
        votes,
        end=tick.end,
        tick=plan.tick_ms,
        period=plan.period_ms,
    )
    of_stream = [(feature, of) for feature, of in zip(state.features, found, strict=True) if of is not NO_HITS]
    recent = moved_on(recent, of_stream)
    after = replace(state, drift=drift, recent=recent)
    return after, [*silent, *(_drift_signal(after, alarm, tick.end, plan) for alarm in alarms)]


def evidence(state: Detection) -> dict[str, float]:
    """Each feature's part of M; an alarm is at 1."""
    parts = feature_evidence(state.detectors, state.drift)
    return {feature.key: float(part) for feature, part in zip(state.features, parts, strict=True)}


def state_signal(about: str, reason: str, version: str, at: int, plan: WatchPlan, subject: Subject) -> Signal:
    """A signal that something is not watched as declared, and why."""
    key = about if subject == "inputs" else f"{subject}/{about}"
    return Signal(
        signal_id=deterministic_id("state", plan.model, version, key, at),
        kind="state",
        subject=subject,
        feature=about,
        time=at,
        version=version,
        evidence=0.0,
        message=f"{about}: {reason}",
    )


def _hits(state: Detection, tick: ClosedTick, stream: Subject) -> list[Hits]:
    """What a tick says of each quantity."""
    found, numbers = [NO_HITS] * len(state.features), list[int]()
    for row, feature in enumerate(state.features):
        if feature.subject == stream and feature.kind == "number" and feature.slice is None:
            numbers.append(row)
        elif feature.subject == stream:
            group = feature.slice and feature.slice.partition("=")[2]  # groups are entities so far
            found[row] = hits_of(feature, tick.votes, state.detectors.edges[row], group)
    at_once = number_hits([state.features[row] for row in numbers], tick.votes, state.detectors.edges[numbers])
    for row, hits in zip(numbers, at_once, strict=True):
        found[row] = hits
    return found


def _silence(
    state: Detection, tick: ClosedTick, stream: Subject, voted: Sequence[bool], plan: WatchPlan
) -> tuple[Mapping[str, Mapping[str, float]], list[Signal]]:
    """Counts the ticks in which others of its stream have votes and a quantity has none, not even of missing values.

    So it is where a field was left out of the resource, or is of another kind now: nothing would ever be said of it.
    A group may be silent because its entity is.
    """
    recent, signals = dict(state.recent), list[Signal]()
    for feature, has_votes in zip(state.features, voted, strict=True):
        if feature.subject != stream or feature.slice is not None or feature.state != "ok" or not tick.votes.entities:
            continue
        key = f"{feature.key}!"
        if has_votes:
            recent.pop(key, None)
            continue
        ticks = recent.get(key, {}).get(EVERYONE, 0.0) + 1
        recent[key] = {EVERYONE: ticks}
        if ticks == SILENT_TICKS:
            asked = f"does it still exist, as a {feature.kind}?"
            reason = f"not seen: nothing told of it in {SILENT_TICKS} window ticks; {asked}"
            signals.append(_state_signal(feature, reason, state.version or "", tick.end, plan))
    return recent, signals


def _knows(reference: Reference, subject: Subject) -> bool:
    return any(feature.subject == subject for feature in reference.features)


def _unknown(subject: Subject, version: str, at: int, plan: WatchPlan) -> Signal:
    reason = f"not watched: the reference of {version} has none; the next version's has, if there are any to compare"
    return state_signal(subject, reason, version, at, plan, subject)


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
    signal = state_signal(feature.said, reason, version, at, plan, feature.subject)
    return msgspec.structs.replace(signal, feature=feature.name, slice=feature.slice)


def _drift_signal(state: Detection, alarm: Alarm, end: int, plan: WatchPlan) -> Signal:
    feature, *others = (state.features[row] for row in alarm.features)
    also: Sequence[str] = [other.said for other in others]
    found = change(in_hour(feature, end - plan.tick_ms), alarm, state.recent, entity=plan.entity, also=also)
    version = state.version or ""
    is_loss = feature.kind == "loss"
    return Signal(
        signal_id=deterministic_id("drift", plan.model, version, feature.key, end),
        kind="concept" if is_loss else "drift",
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
        message=f"{found.message}, since {_moment(alarm.since, end)}" if is_loss else found.message,
    )


def _moment(at: int, end: int) -> str:
    """A time of day (UTC), with the date where that is not the one of `end`."""
    when, then = from_ms(at), from_ms(end)
    return f"{when:%H:%M}" if when.date() == then.date() else f"{when:%Y-%m-%d %H:%M}"
