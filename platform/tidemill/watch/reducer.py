"""The reducer: sketches and promotions, in the order of the log, to signals. Pure; no clock, no I/O.

Per model there is one. What it says depends on the sequence of its inputs and on nothing else, not on how they were
cut into batches, so a replay says the same, with the same signal ids.

A promotion takes effect before the first sketch that reached the log after it. Detectors start anew against the new
version's reference, and ticks that were open are dropped: their votes are of the time before.
"""

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from tidemill.events.records import Signal
from tidemill.watch.detection import Detection, begin, detection, evidence, judge
from tidemill.watch.plan import WatchPlan
from tidemill.watch.state import Promotion, WatchState, pack, unpack
from tidemill.watch.ticks import Arrived, Ticks, merge, without_open

__all__ = ["evidence_of", "first_state", "reduce"]


def first_state(plan: WatchPlan) -> WatchState:
    """The state before the first record: no version is known, nothing is watched."""
    return WatchState(ticks=Ticks(tick_ms=plan.tick_ms))


def reduce(
    state: WatchState, inputs: Iterable[Arrived | Promotion], plan: WatchPlan
) -> tuple[WatchState, tuple[Signal, ...]]:
    """The state after `inputs`, and what they made it say.

    The same promotion twice is one. Where the resource now has another tick length than the state, its open ticks
    are dropped and every feature says that it cannot be promised until there is a new reference.
    """
    ticks, pending, (current, said) = state.ticks, list(state.pending), _resumed(state, plan)
    if ticks.tick_ms != plan.tick_ms:
        ticks = msgspec.structs.replace(ticks, tick_ms=plan.tick_ms, open={})
    for taken in inputs:
        if isinstance(taken, Promotion):
            if taken.version != (pending[-1].version if pending else current.version):
                pending.append(taken)
            continue
        while pending and pending[0].at <= taken.at:
            promotion = pending.pop(0)
            current, signals = begin(promotion.version, promotion.reference, promotion.at, plan)
            ticks = without_open(ticks)
            said += signals
        ticks, closed = merge(ticks, taken, plan, current.labels)
        for tick in closed:
            current, signals = judge(current, tick, plan)
            said += signals
    return _stored(ticks, current, pending), tuple(said)


def evidence_of(state: WatchState, plan: WatchPlan) -> dict[str, float]:
    """Each feature's part of M; an alarm is at 1."""
    return evidence(_resumed(state, plan)[0])


def _resumed(state: WatchState, plan: WatchPlan) -> tuple[Detection, list[Signal]]:
    if state.ticks.tick_ms != plan.tick_ms and state.version is not None:
        return begin(state.version, state.reference, state.ticks.closed, plan)
    begun = detection(state.version, state.reference, plan)
    return replace(begun, drift=unpack(state.drift, begun.detectors), recent=state.recent), []


def _stored(ticks: Ticks, current: Detection, pending: Iterable[Promotion]) -> WatchState:
    return WatchState(
        ticks=ticks,
        version=current.version,
        reference=current.reference,
        drift=pack(current.drift) if current.reference is not None else None,
        recent=current.recent,
        pending=tuple(pending),
    )
