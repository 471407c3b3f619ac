"""A rollout with copies in its loop: proposed, judged on copies, promoted; and what a loop does that dies in it."""

import pytest

from tidemill.testing.loop import LoopBench, example_resource

ROLLOUT = {"analysis": {"margin": 0.1, "minOutcomes": 20, "timeout": "1h"}, "shadow": True}


def shadowing(margin: float = 0.1) -> LoopBench:
    analysis = {"margin": margin, "minOutcomes": 20, "timeout": "1h"}
    bench = LoopBench(example_resource(rollout=ROLLOUT | {"analysis": analysis}))
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    bench.ask("retrain", reason="a drill")
    bench.propose(bench.claim(bench.started()))
    bench.tick(2)
    return bench


def errors(bench: LoopBench, candidate: float) -> dict[str, float]:
    names = [one.version for one in bench.driver.observe().revisions]
    return dict(zip(names, (0.3, candidate), strict=True))


def test_a_good_candidate_answers_copies_then_few_users_then_all() -> None:
    bench = shadowing()
    assert bench.status.phase == "Shadowing"
    assert bench.status.traffic.mirror == bench.status.rollout.plan.candidate.name  # type: ignore[union-attr]
    told = errors(bench, 0.1)
    bench.judged_until(lambda status: status.phase == "Canary", told)
    copied = len(bench.log.copied)
    bench.judged_until(lambda status: status.phase == "Watching", told)
    assert len(bench.log.copied) == copied, "a copy was made while users got its answers"
    kinds = bench.kinds()
    assert kinds.index("shadow") < kinds.index("shadow-began") < kinds.index("step-began") < kinds.index("watch-began")
    watching = bench.status.watching
    assert watching is not None
    assert all(span.weight for span in watching.spans)


def test_a_bad_candidate_answers_no_user() -> None:
    bench = shadowing()
    champion = bench.status.champion
    bench.judged_until(lambda status: status.rollout is None, errors(bench, 0.8))
    assert bench.status.champion == champion
    shares = {
        one.share
        for wish in bench.driver.applied[2:]
        for one in wish.revisions
        if champion and one.version != champion.version
    }
    assert shares == {0}


@pytest.mark.parametrize("lost", [False, True])
def test_a_loop_that_dies_comes_to_the_same_evidence(lost: bool) -> None:
    bench = shadowing(margin=0.02)
    bench.judge(errors(bench, 0.3), seconds=40)
    before = bench.status.seen.rollout
    judged = before["copies_judged"]
    assert isinstance(judged, int)
    assert judged > 200
    if lost:
        bench.store.lose_status(bench.resource.id)
    bench.restart()
    bench.tick(4)
    status = bench.status
    assert status.phase == "Shadowing"
    assert status.traffic.mirror is not None
    assert status.seen.rollout == before


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "next"])
def test_where_the_driver_sends_no_copies_the_proposal_is_refused_with_the_way_out(is_first: bool) -> None:
    """The first version, too: its server would believe a header that nothing there takes off requests."""
    bench = LoopBench(example_resource(rollout=ROLLOUT))
    if not is_first:
        bench.bootstrap()
        bench.clock.advance(400)
    bench.driver.mirrors = False
    bench.tick()
    bench.ask("retrain", reason="a drill")
    answer = bench.propose(bench.claim(bench.started()))
    assert answer.kind == "refuse"
    assert answer.reason.startswith("rollout.shadow: the traffic driver here sends no copies of requests: leave it out")
    assert bench.status.rollout is None
