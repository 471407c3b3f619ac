"""The outcomes as control follows them: from where, and what comes of them."""

import msgspec
import pytest

from tidemill.control.log import Batch
from tidemill.control.outcomes import OutcomeFollower
from tidemill.control.state import LoopStatus, Offsets
from tidemill.events.records import LabelAgreement, Outcome
from tidemill.testing.log import MemoryLog
from tidemill.testing.loop import LoopBench

SOURCE = "memory/outcomes/0"


class Recording(MemoryLog):
    """Remembers from where outcomes were asked for; at the end only when a test says so."""

    def __init__(self, bench: LoopBench) -> None:
        super().__init__()
        self.judged = bench.log.judged
        self.asked_from: list[int | None] = []
        self.ended = True

    def outcomes(self, since: Offsets | None) -> Batch[Outcome | LabelAgreement]:
        self.asked_from.append(None if since is None else since.get(SOURCE, 0))
        batch = super().outcomes(since)
        return Batch(batch.records, batch.read, lambda: self.ended)


@pytest.fixture
def bench() -> LoopBench:
    """Twenty seconds of history, then ten of a canary."""
    bench = LoopBench()
    first = bench.bootstrap()
    bench.judge({first: 0.2}, seconds=20)
    bench.ask("retrain", reason="a drill")
    second = bench.started()
    bench.propose(bench.claim(second))
    bench.tick(2)
    bench.judge({first: 0.2, second: 0.2}, seconds=30)
    return bench


def without_rollout(bench: LoopBench) -> LoopStatus:
    return msgspec.structs.replace(bench.status, rollout=None, candidate=None, outcomes={})


def test_without_a_champion_there_is_no_history_but_agreement_all_the_same(bench: LoopBench) -> None:
    said = bench.agree(0.62)
    nobody = msgspec.structs.replace(without_rollout(bench), champion=None)
    found = OutcomeFollower(Recording(bench)).follow(bench.resource, nobody)
    assert (found.history.outcomes, found.evidence, found.agreement) == (0, None, said)


def test_of_the_words_on_agreement_the_newest_counts(bench: LoopBench) -> None:
    follower, log = OutcomeFollower(Recording(bench)), bench.log
    first = bench.agree(0.9)
    assert follower.follow(bench.resource, bench.status).agreement == first
    bench.clock.advance(300)
    second = bench.agree(0.6)
    log.judged.append(first)  # told again by a worker that started anew
    assert follower.follow(bench.resource, bench.status).agreement == second


def test_before_a_rollout_the_recent_history_is_read_once(bench: LoopBench) -> None:
    log = Recording(bench)
    follower = OutcomeFollower(log)
    for _ in range(3):
        found = follower.follow(bench.resource, without_rollout(bench))
    assert log.asked_from == [None, len(log.judged), len(log.judged)]
    assert found.history.outcomes > 400
    assert found.evidence is None


def test_after_a_restart_a_rollouts_outcomes_are_read_from_where_it_began(bench: LoopBench) -> None:
    log = Recording(bench)
    found = OutcomeFollower(log).follow(bench.resource, bench.status)
    assert log.asked_from == [400]
    assert bench.status.outcomes == {SOURCE: 400}
    assert found.evidence is not None
    assert found.evidence.champion.judged > 0


def test_evidence_is_told_only_once_the_end_was_reached(bench: LoopBench) -> None:
    log = Recording(bench)
    log.ended = False
    follower = OutcomeFollower(log)
    assert follower.follow(bench.resource, bench.status).evidence is None
    log.ended = True
    assert follower.follow(bench.resource, bench.status).evidence is not None


def test_a_restart_gives_the_same_evidence(bench: LoopBench) -> None:
    follower = bench.loop._outcomes
    before = follower.follow(bench.resource, bench.status).evidence
    after = OutcomeFollower(bench.log).follow(bench.resource, bench.status).evidence
    assert before == after
    assert before is not None
    assert before.blocks > 0


def test_a_new_champion_has_its_own_history(bench: LoopBench) -> None:
    log = Recording(bench)
    follower = OutcomeFollower(log)
    old = follower.follow(bench.resource, without_rollout(bench)).history.outcomes
    candidate = bench.status.candidate
    promoted = msgspec.structs.replace(without_rollout(bench), champion=candidate)
    new = follower.follow(bench.resource, promoted).history.outcomes
    assert 0 < new < old
