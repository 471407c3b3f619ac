"""The sample-ratio e-value: 1 on nothing, a martingale under the stated ratio, large under another."""

import math
import random

import pytest

from tidemill.stats.multinomial import log_ratio_evidence


def test_no_counts_are_no_evidence() -> None:
    assert log_ratio_evidence((0, 0), (0.05, 0.95)) == 0.0


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_the_next_unit_leaves_the_evidence_as_it_is_on_average(share: float) -> None:
    """The martingale property, exactly: E[B(n + 1 unit)] = B(n) under the stated ratio."""
    for counts in ((0, 0), (3, 40), (10, 10)):
        now = math.exp(log_ratio_evidence(counts, (share, 1 - share)))
        after = share * math.exp(log_ratio_evidence((counts[0] + 1, counts[1]), (share, 1 - share)))
        after += (1 - share) * math.exp(log_ratio_evidence((counts[0], counts[1] + 1), (share, 1 - share)))
        assert after == pytest.approx(now, rel=1e-9)


def test_a_kept_ratio_is_almost_never_doubted() -> None:
    rng, doubted = random.Random(3), 0
    for _ in range(200):
        counts, peak = [0, 0], 0.0
        for _ in range(40):
            for _ in range(25):
                counts[rng.random() >= 0.25] += 1
            peak = max(peak, log_ratio_evidence(counts, (0.25, 0.75)))
        doubted += peak >= math.log(1000)
    assert doubted <= 1


def test_a_wrong_ratio_is_found() -> None:
    assert log_ratio_evidence((300, 2700), (0.05, 0.95)) > math.log(1000)
    assert log_ratio_evidence((0, 200), (0.05, 0.95)) > math.log(20)
