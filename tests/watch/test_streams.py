"""Four streams in one reducer: what each moves, and that their replay is exact."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.watch.test_concept import AT, NOON, outcomes, resource, rows, trigger_of

from tidemill.core.clock import to_ms
from tidemill.events.cells import by_name, named
from tidemill.events.records import FeatureSketch, Signal, Sketch, Votes
from tidemill.watch.answers import reference_of
from tidemill.watch.losses import Judged
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import Input, evidence_of, first_state, reduce
from tidemill.watch.reference import Reference
from tidemill.watch.state import Promotion, WatchState, decode_state, encode_state
from tidemill.watch.ticks import Arrived

TICK = to_ms(NOON) // 1_000
Of = Literal["events", "predictions", "labels"]


@pytest.fixture(scope="module")
def reference() -> Reference:
    model = resource()
    return reference_of(rows(), model, trigger_of(model))


@pytest.fixture(scope="module")
def plan(plan: WatchPlan) -> WatchPlan:
    return replace(plan, watch=("inputs", "predictions", "labels", "errors"), control=1.0, rise=0.1)


def told(of: Of, second: int, features: dict[str, FeatureSketch], *, version: str = "r1", **changes: Any) -> Arrived:
    """A sketch of one second and three stations, a second after it."""
    votes: Votes = {TICK + second: named(dict.fromkeys("ABC", features))}
    by_version = of == "predictions"
    sketch = Sketch(
        source=f"c/{of}/0",
        first_offset=10 * second,
        last_offset=10 * second + 9,
        max_event_time=(TICK + second) * 1_000 + 999,
        tick_ms=1_000,
        of=of,
        votes={} if by_version else votes,
        answers={version: votes} if by_version else {},
    )
    return Arrived(msgspec.structs.replace(sketch, **changes), (TICK + second + 1) * 1_000)


def classes(scratch: int) -> dict[str, FeatureSketch]:
    values = {"ok": 10 - scratch, "scratch": scratch}
    return {"prediction.class": FeatureSketch(count=10, values={name: of for name, of in values.items() if of})}


def labels(scratch: int) -> dict[str, FeatureSketch]:
    return {"label.defect": classes(scratch)["prediction.class"]}


def promotion(reference: Reference | None, version: str = "r1", at: int = AT - 1) -> Promotion:
    return Promotion(version=version, at=at, reference=reference)


def said(plan: WatchPlan, reference: Reference, inputs: Sequence[Input]) -> list[Signal]:
    _, signals = reduce(first_state(plan), [promotion(reference), *inputs], plan)
    return [signal for signal in signals if signal.kind != "state"]


def test_the_reference_is_of_all_that_is_watched(reference: Reference) -> None:
    assert {(of.subject, of.said, of.kind, of.state) for of in reference.features if of.subject != "inputs"} == {
        ("predictions", "prediction.class", "category", "ok"),
        ("predictions", "prediction.confidence", "number", "ok"),
        ("labels", "label.defect", "category", "ok"),
        ("errors", "error", "loss", "ok"),
        ("errors", "error, station=A", "loss", "ok"),
        ("errors", "error, station=B", "loss", "ok"),
        ("errors", "error, station=C", "loss", "ok"),
    }


def test_answers_that_changed_are_drift_of_predictions(plan: WatchPlan, reference: Reference) -> None:
    found = said(plan, reference, [told("predictions", second, classes(8)) for second in range(60)])
    first = found[0]
    assert (first.kind, first.subject, first.feature) == ("drift", "predictions", "prediction.class")
    assert "'scratch' rose from 0.1" in first.message or "'ok' fell from 0.8" in first.message


def test_labels_that_changed_are_drift_of_labels(plan: WatchPlan, reference: Reference) -> None:
    found = said(plan, reference, [told("labels", second, labels(8)) for second in range(60)])
    assert {(signal.kind, signal.subject, signal.feature) for signal in found} == {("drift", "labels", "label.defect")}


def test_a_confidence_that_fell_is_told_in_figures(plan: WatchPlan, reference: Reference) -> None:
    low = {"prediction.confidence": FeatureSketch(count=1, total=0.3)}
    found = said(plan, reference, [told("predictions", second, low) for second in range(60)])
    assert found[0].message.startswith("prediction.confidence fell from 0.75 to 0.3")


def test_of_a_prediction_number_the_first_of_a_tick_votes_and_of_a_class_all(
    plan: WatchPlan, reference: Reference
) -> None:
    first, second = (
        told("predictions", 0, {**classes(4), "prediction.confidence": FeatureSketch(count=1, total=of)})
        for of in (0.9, 0.5)
    )
    inputs: list[Input] = [promotion(reference), first, Arrived(_numbered(second.sketch, 1), second.at)]
    state, _ = reduce(first_state(plan), inputs, plan)
    votes = by_name(state.streams["predictions"].open[TICK])["A"]
    assert votes["prediction.confidence"] == FeatureSketch(count=1, total=0.9)
    assert votes["prediction.class"].values == {"ok": 12, "scratch": 8}


def test_what_other_versions_answered_moves_nothing(plan: WatchPlan, reference: Reference) -> None:
    other = [told("predictions", second, classes(10), version="r2") for second in range(60)]
    state, _ = reduce(first_state(plan), [promotion(reference), *other], plan)
    assert set(evidence_of(state, plan).values()) == {0.0}
    assert state.streams["predictions"].closed == (TICK + 59) * 1_000


def test_a_tick_of_one_stream_moves_no_other(plan: WatchPlan, reference: Reference) -> None:
    quiet = [told("labels", second, labels(1)) for second in range(20)]
    dent = {"label.defect": FeatureSketch(count=10, values={"ok": 9, "dent": 1})}
    state, _ = reduce(first_state(plan), [promotion(reference), *quiet, told("labels", 20, dent)], plan)
    state, _ = reduce(state, [told("labels", 21, dent)], plan)
    levels = {key: of for key, of in state.recent.items() if key.startswith("labels/")}
    assert levels["labels/label.defect+"]["dent"] > 0
    before = evidence_of(state, plan)
    assert before["labels/label.defect"] > 0
    state, _ = reduce(state, [told("predictions", second, classes(1)) for second in range(20, 40)], plan)
    assert {key: of for key, of in state.recent.items() if key.startswith("labels/")} == levels
    after = evidence_of(state, plan)
    assert {key for key, of in after.items() if of != before[key]} == {"predictions/prediction.class"}


def test_an_event_field_that_is_called_as_the_loss_is_another_quantity(plan: WatchPlan, reference: Reference) -> None:
    named = {"error": FeatureSketch(count=1, total=0.9)}
    field = msgspec.structs.replace(reference.features[0], name="error")
    both = msgspec.structs.replace(reference, features=(*reference.features, field))
    state, signals = reduce(first_state(plan), [promotion(both)], plan)
    state, signals = reduce(state, [told("events", second, named) for second in range(60)], plan)
    assert {(signal.kind, signal.subject, signal.feature) for signal in signals} == {("drift", "inputs", "error")}
    assert evidence_of(state, plan)["errors/error"] == 0.0


def test_hours_without_a_stream_raise_no_evidence_of_it(plan: WatchPlan, reference: Reference) -> None:
    """Predictions fall silent for three hours while labels come on; the next prediction is no news."""
    first = [told("predictions", second, classes(1)) for second in range(10)]
    state, _ = reduce(first_state(plan), [promotion(reference), *first], plan)
    before = evidence_of(state, plan)["predictions/prediction.class"]
    state, signals = reduce(state, [told("labels", second, labels(1)) for second in range(10, 10_800, 7)], plan)
    assert signals == ()
    assert evidence_of(state, plan)["predictions/prediction.class"] == before
    later = [told("predictions", second, classes(1)) for second in range(10_800, 10_803)]
    state, signals = reduce(state, later, plan)
    assert signals == ()
    assert evidence_of(state, plan)["predictions/prediction.class"] < 1e-4


def test_a_stream_that_is_no_longer_watched_keeps_the_evidence_of_the_others(
    plan: WatchPlan, reference: Reference
) -> None:
    inputs = [told("labels", second, labels(3)) for second in range(12)]
    state, _ = reduce(first_state(plan), [promotion(reference), *inputs], plan)
    fewer = replace(plan, watch=("labels", "errors"))
    kept = evidence_of(state, fewer)
    assert set(kept) == {
        "labels/label.defect",
        "errors/error",
        "errors/error, station=A",
        "errors/error, station=B",
        "errors/error, station=C",
    }
    share = len(reference.features) / len(kept)  # of the budget each has more now
    assert kept["labels/label.defect"] == pytest.approx(share * evidence_of(state, plan)["labels/label.defect"])


def test_what_a_version_has_no_reference_of_is_said(plan: WatchPlan, reference: Reference) -> None:
    inputs = tuple(of for of in reference.features if of.subject == "inputs")
    old = msgspec.structs.replace(reference, features=inputs)
    _, signals = reduce(first_state(plan), [promotion(old), told("labels", 0, labels(1))], plan)
    assert [(signal.kind, signal.subject, signal.feature) for signal in signals] == [
        ("state", of, of) for of in ("predictions", "labels", "errors")
    ]
    assert signals[0].message.startswith("predictions: not watched: the reference of r1 has none")


def play(plan: WatchPlan, batches: Sequence[Sequence[Input]]) -> tuple[WatchState, list[Signal]]:
    """Each batch on a state that was stored and read back, as after a restart."""
    state, signals = first_state(plan), list[Signal]()
    for batch in batches:
        stored = decode_state(encode_state(state), "memory")
        assert stored is not None
        state, found = reduce(stored, batch, plan)
        signals += found
    return state, signals


def drawn(data: st.DataObject, reference: Reference, sketch: Callable[..., Sketch]) -> list[Input]:
    """Some of each stream in any order, promotions between them, now and then something told again."""
    kinds = st.sampled_from(["events", "predictions", "labels", "errors", "again", "promotion"])
    steps = data.draw(st.lists(st.tuples(kinds, st.integers(0, 8), st.integers(0, 2_500)), min_size=20, max_size=90))
    judged = outcomes(dict.fromkeys("ABC", [0.9] * 30))
    found: list[Input] = [promotion(reference)]
    second, at, versions = 0, AT, 1
    for kind, level, pause in steps:
        at, second = at + pause, second + (pause > 800)
        if kind == "errors" and judged:
            found.append(replace(judged.pop(0), at=at))
        elif kind == "promotion" and level > 5:
            versions += 1
            found.append(promotion(reference, f"r{versions % 3}", at=at))
        elif kind == "again" and isinstance(found[-1], Arrived | Judged):
            found.append(found[-1])
        elif kind == "predictions":
            of = told("predictions", second, classes(level), version=f"r{versions % 3}")
            found.append(Arrived(_numbered(of.sketch, len(found)), at))
        elif kind == "labels":
            found.append(Arrived(_numbered(told("labels", second, labels(level)).sketch, len(found)), at))
        elif kind == "events":
            votes = sketch(TICK + second, 0.1 * level, first=0)
            found.append(Arrived(_numbered(votes, len(found)), at))
    return found


def _numbered(sketch: Sketch, number: int) -> Sketch:
    return msgspec.structs.replace(sketch, first_offset=10 * number, last_offset=10 * number + 9)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_replay_of_all_streams_in_any_batching_and_from_any_commit_says_the_same(
    plan: WatchPlan, reference: Reference, sketch: Callable[..., Sketch], data: st.DataObject
) -> None:
    inputs = drawn(data, reference, sketch)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(inputs)), max_size=8)))
    batches = [inputs[begin:end] for begin, end in pairwise([0, *cuts, len(inputs)])]
    whole, expected = play(plan, [inputs])
    parts, signals = play(plan, batches)
    assert signals == expected
    assert encode_state(parts) == encode_state(whole)
    assert len({signal.signal_id for signal in signals}) == len(signals)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_one_stream_says_alone_does_not_depend_on_when_the_others_come(
    plan: WatchPlan, reference: Reference, data: st.DataObject
) -> None:
    """While no alarm is made by several together: each stream has its own ticks and its own evidence."""
    one = [told("predictions", second, classes(data.draw(st.integers(0, 3)))) for second in range(25)]
    other = [told("labels", second, labels(data.draw(st.integers(0, 3)))) for second in range(25)]
    alone, _ = reduce(first_state(plan), [promotion(reference), *one], plan)
    places = data.draw(st.lists(st.booleans(), min_size=50, max_size=50))
    mixed, left, right = list[Input](), list(one), list(other)
    for take_left in places:
        source = left if (take_left and left) or not right else right
        mixed.append(source.pop(0))
    both, signals = reduce(first_state(plan), [promotion(reference), *mixed], plan)
    assert [signal for signal in signals if signal.kind != "state"] == []
    assert (
        evidence_of(both, plan)["predictions/prediction.class"]
        == evidence_of(alone, plan)["predictions/prediction.class"]
    )
    assert both.streams["predictions"] == alone.streams["predictions"]


def test_a_sparse_frame_is_no_reason_to_fail(plan: WatchPlan) -> None:
    """A candidate that never says how sure it is: nothing is watched of that, and nothing is said to be well."""
    model = resource()
    plain = rows(seconds=100)
    silent = replace(plain, answers=plain.answers.with_columns(output=pl.lit('{"class":"ok"}')))
    built = reference_of(silent, model, trigger_of(model))
    assert {of.name for of in built.features if of.subject == "predictions"} == {"prediction.class"}
    empty = replace(plain, answers=plain.answers.clear(), labels=plain.labels.clear())
    built = reference_of(empty, model, trigger_of(model))
    assert [(of.subject, of.state) for of in built.features if of.subject in {"predictions", "labels"}] == []
    (loss,) = [of for of in built.features if of.subject == "errors"]
    assert loss.reason == "reference too small: no row has a value of error"
