"""A short run of the faults of a retrain run, and what its account finds out."""

import pytest
from benchmarks import faults_retrain
from benchmarks.faults_retrain import Case, Found, figures
from benchmarks.report import Report


def broken(report: Report) -> list[str]:
    return [f"{figure.name}: {figure.value} ({figure.note})" for figure in report.figures if figure.holds is False]


def test_a_run_that_does_not_end_as_its_fault_allows_is_found_out() -> None:
    well = Found(
        Case("run", "train"), met="train", end="run-failed", free_s=6.0, stale_refused=True, next_end="start-rollout"
    )
    assert all(figure.holds is not False for figure in figures([well]))
    for name, value in (
        ("end", "start-rollout"),
        ("free_s", 60.0),
        ("half", ["no manifest"]),
        ("stale_refused", False),
        ("left", 1),
        ("next_end", "run-failed"),
    ):
        bad = Found(**(vars(well) | {name: value}))
        assert [figure.holds for figure in figures([bad])].count(False) == 1, name


def test_a_step_that_is_tried_again_must_end_in_a_proposal() -> None:
    assert not Found(Case("step", "train"), met="train", end="run-failed").ended_well
    assert Found(Case("step", "validate"), met="validate", end="run-failed").ended_well
    assert Found(Case("run", "propose"), met="propose", end="start-rollout").ended_well


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(900)
# MLflow's and kafka-python's own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:unclosed:ResourceWarning")
def test_runs_that_are_killed_leave_the_next_one_free_to_propose() -> None:
    assert broken(faults_retrain.run("small")) == []
