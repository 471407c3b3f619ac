"""A short run of the faults of a predictor: what is told to be missing is what is missing."""

import gc

import pytest
from benchmarks.faults.predictor import Counted
from benchmarks.faults_outcomes import CAPACITY, open_predictor

from tidemill.core.clock import SystemClock


def counted(**changes: int) -> Counted:
    usual = {"answered": 100, "missing": 7, "lost": 7, "maybe_lost": 0, "unanswered": 2}
    return Counted(what="killed", **(usual | changes))


def test_a_loss_that_is_told_too_small_or_too_large_is_found_out() -> None:
    assert counted().exact
    assert counted(lost=9).exact  # answers that were cut off
    assert not counted(lost=6).exact
    assert not counted(lost=10).exact
    assert not counted(maybe_lost=1).exact
    assert counted(lost=3, maybe_lost=4).bounded
    assert not counted(lost=3, maybe_lost=3).bounded


@pytest.mark.kafka
@pytest.mark.slow
# kafka-python leaves the sockets of attempts that were refused to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_is_told_to_be_missing_is_what_is_missing() -> None:
    with open_predictor(SystemClock()) as predictor:
        predictor.kill(1.5, CAPACITY, away_s=4.0)
        predictor.kill(1.0, CAPACITY, keeps=False)
    told, bounded = predictor.counted
    assert told.missing
    assert told.exact, told
    assert bounded.bounded, bounded
    assert bounded.maybe_lost == CAPACITY, bounded
    gc.collect()
