"""The drivers of a cluster where things go wrong: crashes between any two calls, other people's edits, any order."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.world import World

from tidemill.cluster import Kind
from tidemill.core.errors import Conflict, InvalidInput, Unavailable, Unsupported
from tidemill.rollout.driver import RevisionWanted, Sticky, TrafficWanted
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import HTTP_ROUTE, Gateway
from tidemill.rollout.kserve import INFERENCE_SERVICE, name_of, version_of
from tidemill.testing.loop import example_resource
from tidemill.testing.traffic import wanted_shares

PROMOTED = ({"v1": 100}, {"v1": 75, "v2": 25}, {"v1": 0, "v2": 100}, {"v2": 100})
ROLLED_BACK = ({"v1": 100}, {"v1": 75, "v2": 25}, {"v1": 100, "v2": 0}, {"v1": 100})


@pytest.fixture(params=["gateway", "knative"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str) -> World:
    return World(kind)


class End(NamedTuple):
    shares: dict[str, int]
    spec: Any
    objects: set[str]


def _after(world: World, steps: Sequence[dict[str, int]]) -> End:
    world.servers.become_ready("v1")
    world.servers.become_ready("v2")
    for shares in steps:
        world.ask(shares)
    found = world.objects()
    names = {name for name in found if not name.startswith("Revision")}
    spec = {name: one["spec"] for name, one in found.items() if name.startswith(("Inference", "HTTPRoute"))}
    return End(world.shares(), spec, names)


@pytest.mark.parametrize("steps", [PROMOTED, (*ROLLED_BACK, {})], ids=["promoted", "withdrawn"])
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_driver_that_dies_after_any_call_ends_where_it_would_have_ended(
    kind: str, steps: Sequence[dict[str, int]], every: int
) -> None:
    without = World(kind)
    end = _after(without, steps)
    assert end.shares == steps[-1]
    calls = -without.fuse[0]
    for number in range(1, calls + 1, every):
        world = World(kind)
        world.fuse[0] = number
        assert _after(world, steps) == end, f"it died after call {number}"


def test_asking_again_writes_nothing(world: World) -> None:
    for shares in ROLLED_BACK:
        _after(world, [shares])
        before, calls = world.objects(), len(world.cluster.calls)
        for _ in range(3):
            world.apply(shares)
        assert world.objects() == before
        assert {verb for verb, _ in world.cluster.calls[calls:]} <= {"get", "list"}


def test_what_is_withdrawn_leaves_nothing(world: World) -> None:
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}, {}])
    assert world.objects() == {}


def test_a_foreign_edit_is_reported_and_left(world: World) -> None:
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.edit({"v1": 40, "v2": 60})
    seen = world.ask({"v1": 75, "v2": 25})
    assert world.shares() == {"v1": 40, "v2": 60}
    assert seen.foreign is not None
    assert "was edited" in seen.foreign


def test_an_edit_that_is_taken_back_is_forgotten(world: World) -> None:
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.edit({"v1": 40, "v2": 60})
    world.ask({"v1": 75, "v2": 25})
    world.edit({"v1": 75, "v2": 25})
    assert world.ask({"v1": 75, "v2": 25}).foreign is None
    world.ask({"v1": 50, "v2": 50})
    assert world.shares() == {"v1": 50, "v2": 50}


def test_the_next_decision_is_obeyed_in_spite_of_an_edit(world: World) -> None:
    """An abort ends with all requests at the champion, whoever turned which weight before; also after a restart."""
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.edit({"v1": 0, "v2": 100} if world.kind == "gateway" else {"v1": 40, "v2": 60})
    world.ask({"v1": 75, "v2": 25})
    world.restart()
    seen = world.ask({"v1": 100, "v2": 0})
    assert world.shares() == {"v1": 100, "v2": 0}
    assert seen.foreign is None


def test_shares_that_kserve_would_take_for_granted_are_refused() -> None:
    world = World("knative")
    for shares in ({"v1": 101, "v2": -1}, {"v1": 50, "v2": 40}):
        with pytest.raises(InvalidInput, match="add up to 100"):
            world.driver.apply(wanted_shares(shares))
    with pytest.raises(Unsupported, match="two versions"):
        world.driver.apply(wanted_shares({"v1": 50, "v2": 25, "v3": 25}))
    assert world.objects() == {}


def test_a_split_counts_once_its_gateway_has_taken_it_on() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.gateway.sleeps = True
    world.ask({"v1": 50, "v2": 50})
    assert world.shares() == {"v1": 0, "v2": 0}
    world.gateway.sleeps = False
    world.play()
    assert world.shares() == {"v1": 50, "v2": 50}


def test_a_version_serves_on_until_its_gateway_knows_that_it_is_out() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.gateway.sleeps = True
    world.ask({"v1": 100})
    assert {version_of(one) for one in world.cluster.list(INFERENCE_SERVICE)} == {"v1", "v2"}
    world.gateway.sleeps = False
    world.ask({"v1": 100})
    assert {version_of(one) for one in world.cluster.list(INFERENCE_SERVICE)} == {"v1"}


def test_after_a_rollback_the_stored_spec_names_the_good_model_again() -> None:
    world = World("knative")
    _after(world, ROLLED_BACK)
    (found,) = world.cluster.list(INFERENCE_SERVICE)
    assert found["spec"]["predictor"]["model"]["storageUri"] == "s3://models/v1"
    assert "canaryTrafficPercent" not in found["spec"]["predictor"]


@pytest.mark.parametrize("rounds", [0, 5])
def test_the_good_model_is_named_again_without_a_request_to_the_bad_one(rounds: int) -> None:
    """Its new revision takes a while, KServe is slow to tell of it, and the bad one is the newest that is ready."""
    world = World("knative")
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    world.ask({"v1": 100, "v2": 0})
    world.servers.become_unready("v1")
    for number in range(20):
        if number == rounds:
            world.servers.become_ready("v1")
        for _ in range(3):
            world.apply({"v1": 100})
        for player in world.players:
            player.play()
            assert world.shares().get("v2", 0) == 0
    assert world.shares() == {"v1": 100}


def test_a_share_is_not_even_sent_before_the_revision_of_its_version_is_ready() -> None:
    world = World("knative")
    _after(world, [{"v1": 100}])
    world.servers.become_unready("v2")
    for _ in range(4):
        world.apply({"v1": 75, "v2": 25})
        world.play()
        (found,) = world.cluster.list(INFERENCE_SERVICE)
        assert found["spec"]["predictor"]["canaryTrafficPercent"] == 0
        world.apply({"v1": 75, "v2": 25})
    world.servers.become_ready("v2")
    world.ask({"v1": 75, "v2": 25})
    assert world.shares() == {"v1": 75, "v2": 25}


def test_the_old_version_is_not_ended_while_the_new_one_is_not_ready() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}])
    world.servers.become_unready("v2")
    world.ask({"v2": 100}, times=12)
    assert world.shares() == {"v1": 100, "v2": 0}


def test_a_copy_is_sent_once_its_version_is_ready_and_ends_with_the_wish() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}])
    world.servers.become_unready("v2")
    shadow = TrafficWanted(wanted_shares({"v1": 100, "v2": 0}).revisions, mirror="v2")
    for ready in (False, True):
        if ready:
            world.servers.become_ready("v2")
        for _ in range(3):
            world.driver.apply(shadow)
            world.play()
        assert world.observe().mirror == ("v2" if ready else None)
        assert world.shares() == {"v1": 100, "v2": 0}
    assert world.ask({"v1": 100, "v2": 0}).mirror is None


def test_cohorts_are_sticky_where_a_header_says_the_bucket_and_refused_where_none_does() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}, {"v1": 75, "v2": 25}])
    sticky = Sticky(header="x-user", salt="v2-1", first="v2")
    wanted = TrafficWanted(wanted_shares({"v1": 75, "v2": 25}).revisions, sticky=sticky)
    assert not world.driver.sticky
    with pytest.raises(Unsupported, match="no bucket_header is set"):
        world.driver.apply(wanted)
    driver = GatewayTrafficDriver(
        world.cluster,
        resource=example_resource(),
        gateway=Gateway("gateways", "public"),
        clock=world.clock,
        bucket_header="x-bucket",
    )
    assert driver.sticky
    driver.apply(wanted)
    world.play()
    assert world.shares() == {"v1": 75, "v2": 25}
    (route,) = world.cluster.list(HTTP_ROUTE)
    assert [one["matches"][0].get("headers", [{}])[0].get("name") for one in route["spec"]["rules"]] == [
        "x-bucket",
        "x-bucket",
        None,
    ]


@pytest.mark.parametrize("kind_of", [INFERENCE_SERVICE, HTTP_ROUTE])
def test_an_object_of_someone_else_is_not_taken_over(kind_of: Kind) -> None:
    world = World("gateway")
    name = "phone-inspection-v1" if kind_of == INFERENCE_SERVICE else "phone-inspection-tidemill"
    theirs = {"apiVersion": kind_of.api_version, "kind": kind_of.kind, "spec": {}}
    world.cluster.as_manager("theirs").apply(theirs | {"metadata": {"name": name, "namespace": "default"}}, kind_of)
    with pytest.raises(Conflict, match="belongs to someone else"):
        world.driver.apply(wanted_shares({"v1": 100}))
    found = world.cluster.get(kind_of, "default", name)
    assert found is not None
    assert found["spec"] == {}


def test_a_version_that_is_refused_does_not_keep_the_others_from_their_shares() -> None:
    world = World("gateway")
    _after(world, [{"v1": 100}])
    revisions = (*wanted_shares({"v1": 100}).revisions, RevisionWanted(version="v2", artifact="/a/folder", share=0))
    with pytest.raises(Unsupported, match="KServe cannot fetch /a/folder"):
        world.driver.apply(TrafficWanted(revisions))
    assert world.shares() == {"v1": 100}


def test_an_api_server_that_does_not_answer_is_said(world: World) -> None:
    for call in (world.driver.observe, lambda: world.driver.apply(wanted_shares({"v1": 100}))):
        world.cluster.fail.append(Unavailable("too many requests"))
        with pytest.raises(Unavailable, match="too many requests"):
            call()


def test_names_are_labels_of_dns_and_tell_long_ones_apart() -> None:
    assert name_of("phone-inspection", "r20300101-120000") == "phone-inspection-r20300101-120000"
    long = [name_of("m" * 60, f"r20300101-12000{second}") for second in range(10)]
    assert len(set(long)) == 10
    assert {len(name) for name in long} == {48}


VERSIONS = ("v1", "v2", "v3")
EVENTS = st.one_of(
    st.tuples(st.just("want"), st.sampled_from(VERSIONS), st.sampled_from(VERSIONS), st.sampled_from([0, 5, 50, 100])),
    st.tuples(st.sampled_from(["ready", "unready"]), st.sampled_from(VERSIONS)),
    st.tuples(st.just("crash"), st.integers(1, 6)),
    st.tuples(st.just("edit"), st.sampled_from([0, 30, 100])),
    st.tuples(st.sampled_from(["tick", "gateway sleeps", "gateway wakes"])),
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["gateway", "knative"]), st.lists(EVENTS, max_size=30))
def test_in_any_order_traffic_ends_where_the_last_decision_wants_it(kind: str, events: list[tuple[Any, ...]]) -> None:
    """Whatever came before; and a version that was never wanted with a share has had none, but by an edit."""
    world, shares, allowed = World(kind), {"v1": 100}, {"v1"}
    for event in events:
        name, *given_ = event
        if name == "want":
            first, second, share = given_
            shares = {first: 100} if first == second else {first: 100 - share, second: share}
            allowed |= {version for version, share in shares.items() if share}
        elif name in {"ready", "unready"}:
            (world.servers.become_ready if name == "ready" else world.servers.become_unready)(given_[0])
        elif name == "crash":
            world.fuse[0] = given_[0]
        elif name.startswith("gateway"):
            world.gateway.sleeps = name == "gateway sleeps"
        elif name == "edit" and len(shares) == 2 and world.shares() == shares:
            world.edit(dict(zip(shares, (100 - given_[0], given_[0]), strict=True)))
            allowed |= shares.keys()
        world.apply(shares)
        world.play()
        assert {version for version, share in world.shares().items() if share} <= allowed
    world.gateway.sleeps, world.fuse[0] = False, 0
    for version in VERSIONS:
        world.servers.become_ready(version)
    world.ask({"v1": 90, "v2": 10}, times=20)
    world.ask({"v3": 100}, times=20)
    assert world.shares() == {"v3": 100}
    world.ask({}, times=20)
    assert world.objects() == {}
