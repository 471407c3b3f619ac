"""What the watch tells of itself is bounded, and is of the version that serves."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tidemill.core.telemetry import MOST, REGISTRY, REST
from tidemill.events.records import Signal
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import first_state, reduce
from tidemill.watch.reference import Reference
from tidemill.watch.state import Promotion
from tidemill.watch.telemetry import tell


def series(name: str, model: str) -> dict[str, float]:
    """By the first label that is not the model's."""
    found = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name == name]
    mine = [(dict(sample.labels), sample.value) for sample in found if sample.labels.pop("model") == model]
    return {next(iter(labels.values()), ""): value for labels, value in mine}


@pytest.fixture
def model(topic_prefix: str) -> str:
    return f"default.{topic_prefix}"


def told(model: str, plan: WatchPlan, evidence: Mapping[str, float], *signals: Signal) -> dict[str, float]:
    tell(replace(plan, model=model), first_state(plan), evidence, signals)
    return series("tidemill_watch_evidence_ratio", model)


def test_a_thousand_features_are_fifty_and_the_rest(model: str, plan: WatchPlan) -> None:
    evidence = {f"f{number}": 0.001 for number in range(1000)}
    found = told(model, plan, evidence)
    assert len(found) == MOST + 1
    assert found[REST] == pytest.approx(0.001 * (1000 - MOST))
    assert found["f0"] == 0.001


def test_features_of_the_version_before_are_told_no_more(model: str, plan: WatchPlan) -> None:
    assert told(model, plan, {"brightness": 0.1, "contrast": 0.2}) == {"brightness": 0.1, "contrast": 0.2}
    assert told(model, plan, {"contrast": 0.0}) == {"contrast": 0.0}


def test_without_a_reference_nothing_is_watched(model: str, plan: WatchPlan) -> None:
    told(model, plan, {})
    assert series("tidemill_watch_reference", model) == {"": 0}
    assert set(series("tidemill_watch_features", model).values()) == {0}


def test_a_promotion_that_no_record_has_followed_yet_counts(model: str, plan: WatchPlan, reference: Reference) -> None:
    promoted, _ = reduce(first_state(plan), [Promotion(version="r1", at=1, reference=reference)], plan)
    tell(replace(plan, model=model), promoted, {}, [])
    assert series("tidemill_watch_reference", model) == {"": 1}
    assert series("tidemill_watch_features", model)["ok"] == 2


def test_signals_are_counted_by_kind_from_zero(model: str, plan: WatchPlan) -> None:
    told(model, plan, {})
    assert set(series("tidemill_watch_signals_total", model).values()) == {0}
    signal = Signal(signal_id="1", kind="drift", feature="f", time=1, version="v", evidence=1.0, message="f rose")
    told(model, plan, {}, signal, signal)
    assert series("tidemill_watch_signals_total", model) == {"drift": 2, "concept": 0, "performance": 0, "state": 0}


def test_ticks_are_told_with_how_far_behind_they_may_be(model: str, plan: WatchPlan) -> None:
    told(model, plan, {})
    assert series("tidemill_watch_lateness_seconds", model)["inputs"] == 1.5
    assert series("tidemill_watch_closed_timestamp_seconds", model)["inputs"] == 0


def test_a_slice_is_no_label(model: str, plan: WatchPlan) -> None:
    found = told(model, plan, {"error": 0.1, "error, station=A": 0.7, "error, station=B": 0.2})
    assert found == {"error": 0.7}
