"""The rollout over a driver of a cluster: crashes, other people's edits, slow gateways, any evidence."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.world import World

from tidemill.core.clock import from_ms
from tidemill.core.errors import Conflict
from tidemill.rollout.driver import TrafficSeen
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.machine import Observation, Version, advance, asked, start
from tidemill.rollout.state import decided
from tidemill.testing.rollout import evidence_for, example_plan

EVENTS = st.one_of(
    st.sampled_from(["tick", "go on", "promote", "roll back", "hold"]),
    st.sampled_from(["v2 ready", "v2 unready", "v2 fails", "gateway sleeps", "gateway wakes"]),
    st.sampled_from(["abort", "pause", "resume", "promote by hand"]),
    st.tuples(st.just("edit"), st.sampled_from([0, 30, 100])),
    st.tuples(st.just("crash"), st.integers(1, 8)),
)
PLAN = example_plan(candidate=Version("v2", "s3://models/v2"), champion=Version("v1", "s3://models/v1"))


class Rollout:
    """A rollout over a cluster in memory, one tick after another."""

    def __init__(self, kind: str) -> None:
        self.world, self.now_ms = World(kind), PLAN.started_at
        self.world.servers.become_ready("v1")
        self.world.ask({"v1": 100})
        self.state, _ = start(PLAN)

    def happen(self, event: str | tuple[str, int]) -> None:
        world, name = self.world, event if isinstance(event, str) else event[0]
        number = 0 if isinstance(event, str) else event[1]
        changes: dict[str, Any] = {
            "v2 ready": lambda: world.servers.become_ready("v2"),
            "v2 unready": lambda: world.servers.become_unready("v2"),
            "v2 fails": lambda: world.servers.fail("v2", "it ended"),
            "gateway sleeps": lambda: setattr(world.gateway, "sleeps", True),
            "gateway wakes": lambda: setattr(world.gateway, "sleeps", False),
            "edit": lambda: self.edit(number),
            "crash": lambda: world.fuse.__setitem__(0, number),
        }
        for kind in ("abort", "pause", "resume", "promote by hand"):
            changes[kind] = lambda kind=kind: self.ask(kind)
        changes.get(name, lambda: None)()
        self.tick(name)

    def ask(self, kind: str) -> None:
        name: Any = "promote" if kind == "promote by hand" else kind
        try:
            self.state, _ = asked(self.state, name, by="ada", reason="", now=from_ms(self.now_ms))
        except Conflict:
            return

    def edit(self, share: int) -> None:
        """Turn a weight; one that is turned after the rollback was decided is a later word, and stands."""
        if self.state.phase in {"rolling-back", "done"}:
            return
        if self.world.kind == "gateway" and not self.world.cluster.list(HTTP_ROUTE):
            return
        self.world.edit({"v1": 100 - share, "v2": share})

    def tick(self, evidence: str = "") -> TrafficSeen:
        self.now_ms += 1000
        seen = self.world.observe()
        found = evidence_for(PLAN, evidence, self.state.step)
        self.state, _ = advance(self.state, Observation(traffic=seen, evidence=found), from_ms(self.now_ms))
        self.world.apply(decided(self.state))
        self.world.play()
        return seen


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["gateway", "knative"]), st.lists(EVENTS, max_size=25), st.integers(0, 100))
def test_an_abort_ends_with_all_requests_at_the_champion(kind: str, events: list[Any], share: int) -> None:
    """Whatever came before, and also where somebody has turned a weight just now."""
    rollout = Rollout(kind)
    for event in events:
        rollout.happen(event)
    rollout.edit(share)
    rollout.world.gateway.sleeps, rollout.world.fuse[0] = False, 0
    rollout.ask("abort")
    for _ in range(30):
        seen = rollout.tick()
    if rollout.state.result == "promoted":  # before the abort
        assert rollout.state.phase == "done"
        return
    assert (rollout.state.phase, rollout.state.result) == ("done", "rolled back")
    assert [(one.version, one.share) for one in seen.revisions] == [("v1", 100)]
