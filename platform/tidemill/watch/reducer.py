"""The reducer: what the streams bring and promotions, in the order of the log, to signals. Pure; no clock, no I/O.

Per model there is one. What it says depends on the sequence of its inputs and on nothing else, not on how they were
cut into batches, so a replay says the same, with the same signal ids.

There are four streams, each with ticks and a watermark of its own: sketches of inputs, of predictions and of labels,
and outcomes (`tidemill.watch.losses`). A tick that closes moves the evidence of its own stream's quantities and no
other's; a stream that is silent closes nothing, so that silence neither alarms nor loses anything.

A promotion takes effect before the first record that reached the log after it, of whatever stream. Detectors start
anew against the new version's reference, and ticks that were open are dropped: their votes are of the time before. Of
predictions and outcomes only those of the version that serves have votes; those of any other, known or not, tell how
far their source is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

import msgspec

from tidemill.events.records import Signal
from tidemill.watch import performance
from tidemill.watch.detection import Detection, begin, detection, evidence, judge
from tidemill.watch.losses import Judged, loss_sketch
from tidemill.watch.performance import Performance
from tidemill.watch.plan import WatchPlan
from tidemill.watch.quantity import Subject
from tidemill.watch.state import Promotion, WatchState, pack, unpack
from tidemill.watch.ticks import Arrived, Ticks, merge, without_open

__all__ = ["Input", "evidence_of", "first_state", "reduce"]

Input = Arrived | Judged | Promotion

STREAMS: Mapping[str, Subject] = {"events": "inputs", "predictions": "predictions", "labels": "labels"}
"""The stream of a sketch, by what it is of."""
ONE_ROW = ("predictions", "labels")
"""Streams in which a number's vote is one row: how many there are in a tick differs from the reference's there."""


def first_state(plan: WatchPlan) -> WatchState:
    """The state before the first record: no version is known, nothing is watched."""
    return WatchState(streams={stream: Ticks(tick_ms=plan.tick_ms) for stream in get_args(Subject)})


def reduce(state: WatchState, inputs: Iterable[Input], plan: WatchPlan) -> tuple[WatchState, tuple[Signal, ...]]:
    """The state after `inputs`, and what they made it say.

    The same promotion twice is one. Where the resource now has another tick length than the state, its open ticks
    are dropped and every quantity says that it cannot be promised until there is a new reference.
    """
    streams, pending, (current, said) = dict(state.streams), list(state.pending), _resumed(state, plan)
    test = _test(state, plan)
    if state.tick_ms != plan.tick_ms:
        streams = {of: msgspec.structs.replace(ticks, tick_ms=plan.tick_ms, open={}) for of, ticks in streams.items()}
    for taken in inputs:
        if isinstance(taken, Promotion):
            if taken.version != (pending[-1].version if pending else current.version):
                pending.append(taken)
            continue
        while pending and pending[0].at <= taken.at:
            promotion = pending.pop(0)
            current, signals = begin(promotion.version, promotion.reference, promotion.at, plan)
            streams = {of: without_open(ticks) for of, ticks in streams.items()}
            said += signals
            if plan.performance_rise:
                test, unfit = performance.begin(promotion.version, promotion.reference, promotion.at, plan)
                said += [unfit] if unfit else []
        stream, arrived = _votes(taken, current.version, plan)
        ticks, lateness = streams[stream], plan.lateness_of(stream)
        streams[stream], closed = merge(ticks, arrived, lateness, current.labels, one_row=stream in ONE_ROW)
        for tick in closed:
            current, signals = judge(current, tick, plan, stream)
            said += signals
            if test is not None and stream == "errors":
                test, risen = performance.judge(test, tick, plan)
                said += [risen] if risen else []
    return _stored(streams, current, test, pending), tuple(said)


def evidence_of(state: WatchState, plan: WatchPlan) -> dict[str, float]:
    """Each quantity's part of M; an alarm is at 1."""
    return evidence(_resumed(state, plan)[0])


def _votes(taken: Arrived | Judged, version: str | None, plan: WatchPlan) -> tuple[Subject, Arrived]:
    """What a record brings the version that serves, and to which stream."""
    if isinstance(taken, Judged):
        return "errors", Arrived(loss_sketch(taken, version, plan), taken.at)
    sketch = taken.sketch
    if sketch.of == "predictions":
        sketch = msgspec.structs.replace(sketch, votes=sketch.answers.get(version or "", {}), answers={})
    return STREAMS[sketch.of], Arrived(sketch, taken.at)


def _test(state: WatchState, plan: WatchPlan) -> Performance | None:
    """The test of `triggers.performance`; one that is declared later begins when it first is seen."""
    if not plan.performance_rise or state.version is None:
        return None
    return performance.resumed(state.performance, state.version, state.reference, plan, since=state.closed)


def _resumed(state: WatchState, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    if state.tick_ms != plan.tick_ms and state.version is not None:
        return begin(state.version, state.reference, state.closed, plan)
    begun = detection(state.version, state.reference, plan)
    drift = unpack(state.drift, begun.detectors, [feature.key for feature in begun.features])
    return replace(begun, drift=drift, recent=state.recent), []


def _stored(
    streams: Mapping[Subject, Ticks], current: Detection, test: Performance | None, pending: Iterable[Promotion]
) -> WatchState:
    return WatchState(
        streams=streams,
        version=current.version,
        reference=current.reference,
        drift=pack(current.drift, [of.key for of in current.features]) if current.reference is not None else None,
        recent=current.recent,
        performance=performance.pack(test) if test is not None else None,
        pending=tuple(pending),
    )
