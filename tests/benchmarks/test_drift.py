"""The simulations of drift, at their small size: what is promised of false alarms holds, and what cannot be says so."""

import pytest
from benchmarks import simulate_drift, simulate_drift_kinds
from benchmarks.report import Report


def broken(report: Report) -> list[str]:
    return [figure.name for figure in report.figures if figure.holds is False]


@pytest.mark.slow
def test_the_promises_about_drift_of_numbers_hold() -> None:
    assert broken(simulate_drift.run("small")) == []


@pytest.mark.slow
def test_the_promises_about_drift_of_categories_gaps_and_losses_hold() -> None:
    assert broken(simulate_drift_kinds.run("small")) == []
