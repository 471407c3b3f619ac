"""A short run of the faults of a predictor: what is told to be missing is what is missing."""

import gc

import pytest
from benchmarks.faults.predictor import Counted
from benchmarks.faults_outcomes import Size, predictor_faults
from rich.console import Console

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
    size = Size(kills=0, zombies=0, emptied=0, predictor_kills=1, away_s=6.0, around_s=2.0)
    outage, found, control = predictor_faults(size, SystemClock(), Console())
    assert all(answer.ids for part in (outage.before, outage.during, outage.after) for answer in part)
    stopped, killed, killed_meanwhile, gone = found
    assert stopped.exact, found
    assert killed.exact, found
    assert killed_meanwhile.exact, found
    assert gone.bounded, found
    assert control.missing - gone.missing > control.lost + control.maybe_lost - gone.lost - gone.maybe_lost, found
    gc.collect()
