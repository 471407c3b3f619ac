"""Laws of the rollout over random surroundings: crashes, slow proxies, failing servers, people, any evidence."""

import itertools
import random
from datetime import timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import Conflict
from tidemill.events.records import Outcome
from tidemill.rollout.cells import Evidence, Fold
from tidemill.rollout.driver import RevisionWanted, TrafficWanted
from tidemill.rollout.machine import Move, Observation, RolloutPlan, RolloutState, advance, asked, start, wanted
from tidemill.testing.rollout import evidence_for, example_plan, outcomes_of
from tidemill.testing.traffic import MemoryTrafficDriver

EVENTS = (
    *("tick", "tick", "settle", "settle", "go on", "go on", "promote", "roll back", "hold"),
    *("copied", "ready", "unready", "fail", "errors", "champion unready", "champion ready"),
    *("abort", "pause", "resume", "by hand", "approve", "crash", "much later", "slow"),
)


class World:
    """A rollout in which anything may happen between two ticks."""

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan, self.now = plan, from_ms(plan.started_at)
        self.traffic = MemoryTrafficDriver(slow=True)
        assert plan.champion is not None
        self.traffic.apply(TrafficWanted((RevisionWanted(version="v1", artifact="/artifacts/v1", share=100),)))
        self.traffic.become_ready("v1")
        self.traffic.settle()
        self.state, _ = start(plan)
        self.wishes = [wanted(self.state)]
        self.traffic.apply(self.wishes[-1])

    def happen(self, event: str) -> None:
        known = {one.version for one in self.traffic.observe().revisions}
        servers = {
            "ready": ("v2", True),
            "unready": ("v2", False),
            "champion unready": ("v1", False),
            "champion ready": ("v1", True),
        }
        if event in servers and servers[event][0] in known:
            name, ready = servers[event]
            (self.traffic.become_ready if ready else self.traffic.become_unready)(name)
        elif event == "fail" and "v2" in known:
            self.traffic.fail("v2", "it ended")
        elif event == "errors" and "v2" in known:
            self.traffic.answered("v2", requests=20, errors=6)
        elif event == "settle":
            self.traffic.settle()
        elif event == "crash":
            self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=RolloutState)
        elif event == "much later":
            self.now += timedelta(hours=1)
        elif event == "slow" and "v2" in known:
            self.traffic.slow("v2", 5_000.0)
        elif event == "copied":  # the candidate is ready, and the proxy makes what copies are wanted
            self.happen("ready")
            self.happen("settle")
        elif event in {"abort", "pause", "resume", "by hand", "approve"}:
            kind = "promote" if event == "by hand" else event
            try:
                self.state, _ = asked(self.state, kind, by="ada", reason="", now=self.now)  # type: ignore[arg-type]
            except Conflict:
                return
        self.tick(event)

    def tick(self, event: str = "") -> tuple[Move, ...]:
        self.now += timedelta(seconds=1)
        seen = Observation(traffic=self.traffic.observe(), evidence=evidence_for(self.plan, event, self.state.step))
        self.state, moves = advance(self.state, seen, self.now)
        self.wishes.append(wanted(self.state))
        self.traffic.apply(self.wishes[-1])
        return moves

    @property
    def shares(self) -> list[int]:
        return [next((one.share for one in wish.revisions if one.version == "v2"), 0) for wish in self.wishes]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=60), st.booleans(), st.booleans())
def test_weights_never_jump(events: list[str], approval: bool, shadow: bool) -> None:
    """A share is one of the plan's or 0; it rises one step at a time, or to 100; once back at 0 it stays there."""
    world = World(example_plan(approval=approval, shadow=shadow, latency_guard_ms=100.0))
    for event in events:
        world.happen(event)
        ladder = (0, *world.plan.weights)
        shares = world.shares
        assert set(shares) <= set(ladder)
        for before, after in itertools.pairwise(shares):
            one_up = ladder[min(ladder.index(before) + 1, len(ladder) - 1)]
            assert after in {before, one_up, 100, 0}
            assert not (before == 0 and after == 100)
        if 0 in shares[next((i for i, share in enumerate(shares) if share), len(shares)) :]:
            first_back = next(i for i in range(1, len(shares)) if shares[i] == 0 and shares[i - 1] > 0)
            assert not any(shares[first_back:])
        for wish in world.wishes:
            assert sum(one.share for one in wish.revisions) == 100


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=40), st.booleans())
def test_nothing_is_served_by_a_candidate_that_nobody_approved(events: list[str], shadow: bool) -> None:
    world = World(example_plan(approval=True, shadow=shadow))
    for event in [one for one in events if one != "approve"]:
        world.happen(event)
    assert not any(world.shares)
    assert not any(wish.mirror for wish in world.wishes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_whoever_gets_copies_answers_no_user_and_nobody_gets_any_after_the_first_share(events: list[str]) -> None:
    """Nor does the candidate have a share before copies of requests were seen to reach it."""
    world = World(example_plan(shadow=True))
    for event in events:
        world.happen(event)
    for share, wish in zip(world.shares, world.wishes, strict=True):
        assert wish.mirror in {None, "v2"}
        assert wish.mirror is None or share == 0
    copied = [wish.mirror is not None for wish in world.wishes]
    ended = (
        copied.index(True) + copied[copied.index(True) :].index(False) if True in copied and not copied[-1] else None
    )
    assert ended is None or not any(copied[ended:])
    if any(world.shares):
        assert world.shares.index(next(filter(None, world.shares))) == ended


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=40), st.booleans())
def test_a_rolled_back_candidate_has_no_traffic_and_no_server_in_the_end(events: list[str], shadow: bool) -> None:
    world = World(example_plan(shadow=shadow))
    for event in [*events, "champion ready", "settle"]:
        world.happen(event)
    if world.state.phase == "rolling-back" or world.state.result == "rolled back":
        for _ in range(4):
            world.happen("settle")
        assert world.state.phase == "done"
        assert [(one.version, one.share) for one in world.traffic.observe().revisions] == [("v1", 100)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=30), st.booleans())
def test_advancing_again_over_the_same_observation_ends_in_the_same_state(events: list[str], shadow: bool) -> None:
    """Level-triggered: after a few calls nothing more is decided until something else is seen."""
    world = World(example_plan(shadow=shadow))
    for event in events:
        world.happen(event)
    seen = Observation(traffic=world.traffic.observe(), evidence=Evidence.none(world.plan))
    state = world.state
    for _ in range(4):
        state, _ = advance(state, seen, world.now)
    again, moves = advance(state, seen, world.now)
    assert (again, moves) == (state, ())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 60), max_size=6))
def test_a_control_process_that_loses_its_fold_decides_the_same(seed: int, crashes: set[int]) -> None:
    """Outcomes are read again from the start offsets: same moves, same reasons, same figures."""
    assert _decided(seed, set()) == _decided(seed, crashes)


def _decided(seed: int, crashes: set[int]) -> list[tuple[str, str]]:
    plan = example_plan(margin=0.1, weights=(25, 50, 100), min_outcomes=20)
    world, rng, fold = World(plan), random.Random(seed), Fold(plan)
    world.traffic._slow = False
    world.traffic.become_ready("v2")
    log: list[Outcome] = []
    told: list[tuple[str, str]] = []
    read = 0
    for second in range(60):
        share = next((one.share for one in world.traffic.observe().revisions if one.version == "v2"), 0)
        now_ms = to_ms(world.now)
        log += outcomes_of(
            rng, weight=share, candidate=lambda _: 0.1, champion=lambda _: 0.25, since_ms=now_ms, seconds=1.0
        )
        if second in crashes:
            fold, read = Fold(plan), 0
            world.state = msgspec.json.decode(msgspec.json.encode(world.state), type=RolloutState)
        for outcome in log[read:]:
            if outcome.eligible_at <= now_ms:
                fold.add(0, outcome)
                read += 1
        seen = Observation(traffic=world.traffic.observe(), evidence=fold.evidence(world.state.spans))
        world.now += timedelta(seconds=1)
        world.state, moves = advance(world.state, seen, world.now)
        world.traffic.apply(wanted(world.state))
        told += [(move.kind, move.reason) for move in moves]
    assert world.state.result is not None
    return told
