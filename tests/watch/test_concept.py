"""A rise of the error: which outcomes tell of it, for which group, and what is said."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.watch.conftest import make_rows

from tidemill.core.clock import to_ms
from tidemill.events.records import Outcome, Signal
from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.testing.loop import example_resource
from tidemill.watch.answers import Rows, reference_of
from tidemill.watch.losses import Judged, counts
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import Input, evidence_of, first_state, reduce
from tidemill.watch.reference import Reference, decode_reference, encode_reference
from tidemill.watch.state import Promotion

NOON = datetime(2025, 3, 2, 12, tzinfo=UTC)
AT = to_ms(NOON)
SEEN = datetime(2025, 3, 1, tzinfo=UTC)


def resource(control: float = 1.0, **drift: Any) -> ContinualModel:
    trigger = {"tolerance": 0.2, "every": "1s", "rise": 0.1, "slices": ["station"], **drift}
    labels = {"fields": [{"name": "defect", "type": "class"}], "control": control}
    return example_resource(labels=labels, triggers={"drift": trigger})


def trigger_of(model: ContinualModel) -> DriftTrigger:
    assert model.spec.triggers.drift is not None
    return model.spec.triggers.drift


def rows(seconds: int = 1_500, error: float = 0.04) -> Rows:
    """Inputs, answers and labels of three stations, a row a second of each."""
    frame = make_rows(1, seconds, start=SEEN)
    rng = np.random.default_rng(5)
    wrong = rng.random(frame.height) < error
    truth = np.where(rng.random(frame.height) < 0.1, "scratch", "ok")
    said = np.where(wrong, np.where(truth == "ok", "scratch", "ok"), truth)
    sure = 0.5 + 0.5 * rng.random(frame.height)
    outputs = [f'{{"class":"{name}","confidence":{of:.3f}}}' for name, of in zip(said, sure, strict=True)]
    answers = frame.select("entity", "event_time", output=pl.Series(outputs), error=pl.Series(wrong.astype(float)))
    labels = frame.select("entity", "event_time", value=pl.Series([f'{{"defect":"{name}"}}' for name in truth]))
    return Rows(frame, answers, labels)


@pytest.fixture(scope="module")
def reference() -> Reference:
    model = resource()
    return reference_of(rows(), model, trigger_of(model))


@pytest.fixture
def plan(plan: WatchPlan) -> WatchPlan:
    return replace(plan, watch=("inputs", "predictions", "labels", "errors"), control=1.0, rise=0.1)


def outcomes(
    levels: Mapping[str, Sequence[float]], *, start: datetime = NOON, version: str = "r1", **changes: Any
) -> list[Judged]:
    """An outcome a second of each station with these chances of an error, judged four seconds later."""
    rng, found = np.random.default_rng(3), list[Judged]()
    for second in range(len(next(iter(levels.values())))):
        for station, level in levels.items():
            time = to_ms(start + timedelta(seconds=second))
            given: dict[str, Any] = {
                "prediction_id": f"{version}-{station}-{time}",
                "version": version,
                "entity": station,
                "predicted_at": time,
                "eligible_at": time + 4_000,
                "output": {"class": "ok"},
                "label": {"defect": "ok"},
                "loss": float(rng.random() < level[second]),
                "probability": 1.0,
            }
            found.append(Judged(Outcome(**given | changes), "c/outcomes/0", len(found), time + 4_000))
    return found


def play(plan: WatchPlan, reference: Reference, inputs: Sequence[Input]) -> list[Signal]:
    promoted = Promotion(version="r1", at=AT - 1, reference=reference)
    _, signals = reduce(first_state(plan), [promoted, *inputs], plan)
    return [signal for signal in signals if signal.kind != "state"]


QUIET, BAD = [0.04] * 400, [0.04] * 180 + [0.9] * 220


def test_a_rise_is_signalled_with_its_level_its_group_and_since_when(plan: WatchPlan, reference: Reference) -> None:
    found = play(plan, reference, outcomes({"A": QUIET, "B": BAD, "C": QUIET}))
    assert {(signal.kind, signal.subject, signal.feature) for signal in found} == {("concept", "errors", "error")}
    first = next(signal for signal in found if signal.slice == "station=B")
    assert first.message.startswith("error rose from 0.04 to 0.")
    assert ", station=B" in first.message
    assert first.message.endswith(", since 12:03")
    assert first.since is not None
    assert abs(first.since - to_ms(NOON + timedelta(seconds=180))) <= 3_000
    assert first.time - first.since < 60_000
    assert {signal.slice for signal in found} <= {None, "station=B"}


def test_the_whole_and_a_group_have_evidence_apart(plan: WatchPlan, reference: Reference) -> None:
    state, _ = reduce(first_state(plan), [Promotion(version="r1", at=AT - 1, reference=reference)], plan)
    state, _ = reduce(state, outcomes({"A": QUIET, "B": BAD, "C": QUIET})[:600], plan)
    told = evidence_of(state, plan)
    assert {key for key in told if key.startswith("errors/")} == {
        "errors/error",
        "errors/error, station=A",
        "errors/error, station=B",
        "errors/error, station=C",
    }
    assert told["errors/error, station=B"] > told["errors/error, station=A"]


def test_no_rise_and_a_fall_are_no_signal(plan: WatchPlan, reference: Reference) -> None:
    for level in (QUIET, [0.0] * 400, [0.1] * 400):
        assert play(plan, reference, outcomes(dict.fromkeys("ABC", level))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"label": None, "loss": None, "probability": None},
        {"assumed": True},
        {"probability": None},
        {"revision": 1},
        {"version": "r7"},
    ],
    ids=["unlabelled", "assumed", "volunteered", "corrected", "of another version"],
)
def test_what_says_nothing_of_the_models_quality_does_not_count(
    plan: WatchPlan, reference: Reference, changes: dict[str, Any]
) -> None:
    assert play(plan, reference, outcomes(dict.fromkeys("ABC", [1.0] * 400), **changes)) == []


def test_each_prediction_counts_with_the_same_chance_however_likely_it_was_to_be_labelled() -> None:
    """Where the queue picks what the model is unsure of, and errs in, the sample has the share of all predictions."""
    rng, control = np.random.default_rng(1), 0.2
    wrong = rng.random(60_000) < 0.1
    probability = np.where(wrong, 0.8, 0.25)
    picked = rng.random(60_000) < probability
    (template,) = outcomes({"A": [0.0]})
    kept = [
        bool(of)
        for number, (of, share, is_picked) in enumerate(zip(wrong, probability, picked, strict=True))
        if is_picked
        and counts(
            Outcome(
                prediction_id=f"p{number}",
                version="r1",
                entity="A",
                predicted_at=0,
                eligible_at=0,
                output={},
                loss=float(of),
                probability=float(share),
            ),
            control,
        )
    ]
    assert template.outcome.probability == 1.0
    assert wrong[picked].mean() > 0.2
    assert len(kept) == pytest.approx(60_000 * control, rel=0.05)
    assert np.mean(kept) == pytest.approx(0.1, abs=0.01)


def test_without_a_control_share_the_error_is_not_watched_and_that_is_said(plan: WatchPlan) -> None:
    model = resource(control=0.0)
    built = reference_of(rows(), model, trigger_of(model))
    errors = [feature for feature in built.features if feature.subject == "errors"]
    assert [feature.state for feature in errors] == ["cannot-promise"]
    promoted = Promotion(version="r1", at=AT - 1, reference=built)
    _, signals = reduce(first_state(plan), [promoted, *outcomes({"A": [1.0] * 100})], replace(plan, control=0.0))
    assert [signal.message for signal in signals] == [
        "error: cannot promise: labels.control is 0, so that no label is sure to come whatever the answer was"
    ]


def test_with_some_control_the_error_is_watched_and_what_that_assumes_is_said(plan: WatchPlan) -> None:
    model = resource(control=0.5, slices=[])
    built = reference_of(rows(), model, trigger_of(model))
    promoted = Promotion(version="r1", at=AT - 1, reference=built)
    _, signals = reduce(first_state(plan), [promoted, *outcomes({"A": [0.0]})], replace(plan, control=0.5))
    assert [signal.kind for signal in signals] == ["state"]
    assert "error: labels.control is 0.5: the promise holds only where" in signals[0].message


def test_groups_with_too_few_rows_are_told_together_and_take_one_part_of_the_budget() -> None:
    model = resource()
    built = reference_of(rows(seconds=600), model, trigger_of(model))
    errors = [feature for feature in built.features if feature.subject == "errors"]
    assert [(feature.slice, feature.state) for feature in errors] == [(None, "ok"), ("station", "reference-too-small")]
    assert errors[1].reason.startswith("groups A, B, C are not watched apart; station=A: reference too small: has 600")
    assert decode_reference(encode_reference(built), "reference.json") == built


def test_groups_of_event_fields_say_that_outcomes_do_not_carry_them() -> None:
    model = example_resource(
        events={
            "entity": {"name": "station"},
            "id": "id",
            "timestamp": "at",
            "fields": [{"name": "line", "type": "string"}, {"name": "weight", "type": "float"}],
        },
        features={},
        labels={"fields": [{"name": "defect", "type": "class"}], "control": 1.0},
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        triggers={"drift": {"slices": ["line"], "every": "1s", "watch": ["errors"]}},
    )
    built = reference_of(rows(), model, trigger_of(model))
    (reason,) = [feature.reason for feature in built.features if feature.slice == "line"]
    assert "outcomes carry no event fields" in reason


def test_a_burst_after_hours_of_silence_loses_nothing(plan: WatchPlan, reference: Reference) -> None:
    """As when the outcomes worker was down: three partitions of hours of outcomes, one after the other, at once."""
    before = outcomes(dict.fromkeys("ABC", [0.04] * 30))
    spread = [replace(one, source=f"c/outcomes/{number % 3}") for number, one in enumerate(before)]
    late = outcomes(dict.fromkeys("ABC", [0.04] * 600), start=NOON + timedelta(seconds=30))
    resumed = to_ms(NOON + timedelta(hours=3))
    burst = sorted(
        (
            replace(one, source=f"c/outcomes/{number % 3}", offset=100_000 + number, at=resumed + number // 600)
            for number, one in enumerate(late)
        ),
        key=lambda one: (one.at, one.source, one.offset),
    )
    promoted = Promotion(version="r1", at=AT - 1, reference=reference)
    state, signals = reduce(first_state(plan), [promoted, *spread, *burst], plan)
    assert [signal for signal in signals if signal.kind != "state"] == []
    ticks = state.streams["errors"]
    assert (ticks.late, ticks.out_of_order) == (0, 0)
    assert ticks.closed == to_ms(NOON + timedelta(seconds=628))
