"""The simulation of slices and estimates, from end to end."""

from dataclasses import replace

import pytest
from benchmarks.__main__ import names
from benchmarks.simulate_slices import SIZES, run


def test_the_simulation_of_slices_runs_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "slices" in names("simulate")
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], runs=1, outcomes=3000, answers=120))
    report = run("small")
    assert {figure.name for figure in report.figures} >= {
        "independent outcomes: nothing planted, something shown",
        "100 customers, each its own error: planted and found",
        "estimate, what is true changed 6 windows ago: refused",
    }


@pytest.mark.slow
def test_the_promises_about_slices_and_estimates_hold() -> None:
    assert [figure.name for figure in run("small").figures if figure.holds is False] == []
