"""The reducer: from sketches to signals, the same in any batching and after any restart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import Corrupt
from tidemill.events.cells import by_name, named
from tidemill.events.records import Signal, Sketch
from tidemill.spec.model import DriftTrigger
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import evidence_of, first_state, reduce
from tidemill.watch.reference import Reference, build_reference
from tidemill.watch.state import Promotion, WatchState, decode_state, encode_state
from tidemill.watch.ticks import Arrived

Sketches = Callable[..., Sketch]
Input = Arrived | Promotion
AT = 1_000_000


def promotion(reference: Reference | None, version: str = "r1", at: int = AT) -> Promotion:
    return Promotion(version=version, at=at, reference=reference)


def stream(
    sketch: Sketches,
    levels: Sequence[float],
    *,
    first: int = 0,
    stations: Sequence[str] = ("A", "B", "C"),
    at: int = AT,
) -> list[Input]:
    """One sketch a tick, each a second after the one before; the brightness of each tick is given."""
    return [
        Arrived(sketch(first + number, level, stations=stations, jitter=True), at + 1_000 * (first + number + 1))
        for number, level in enumerate(levels)
    ]


def test_a_complete_shift_is_signalled_with_what_moved_since_when_and_where(
    plan: WatchPlan, reference: Reference, sketch: Sketches
) -> None:
    quiet = [promotion(reference), *stream(sketch, [0.6] * 60)]
    state, signals = reduce(first_state(plan), quiet, plan)
    assert signals == ()
    _, signals = reduce(state, stream(sketch, [0.2] * 20, first=60), plan)
    first = signals[0]
    assert (first.kind, first.feature, first.version) == ("drift", "brightness", "r1")
    assert first.message.startswith("brightness fell from 0.62 to 0.2")
    assert first.message.endswith(", all 3 stations")
    assert first.since == 60_000
    assert first.time - 60_000 <= 15_000
    assert first.evidence >= 1
    assert first.entities == ["A", "B", "C"]
    assert first.before == pytest.approx(0.62, abs=0.01)
    assert first.now == pytest.approx(0.22, abs=0.05)


def test_only_the_stations_that_moved_are_named(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    inputs: list[Input] = [promotion(reference)]
    for tick in range(120):
        sketched = sketch(tick, 0.6, jitter=True)
        if tick >= 50:
            dark = by_name(sketch(tick, 0.2, jitter=True).votes[tick])
            votes = {**by_name(sketched.votes[tick]), "B": dark["B"], "C": dark["C"]}
            sketched = msgspec.structs.replace(sketched, votes={tick: named(votes)})
        inputs.append(Arrived(sketched, AT + 1_000 * (tick + 1)))
    _, signals = reduce(first_state(plan), inputs, plan)
    assert signals[0].entities == ["B", "C"]
    assert signals[0].message.startswith("brightness fell from 0.62 to ")
    assert signals[0].message.endswith(", stations B and C")


def test_without_a_reference_nothing_is_signalled(plan: WatchPlan, sketch: Sketches) -> None:
    for inputs in (stream(sketch, [0.1] * 60), [promotion(None), *stream(sketch, [0.1] * 60)]):
        state, signals = reduce(first_state(plan), inputs, plan)
        assert signals == ()
        assert evidence_of(state, plan) == {}


def test_detectors_start_anew_at_a_promotion(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    dark = stream(sketch, [0.2] * 40)
    state, _ = reduce(first_state(plan), [promotion(reference), *dark[:7]], plan)
    before = evidence_of(state, plan)["brightness"]
    again = promotion(reference, "r2", at=AT + 7_500)
    state, signals = reduce(state, [again, dark[7]], plan)
    assert state.version == "r2"
    assert evidence_of(state, plan)["brightness"] < before
    _, signals = reduce(state, dark[8:], plan)
    assert signals[0].version == "r2"
    assert signals[0].since is not None
    assert signals[0].since >= 7_000


def test_sketches_that_came_before_a_promotion_are_not_judged_by_it(
    plan: WatchPlan, reference: Reference, sketch: Sketches
) -> None:
    """As when the watch catches up: the decision is read at once, the sketches of the time before after it."""
    old = stream(sketch, [0.1] * 100)
    late = promotion(reference, at=AT + 100_500)
    state, signals = reduce(first_state(plan), [late, *old], plan)
    assert signals == ()
    assert state.version is None
    state, signals = reduce(state, stream(sketch, [0.6] * 30, first=100), plan)
    assert state.version == "r1"
    assert signals == ()


def test_the_same_promotion_twice_is_one(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    inputs = [promotion(reference), *stream(sketch, [0.2] * 8)]
    once, _ = reduce(first_state(plan), inputs, plan)
    twice, _ = reduce(once, [promotion(reference, at=AT + 8_000)], plan)
    assert encode_state(twice) == encode_state(once)


def test_a_feature_that_cannot_promise_says_so_at_the_promotion(
    plan: WatchPlan, trigger: DriftTrigger, rows: Callable[..., pl.DataFrame], sketch: Sketches
) -> None:
    small = build_reference(rows(seconds=60), ("brightness", "contrast"), trigger)
    _, signals = reduce(first_state(plan), [promotion(small), *stream(sketch, [0.1] * 60)], plan)
    assert [(signal.kind, signal.feature) for signal in signals] == [("state", "brightness"), ("state", "contrast")]
    assert signals[0].message.startswith("brightness: reference too small: has 180 votes, needs")
    assert signals[0].time == AT


def test_a_raised_tolerance_is_shown(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    raised = msgspec.structs.replace(reference.features[0], tolerance=0.25, raised=True)
    shown = msgspec.structs.replace(reference, features=(raised, reference.features[1]))
    _, signals = reduce(first_state(plan), [promotion(shown), *stream(sketch, [0.6])], plan)
    assert [signal.message for signal in signals] == [
        "brightness: tolerance raised from 0.2 to 0.25: the reference's older half alarms below"
    ]


def test_a_higher_declared_tolerance_holds_at_once(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    inputs = [promotion(reference), *stream(sketch, [0.2] * 15)]
    _, strict = reduce(first_state(plan), inputs, plan)
    _, lenient = reduce(first_state(plan), inputs, replace(plan, tolerance=0.45))
    assert strict
    assert not lenient


def test_another_tick_length_is_said_once_and_ends_the_watch_of_this_reference(
    plan: WatchPlan, reference: Reference, sketch: Sketches
) -> None:
    state, _ = reduce(first_state(plan), [promotion(reference), *stream(sketch, [0.6] * 20)], plan)
    longer = replace(plan, tick_ms=5_000)
    state, signals = reduce(state, [], longer)
    assert [(signal.kind, signal.feature) for signal in signals] == [("state", "brightness"), ("state", "contrast")]
    assert "votes are of 1000 ms, now they are of 5000 ms" in signals[0].message
    dark = [Arrived(sketch(tick, 0.1, tick_ms=5_000, first=1_000 + 10 * tick), AT * 9 + tick) for tick in range(40)]
    state, signals = reduce(state, dark, longer)
    assert signals == ()


def test_a_feature_that_sends_nothing_holds_up_nothing(plan: WatchPlan, reference: Reference, sketch: Sketches) -> None:
    inputs: list[Input] = [promotion(reference)]
    for tick in range(30):
        sketched = sketch(tick, 0.2, jitter=True)
        votes = {name: {"brightness": of["brightness"]} for name, of in by_name(sketched.votes[tick]).items()}
        inputs.append(Arrived(msgspec.structs.replace(sketched, votes={tick: named(votes)}), AT + 1_000 * (tick + 1)))
    _, signals = reduce(first_state(plan), inputs, plan)
    assert {signal.feature for signal in signals} == {"brightness"}


def test_a_stored_state_of_another_kind_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="the table"):
        decode_state(b"\x80", "the table")


def play(plan: WatchPlan, batches: Sequence[Sequence[Input]]) -> tuple[WatchState, list[Signal]]:
    """Each batch on a state that was stored and read back."""
    state, signals = first_state(plan), list[Signal]()
    for batch in batches:
        stored = decode_state(encode_state(state), "memory")
        assert stored is not None
        state, said = reduce(stored, batch, plan)
        signals += said
    return state, signals


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_replay_in_any_batching_gives_the_same_signals(
    plan: WatchPlan, reference: Reference, sketch: Sketches, data: st.DataObject
) -> None:
    steps = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 1), st.integers(-2, 2), st.sampled_from([0.2, 0.6, 0.62, 0.9]), st.integers(0, 3000)
            ),
            min_size=1,
            max_size=60,
        )
    )
    inputs: list[Input] = [promotion(reference)]
    offsets, at = [0, 0], AT
    for number, (partition, wobble, level, pause) in enumerate(steps):
        at += pause
        taken = sketch(max(number + wobble, 0), level, source=f"c/t/{partition}", first=offsets[partition])
        inputs.append(Arrived(taken, at))
        offsets[partition] += 10
        if number == 30:
            inputs.append(promotion(reference, "r2", at=at))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(inputs)), max_size=8)))
    bounds = [0, *cuts, len(inputs)]
    batches = [inputs[begin:end] for begin, end in pairwise(bounds)]
    whole, expected = play(plan, [inputs])
    parts, signals = play(plan, batches)
    assert signals == expected
    assert encode_state(parts) == encode_state(whole)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 45), st.integers(0, 20))
def test_reading_a_stretch_again_changes_nothing(
    plan: WatchPlan, reference: Reference, sketch: Sketches, cut: int, back: int
) -> None:
    """Ingest may write a sketch again: ranges that are known are dropped."""
    inputs = [promotion(reference), *stream(sketch, [*[0.6] * 20, *[0.2] * 25])]
    _, expected = play(plan, [inputs])
    _, signals = play(plan, [inputs[:cut], inputs[max(cut - back, 0) : cut], inputs[cut:]])
    assert signals == expected
    assert len({signal.signal_id for signal in signals}) == len(signals)
