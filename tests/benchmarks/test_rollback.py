"""Live: 300 requests/s through Envoy while versions are rejected, promoted and brought back; and under faults."""

import pytest
from benchmarks import bench_rollback, faults_rollout
from benchmarks.report import Report
from benchmarks.rollout.live import Left, Live, Share
from benchmarks.rollout.load import Sent


def broken(report: Report) -> list[str]:
    return [f"{figure.name}: {figure.value} {figure.note}" for figure in report.figures if figure.holds is False]


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.envoy
@pytest.mark.timeout(600)
def test_nobody_notices_a_rollout_and_a_rejected_version_gets_nothing() -> None:
    assert broken(bench_rollback.run("small")) == []


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.envoy
@pytest.mark.timeout(900)
def test_no_bad_candidate_passes_its_first_step_and_who_is_killed_comes_back() -> None:
    assert broken(faults_rollout.run("small")) == []


def test_a_share_outside_of_its_bounds_a_failure_and_a_late_request_are_told() -> None:
    share, left = Share("v2", 20, 500, 1000), Left("v2", "rejected", 6.0, 3)
    sent = [Sent(0, 0.1, 200, "v1"), Sent(1, 0.1, 503)]
    told = bench_rollback.figures(Live(sent, [share], [left]))
    assert [figure.name for figure in told if figure.holds is False] == [
        "requests that failed",
        "answered by v2 at 20 %",
        "last request to v2",
    ]


def test_a_candidate_that_got_further_or_was_not_stopped_by_what_it_did_is_told() -> None:
    good = faults_rollout.Found("good", end="promote")
    for changes in ({"most": 50}, {"end": "promote"}, {"after_s": 5.0}, {"said": False}):
        bad = faults_rollout.Found("bad", **({"end": "rolled-back", "most": 20} | changes))  # type: ignore[arg-type]
        assert any(figure.holds is False for figure in faults_rollout.figures([good, bad], [])), changes
    lost = faults_rollout.Killed("proxy", converged=False, back_s=1.0, failed=0)
    assert faults_rollout.figures([good], [lost])[-1].holds is False
