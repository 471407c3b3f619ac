"""`triggers.performance`: one test of one version, at a risk of its own, said once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from tests.watch.test_concept import AT, NOON, outcomes, resource, rows, trigger_of

from tidemill.core.clock import to_ms
from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch, Signal
from tidemill.watch.answers import reference_of
from tidemill.watch.performance import begin, judge
from tidemill.watch.plan import WatchPlan, plan_of
from tidemill.watch.reducer import Input, first_state, reduce
from tidemill.watch.reference import Reference
from tidemill.watch.state import Promotion, decode_state, encode_state
from tidemill.watch.ticks import ClosedTick

QUIET = [0.04] * 300


@pytest.fixture(scope="module")
def reference() -> Reference:
    model = resource()
    return reference_of(rows(6_000), model, trigger_of(model))


@pytest.fixture
def plan(plan: WatchPlan) -> WatchPlan:
    return replace(
        plan, watch=("errors",), control=1.0, rise=0.45, performance_rise=0.1, performance_risk=0.05
    )  # drift of the loss is far away


def play(plan: WatchPlan, reference: Reference, inputs: Sequence[Input]) -> list[Signal]:
    promoted = Promotion(version="r1", at=AT - 1, reference=reference)
    _, signals = reduce(first_state(plan), [promoted, *inputs], plan)
    return [signal for signal in signals if signal.kind == "performance" or signal.feature == "performance"]


def test_a_rise_beyond_what_can_be_lived_with_is_said_once_with_its_evidence(
    plan: WatchPlan, reference: Reference
) -> None:
    bad = [0.04] * 120 + [0.4] * 300
    (found,) = play(plan, reference, outcomes({"A": bad, "B": bad, "C": bad}))
    assert (found.kind, found.subject, found.feature, found.version) == ("performance", "errors", "error", "r1")
    assert found.evidence >= 20
    assert found.since is not None
    assert abs(found.since - to_ms(NOON + timedelta(seconds=120))) <= 15_000
    assert found.time - found.since < 120_000
    assert found.message.startswith("the mean loss has risen by more than 0.1 above the 0.0")
    assert found.message.endswith("20 was needed")


def test_a_rise_that_can_be_lived_with_is_not(plan: WatchPlan, reference: Reference) -> None:
    level = [0.1] * 1_200
    assert play(plan, reference, outcomes({"A": level, "B": level, "C": level})) == []


def test_without_the_trigger_nothing_is_said(plan: WatchPlan, reference: Reference) -> None:
    bad = [0.4] * 300
    assert play(replace(plan, performance_rise=0.0), reference, outcomes({"A": bad, "B": bad, "C": bad})) == []


def test_it_says_why_there_is_no_test(plan: WatchPlan, reference: Reference) -> None:
    def reason(plan: WatchPlan, reference: Reference | None) -> str:
        _, signal = begin("r1", reference, AT, plan)
        assert signal is not None
        assert (signal.kind, signal.feature) == ("state", "performance")
        return signal.message

    assert "labels.control is 0" in reason(replace(plan, control=0.0), reference)
    assert "no loss to compare with" in reason(plan, None)
    assert "reference too small" in reason(replace(plan, performance_rise=0.001), reference)
    other = msgspec.structs.replace(reference, tick_ms=2_000)
    assert "cannot promise" in reason(plan, other)


def test_a_restart_between_any_two_outcomes_changes_nothing(plan: WatchPlan, reference: Reference) -> None:
    bad = [0.04] * 20 + [0.5] * 60
    taken: list[Input] = [Promotion(version="r1", at=AT - 1, reference=reference)]
    taken += outcomes({"A": bad, "B": bad, "C": bad})
    at_once = reduce(first_state(plan), taken, plan)
    state, said = first_state(plan), list[Signal]()
    for first in range(0, len(taken), 7):
        found = decode_state(encode_state(state), "a test")
        assert found is not None
        state, signals = reduce(found, taken[first : first + 7], plan)
        said += signals
    assert said == list(at_once[1])
    assert encode_state(state) == encode_state(at_once[0])


def test_the_next_version_is_tested_anew(plan: WatchPlan, reference: Reference) -> None:
    bad = [0.5] * 120
    later = NOON + timedelta(hours=1)
    second = Promotion(version="r2", at=to_ms(later) - 1, reference=reference)
    after = outcomes({"A": bad, "B": bad, "C": bad}, start=later, version="r2")
    taken: list[Input] = [*outcomes({"A": bad, "B": bad, "C": bad}), second]
    taken += [replace(one, offset=one.offset + 1_000) for one in after]
    assert [one.version for one in play(plan, reference, taken)] == ["r1", "r2"]


def test_a_version_that_serves_once_more_is_tested_anew_and_its_signal_is_another(
    plan: WatchPlan, reference: Reference
) -> None:
    bad, taken = [0.5] * 120, list[Input]()
    for hour, version in enumerate(("r1", "r2", "r1")):
        begun = NOON + timedelta(hours=hour)
        taken.append(Promotion(version=version, at=to_ms(begun) - 1, reference=reference))
        judged = outcomes({"A": bad, "B": bad, "C": bad}, start=begun, version=version)
        taken += [replace(one, offset=one.offset + 1_000 * hour) for one in judged]
    said = play(plan, reference, taken)
    assert [one.version for one in said] == ["r1", "r2", "r1"]
    assert len({one.signal_id for one in said}) == 3


def test_a_trigger_that_is_declared_while_a_version_serves_says_once_why_there_is_no_test(
    plan: WatchPlan, reference: Reference
) -> None:
    promoted = Promotion(version="r1", at=AT - 1, reference=None)
    quiet = outcomes({"A": QUIET[:30]})
    state, _ = reduce(first_state(plan), [promoted, *quiet[:10]], replace(plan, performance_rise=0.0))
    state, said = reduce(state, quiet[10:20], plan)
    assert ["no loss to compare with" in one.message for one in said if one.feature == "performance"] == [True]
    assert [one for one in reduce(state, quiet[20:], plan)[1] if one.feature == "performance"] == []


@pytest.mark.slow
def test_a_version_at_its_limit_is_accused_in_at_most_the_share_of_the_risk(
    plan: WatchPlan, reference: Reference
) -> None:
    """200 versions that err exactly as much more as can be lived with, for 2,000 ticks of three votes each."""
    plan = replace(plan, performance_risk=0.2)
    (loss,) = [one for one in reference.features if one.kind == "loss" and one.slice is None]
    limit = loss.shares[0] + plan.performance_rise
    accused, versions = 0, 200
    for version in range(versions):
        rng = np.random.default_rng(version)
        state, _ = begin(f"r{version}", reference, 0, plan)
        wrong = rng.random((2_000, 3)) < limit
        for tick, votes in enumerate(wrong, start=1):
            told = {
                name: {"error": FeatureSketch(count=1, total=float(one))}
                for name, one in zip("ABC", votes, strict=True)
            }
            state, signal = judge(state, ClosedTick(end=1_000 * tick, votes=named(told)), plan)
            if signal is not None:
                accused += 1
                break
    assert accused / versions <= 0.2


def test_the_resource_declares_it() -> None:
    model = resource()
    triggers = model.spec.triggers.model_dump(mode="json", by_alias=True, exclude_none=True)
    triggers["performance"] = {"rise": 0.07, "risk": 0.01}
    spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | {"triggers": triggers}
    content = {"apiVersion": "tidemill.dev/v1alpha1", "kind": "ContinualModel", "metadata": {"name": "m"}, "spec": spec}
    made = type(model).model_validate(content)
    plan = plan_of(made, trigger_of(made))
    assert (plan.performance_rise, plan.performance_risk) == (0.07, 0.01)
    del triggers["drift"]
    with pytest.raises(ValueError, match=r"triggers\.performance needs triggers\.drift"):
        type(model).model_validate(content)
