"""Reports of benchmarks and simulations: the bound they quote, what they write, and what they refuse."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from benchmarks.__main__ import main, names
from benchmarks.drift_alarms import KINDS, Long, upper_bound
from benchmarks.drift_delays import KINDS as COMPARED
from benchmarks.drift_delays import Compared
from benchmarks.drift_peers import PEERS
from benchmarks.report import Figure, Report, environment, save
from benchmarks.simulate_drift import SIZES, Size, run


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (10, 16.962), (300, 330.2)])
def test_the_upper_bound_of_a_count_is_the_poisson_one(count: int, bound: float) -> None:
    assert upper_bound(count) == pytest.approx(bound, rel=2e-3)


def test_a_report_is_written_with_what_was_run_and_whether_goals_hold(tmp_path: Path) -> None:
    figures = [Figure("a", 1.0, "s", "<= 2", True), Figure("b", 3, "s", "<= 2", False), Figure("c", None, "")]
    report = Report("bench", "ingest", "small", {"seed": 1}, figures, environment())
    path = save(report, tmp_path, started_at=datetime(2025, 3, 1, tzinfo=UTC))
    assert path == tmp_path / "bench" / "ingest.json"
    written = json.loads(path.read_text())
    assert written["holds"] is False
    assert written["ran"] == {"seed": 1}
    assert written["environment"]["numpy"]
    assert [figure["holds"] for figure in written["figures"]] == [True, False, None]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "drift" in names("simulate")
    with pytest.raises(SystemExit):
        main(["simulate", "--only", "nothing"])
    assert "drift" in capsys.readouterr().err


def test_the_drift_simulation_runs_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Size(Long(2, 1, days=0.05, control_days=0.05), Compared(1, 0.3, 60, 1, limit=1_000), repeats=1)
    monkeypatch.setitem(SIZES, "small", tiny)
    for name in KINDS.keys() - {"iid", "AR(1) 0.9", "daily season 1 sigma, reference of 9 days"}:
        monkeypatch.delitem(KINDS, name)
    for name in COMPARED.keys() - {"iid"}:
        monkeypatch.delitem(COMPARED, name)
    report = run("small")
    found = {figure.name: figure for figure in report.figures}
    assert found["iid"].value == 0
    assert found["iid"].holds is False  # so few days show nothing
    assert found["demo, reference of 1,200 votes, 5 of 5 features shift"].holds
    assert found["control: AR(1) 0.9, not tempered"].value != 0
    assert {f"iid: {peer}" for peer in PEERS} < found.keys()
