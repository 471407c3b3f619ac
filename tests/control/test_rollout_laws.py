"""Laws of a rollout in its loop: how an abort and a revert end, whatever else happens, edits by strangers included."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.rollout.driver import RevisionWanted, Sticky, TrafficWanted
from tidemill.testing.loop import LoopBench, example_resource

WEIGHTS = {0, 5, 25, 50, 100}
COPIED = {"analysis": {"margin": 0.1, "minOutcomes": 20, "timeout": "1h"}, "shadow": True}
KEYED = {"analysis": {"margin": 0.1, "minOutcomes": 20, "timeout": "1h"}, "cohorts": {"key": "x-user"}}


def interfere(bench: LoopBench) -> None:
    """Somebody gives all traffic to the last version that there is, by no key."""
    names = [one.version for one in bench.driver.observe().revisions]
    shares = [0] * (len(names) - 1) + [100] if names else []
    bench.driver.apply(
        TrafficWanted(
            tuple(
                RevisionWanted(version=name, artifact=f"/artifacts/{name}", share=share)
                for name, share in zip(names, shares, strict=True)
            )
        )
    )


def outcomes(error: float) -> Callable[[LoopBench], object]:
    """The version that was there first errs in 0.3 of its answers, the other in this share."""

    def judge(bench: LoopBench) -> None:
        names = [one.version for one in bench.driver.observe().revisions]
        bench.judge(dict(zip(names, (0.3, error), strict=False)), seconds=5)

    return judge


def lose_status(bench: LoopBench) -> None:
    bench.store.lose_status(bench.resource.id)
    bench.restart()


def change(ready: bool) -> Callable[[LoopBench], object]:
    def turn(bench: LoopBench) -> None:
        for one in bench.driver.observe().revisions[-1:]:
            (bench.driver.become_ready if ready else bench.driver.become_unready)(one.version)

    return turn


EVENTS: dict[str, Callable[[LoopBench], object]] = {
    "a stranger's edit": interfere,
    "better outcomes": outcomes(0.1),
    "worse outcomes": outcomes(0.9),
    "like outcomes": outcomes(0.3),
    "crash soon": lambda bench: bench.fuse.__setitem__(0, 2),
    "lose the status": lose_status,
    "restart": LoopBench.restart,
    "unready": change(False),
    "ready": change(True),
    "pause": lambda bench: bench.write("pause"),
    "resume": lambda bench: bench.write("resume"),
    "promote": lambda bench: bench.write("promote"),
    "drift": lambda bench: bench.signal(),
    "some seconds": lambda bench: bench.clock.advance(5),
}
some_events = st.lists(st.sampled_from(sorted(EVENTS)), max_size=12)


def serving(*, keyed: bool, shadow: bool = False) -> LoopBench:
    bench = LoopBench(example_resource(rollout=KEYED if keyed else COPIED) if keyed or shadow else None)
    bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    return bench


def in_canary(*, keyed: bool, shadow: bool = False) -> LoopBench:
    bench = serving(keyed=keyed, shadow=shadow)
    bench.ask("retrain", reason="a drill")
    bench.propose(bench.claim(bench.started()))
    bench.tick(2)
    return bench


def happen(bench: LoopBench, names: list[str]) -> None:
    for name in names:
        EVENTS[name](bench)
        status = bench.tick(2)
        assert status.run is None or status.rollout is None, "a run beside a rollout"
        rollout = status.rollout
        if rollout is None:
            assert status.traffic.sticky is None
            continue
        assert rollout.weight in WEIGHTS
        assert status.traffic.mirror is None or (rollout.weight, rollout.phase) == (0, "shadowing")
        plan, champion = rollout.plan, status.champion
        keyed = plan.keyed and champion is not None
        salted = Sticky(header="x-user", salt=plan.rollout, first=plan.candidate.name) if keyed else None
        assert status.traffic.sticky in {salted, None}


def settle(bench: LoopBench) -> dict[str, int]:
    """Everything can serve, and the rollout comes to its end; returns the shares then."""
    bench.fuse[0] = 0
    for _ in range(40):
        for one in bench.driver.observe().revisions:
            bench.driver.become_ready(one.version)
        if bench.tick().rollout is None:
            break
    bench.tick(2)
    return {one.version: one.share for one in bench.driver.observe().revisions}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_events, st.sampled_from(["request", "key", "copies"]))
def test_an_abort_ends_with_all_traffic_on_the_champion(names: list[str], kind: str) -> None:
    bench = in_canary(keyed=kind == "key", shadow=kind == "copies")
    happen(bench, names)
    champion = bench.status.champion
    assert champion is not None
    if bench.ask("abort", reason="enough").kind == "roll-back":
        assert settle(bench) == {champion.version: 100}
        assert bench.status.champion == champion
        assert bench.status.traffic.mirror is None


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_events)
def test_a_revert_ends_with_all_traffic_on_the_version_before(names: list[str]) -> None:
    bench = in_canary(keyed=False)
    bench.ask("promote", reason="seen enough")
    settle(bench)
    happen(bench, [name for name in names if name != "promote"])
    settle(bench)
    before = bench.status.previous
    answer = bench.ask("revert", reason="customers complain")
    assert (answer.kind == "revert") == (before is not None)
    if before is not None:
        assert settle(bench) == {before.version: 100}
        assert bench.status.champion is not None
        assert bench.status.champion.version == before.version
        assert bench.status.previous is None
