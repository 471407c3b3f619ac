"""A rollout as the operator runs it, over an API server, KServe and a gateway in memory."""

from typing import Any

import pytest

from tidemill.control.cluster_kinds import MODEL
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.testing.operator_world import OperatorWorld


@pytest.fixture
def world() -> OperatorWorld:
    return OperatorWorld()


def test_a_candidate_that_does_well_takes_over_step_by_step(world: OperatorWorld) -> None:
    first = world.bench.bootstrap()
    assert world.status["traffic"] == f"{first} 100 %"
    second = world.candidate()
    seen = set()

    def promoted(status: Any) -> bool:
        seen.add(world.status["traffic"])
        return bool(status.champion and status.champion.version == second and status.rollout is None)

    world.judged(promoted, {first: 0.4, second: 0.05})
    assert f"{first} 95 %, {second} 5 %" in seen
    # Where the evidence is strong it is promoted from any step: how many there are is chance.
    steps = [one.figures["weight"] for one in world.bench.log.decisions() if one.kind == "step-began"]
    assert steps[0] == 5
    assert steps == sorted(steps)
    assert world.status["champion"] == second
    assert world.status["previous"] == first
    assert {"phase", "message", "conditions"} <= world.status.keys()


def test_a_candidate_that_does_harm_is_taken_back(world: OperatorWorld) -> None:
    first = world.bench.bootstrap()
    second = world.candidate()
    world.judged(lambda status: status.rollout is None, {first: 0.05, second: 0.9})
    world.bench.until(lambda status: len(world.cluster.list(INFERENCE_SERVICE, "default")) == 1)
    world.bench.until(lambda status: world.status["traffic"] == f"{first} 100 %")
    assert world.status["champion"] == first


def test_a_deleted_model_takes_its_traffic_with_it(world: OperatorWorld) -> None:
    world.bench.bootstrap()
    world.delete()
    assert world.cluster.list(HTTP_ROUTE, "default") == []
    found = world.cluster.get(MODEL, "default", "phones")
    assert found is not None
    assert found["metadata"].get("finalizers", []) == []
