"""The loop dies wherever it can, and comes to the same end."""

from collections.abc import Callable

import pytest

from tidemill.control.state import LoopStatus
from tidemill.core.errors import Conflict, Unavailable
from tidemill.testing.loop import LoopBench, example_resource

NEVER = 10**9


def promotion(bench: LoopBench) -> None:
    """From nothing to a second version that serves."""
    first = bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    bench.signal()
    bench.tick()
    second = bench.started()
    bench.propose(bench.claim(second))
    bench.tick(2)
    bench.judge({first: 0.4, second: 0.1}, seconds=2)
    bench.ask("promote", reason="seen enough")
    bench.tick(4)


def abortion(bench: LoopBench) -> None:
    """A run that fails, and one whose candidate is taken back."""
    bench.bootstrap()
    answer = bench.ask("retrain", reason="a drill")
    grant = bench.claim(answer.subject)
    bench.ask("failed", run=grant.subject, token=grant.figures["token"], step="train", error="no memory")
    second = bench.ask("retrain", reason="again").subject
    bench.propose(bench.claim(second))
    bench.tick(2)
    bench.ask("abort", reason="enough")
    bench.tick(4)


def end(bench: LoopBench) -> dict[str, object]:
    """All that a story comes to, except for the times: a process that starts anew is a little earlier or later."""
    status = bench.status
    places = (status.champion, status.candidate, status.previous)
    return {
        "phase": status.phase,
        "versions": [found and (found.version, found.artifact) for found in places],
        "run": status.run,
        "rollout": status.rollout,
        "traffic": status.traffic.revisions,
        "drift": status.drift,
        "answered": status.answered,
        "decided": [(one.kind, one.subject, one.answers) for one in bench.log.decisions()],
        "kept": [(one.kind, one.subject) for one in status.decisions],
        "shares": sorted((one.version, one.share) for one in bench.driver.observe().revisions),
        "aliases": bench.registry.aliases(bench.resource.id),
        "started": list(bench.runner.started),
        "shown": list(bench.runner.observe()),
    }


def effects(story: Callable[[LoopBench], None]) -> int:
    bench = LoopBench()
    bench.fuse[0] = NEVER
    story(bench)
    return NEVER - bench.fuse[0]


@pytest.mark.parametrize("story", [promotion, abortion])
def test_a_crash_after_any_effect_changes_nothing_in_the_end(story: Callable[[LoopBench], None]) -> None:
    undisturbed = LoopBench()
    story(undisturbed)
    count = effects(story)
    assert count > 40
    for at in range(1, count + 1):
        bench = LoopBench()
        bench.fuse[0] = at
        story(bench)
        assert bench.fuse[0] <= 0, "the process did not die at all"
        assert end(bench) == end(undisturbed), f"after a crash at effect {at} of {count}"


def test_a_restart_before_every_tick_changes_nothing_in_the_end() -> None:
    class Forgetful(LoopBench):
        def tick(self, times: int = 1, *, every_s: float = 0.25) -> LoopStatus:
            for _ in range(times):
                self.restart()
                status = super().tick(every_s=every_s)
            return status

    undisturbed, forgetful = LoopBench(), Forgetful()
    for bench in (undisturbed, forgetful):
        promotion(bench)
    assert end(forgetful) == end(undisturbed)


def test_decisions_that_may_not_have_been_written_are_written_again_under_the_same_ids() -> None:
    bench = LoopBench()
    bench.labelled = 1000
    bench.log.unavailable = False
    publish, bench.log.publish = bench.log.publish, lambda decisions: (_ for _ in ()).throw(Unavailable("no broker"))  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        bench.tick()
    assert bench.runner.started == {}, "nothing is done before its decision is in the log"
    bench.log.publish = publish  # type: ignore[method-assign]
    bench.restart()
    bench.tick()
    assert bench.kinds() == ["start-run"]
    assert list(bench.runner.started) == [bench.started()]


def test_without_the_log_nothing_is_decided() -> None:
    bench = LoopBench()
    bench.bootstrap()
    writes = bench.store.writes
    bench.log.unavailable = True
    with pytest.raises(Unavailable):
        bench.tick()
    assert bench.store.writes == writes


def test_a_status_that_someone_else_wrote_meanwhile_is_not_overwritten() -> None:
    bench = LoopBench()
    bench.bootstrap()
    bench.write("retrain", reason="a drill")
    observe = bench.driver.observe

    def meanwhile() -> object:
        bench.declare(example_resource(paused=True))
        bench.driver.observe = observe  # type: ignore[method-assign]
        return observe()

    bench.driver.observe = meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict):
        bench.tick()
    assert bench.status.run is None
    assert bench.tick().run is None
    assert bench.kinds()[-1] == "refuse"  # decided anew, on what is declared now


def test_one_effect_that_fails_does_not_keep_the_others_waiting() -> None:
    bench = LoopBench()
    bench.labelled = 1000
    set_alias = bench.registry.set_alias
    bench.registry.set_alias = lambda *_: (_ for _ in ()).throw(Unavailable("no registry"))  # type: ignore[method-assign]
    bench.tick()
    bench.propose(bench.claim(bench.started()))
    status = bench.tick(6)
    assert status.phase == "Serving"
    assert bench.registry.aliases(bench.resource.id) == {}
    bench.registry.set_alias = set_alias  # type: ignore[method-assign]
    bench.tick(2)
    assert list(bench.registry.aliases(bench.resource.id)) == ["champion"]
