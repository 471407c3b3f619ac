"""The 99th percentile of requests: its bound, and what the gate says of servers that are slow, silent or gone."""

import numpy as np
import pytest

from tidemill.evaluation.gates import judge
from tidemill.evaluation.latency import quantile_upper
from tidemill.evaluation.scoring import Evaluation, Scores, Timing
from tidemill.spec.gates import Gates
from tidemill.training.verdict import GateVerdict

GATES = Gates.model_validate({"latency": {"p99": "50ms"}})


def verdict(timing: Timing, champion: Timing | None = None) -> GateVerdict:
    silent = Scores(version="v2", losses=(0.0,))
    found = Evaluation(candidate=silent, snapshot="", timing=timing, champion_timing=champion)
    return judge(GATES, found)[-1]


def timed(*seconds: float, version: str = "v2", problem: str = "") -> Timing:
    return Timing(version=version, seconds=seconds, ready_after_s=2.0, problem=problem)


@pytest.mark.parametrize(("count", "from_the_top"), [(298, None), (299, 1), (473, 2), (1000, 5)])
def test_the_bound_is_the_order_statistic_of_the_textbook(count: int, from_the_top: int | None) -> None:
    """0.99 ** 299 is the first power below 5 %."""
    expected = None if from_the_top is None else float(count - from_the_top)
    assert quantile_upper([float(value) for value in range(count)], 0.99) == expected


def test_the_bound_covers_the_true_percentile_in_95_of_100_cases() -> None:
    drawn = np.random.default_rng(0).exponential(size=(2000, 500))
    covered = np.mean([(quantile_upper(row.tolist(), 0.99) or 0.0) >= -np.log(0.01) for row in drawn])
    assert covered >= 0.94


def test_a_fast_version_passes_and_a_slow_one_is_refused_with_both_figures() -> None:
    fast, slow = timed(*[0.004] * 1000, version="v1"), timed(*[0.06] * 1000)
    assert verdict(fast).passed is True
    found = verdict(slow, fast)
    assert found.passed is False
    assert found.reason == (
        "99 % of 1000 requests of one row were answered within 60.0 ms (the champion's 4.0 ms), at most 60.0 ms with "
        "95 % confidence: above the limit of 50 ms"
    )


def test_a_version_that_is_slow_in_one_request_of_fifty_is_refused() -> None:
    assert verdict(timed(*([0.004] * 49 + [0.2]) * 20)).passed is False


def test_a_server_that_did_not_answer_is_refused_by_what_it_said_however_fast_it_was_before() -> None:
    found = verdict(timed(*[0.004] * 900, problem="request 901 had no answer within 10 s"))
    assert found.passed is False
    assert found.reason == "version v2 could not be timed in its server: request 901 had no answer within 10 s"


def test_too_few_requests_have_no_bound_and_are_refused() -> None:
    found = verdict(timed(*[0.004] * 200))
    assert found.passed is False
    assert "too few" in found.reason
