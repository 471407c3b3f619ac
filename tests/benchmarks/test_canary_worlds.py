"""Rollouts over arrays are those of the product."""

import numpy as np
import pytest
from benchmarks.canary_worlds import Processes, World, always, simulate

from tidemill.stats.betting import for_promotion
from tidemill.testing.rollout import example_plan


def test_processes_over_arrays_are_the_products() -> None:
    rng, rows = np.random.default_rng(1), np.array([0, 2])
    kind, many = for_promotion(0.1), Processes(for_promotion(0.1), 3)
    single = [kind, kind, kind]
    for _ in range(5):
        gains, known = rng.uniform(-0.9, 1.0, (2, 8)), np.arange(8) < np.array([[8], [3]])
        many.add(rows, gains, known)
        for row, values, is_known in zip(rows, gains, known, strict=True):
            single[row] = single[row].update_all(values[is_known])
    assert many.peak == pytest.approx([one.log_peak for one in single])


def test_a_harmful_candidate_is_rolled_back_and_a_better_one_promoted() -> None:
    plan = example_plan(weights=(25, 100), margin=0.1)
    harmful = simulate(plan, World(always(0.5), always(0.1), seconds=20), 40, seed=1)
    better = simulate(plan, World(always(0.1), always(0.3), seconds=20), 40, seed=1)
    assert harmful.rolled_back.all()
    assert better.promoted.all()
    assert not harmful.promoted.any()
    assert not better.rolled_back.any()
