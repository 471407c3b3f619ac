"""Laws of the core, over lives that nobody would think of."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.alerts.life import HOUR, MINUTE, NOON, World, decision, mute, plan, route, signal

from tidemill.alerts.due import due
from tidemill.alerts.intake import Arrived, fold
from tidemill.alerts.notify import notify, open_alerts
from tidemill.alerts.state import GOOD_NEWS, ONCE, AlertsState

VERSIONS = ("r1", "r2", "r3")
DECISIONS = ("run-failed", "run-finished", "start-rollout", "roll-back", "rolled-back", "hold", "go-on")


@st.composite
def lives(draw: st.DrawFn) -> list[Arrived]:
    """Records in the order of the log, seconds to hours apart; each version is promoted at most once, in order."""
    at, serving, records = NOON, 0, list[Arrived]()
    for _ in range(draw(st.integers(1, 25))):
        at += draw(st.sampled_from([1000, 10_000, MINUTE, HOUR, 5 * HOUR]))
        what = draw(st.sampled_from(["drift", "concept", "state", "promote", *DECISIONS]))
        if what == "promote":
            if serving < len(VERSIONS):
                records.append(decision("promote", VERSIONS[serving], at))
                serving += 1
        elif what in DECISIONS:
            records.append(decision(what, draw(st.sampled_from(["r7", "r8"])), at))
        else:
            version = draw(st.sampled_from(VERSIONS[max(0, serving - 2) : max(1, serving)]))
            records.append(signal(draw(st.sampled_from(["a", "b"])), at, kind=what, version=version))
    return records


def open_after(records: list[Arrived], cuts: list[int]) -> set[str]:
    state = AlertsState()
    for first, last in zip([0, *cuts], [*cuts, len(records)], strict=True):
        state, _ = notify(state, records[first:last], plan(), NOON + first)
    return {alert.alert_id for alert in open_alerts(state)}


@given(lives(), st.data())
def test_any_order_any_repeats_and_any_batches_leave_the_same_alerts_open(
    records: list[Arrived], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations([*records, *data.draw(st.lists(st.sampled_from(records or [PLACE])))]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=5)))
    assert open_after(shuffled, cuts) == open_after(records, [])


PLACE = decision("promote", "r1", NOON)


def lived(records: list[Arrived], world: World, down: list[bool]) -> int:
    """Live through the records, step by step, with routes that are down now and then; returns when it ended."""
    now = NOON
    for number, one in enumerate(records):
        while now + 30 * MINUTE < one.at:
            now += 30 * MINUTE
            world.step(now)
        now = one.at
        world.down = {"oncall"} if down[number % len(down)] else set()
        world.step(now, one)
    world.down = set()
    for _ in range(30):
        now += HOUR
        world.step(now)
    return now


@given(lives(), st.lists(st.booleans(), min_size=1, max_size=6))
def test_nothing_is_told_twice_within_the_time_to_repeat_unless_it_was_over_between(
    records: list[Arrived], down: list[bool]
) -> None:
    world = World(plan())
    lived(records, world, down)
    alone = [fold(AlertsState(), [record]).alerts for record in records]
    openings = Counter((key, one.kind) for alerts in alone for key, one in alerts.items())
    once = {key for key, kind in openings if kind in ONCE}  # each time that it happens
    told, last = Counter[str](), dict[str, int]()
    for at, message in world.told:
        for key, over in message.said:
            if over:
                last.pop(key, None)
            else:
                told[key] += 1
                assert key in once or at - last.get(key, -10 * HOUR) >= world.plan.repeat_ms
                last[key] = at
    assert not [key for (key, _), most in openings.items() if key in once and told[key] > most]


@given(lives(), st.lists(st.booleans(), min_size=1, max_size=6))
def test_every_alert_that_opens_is_told_and_what_lasts_to_its_end(records: list[Arrived], down: list[bool]) -> None:
    world, opened, lasting = World(plan()), set[str](), set[str]()
    step = world.step

    def watched(now: int, *given: Arrived) -> list[object]:
        told = step(now, *given)
        opened.update(key for key, one in world.state.alerts.items() if one.opened and one.kind != GOOD_NEWS)
        lasting.update(key for key, one in world.state.alerts.items() if one.kind not in ONCE)
        return list(told)

    world.step = watched  # type: ignore[assignment,method-assign]
    lived(records, world, down)
    said = {key: over for _, message in world.told for key, over in message.said}
    assert opened <= said.keys()
    still = {alert.alert_id for alert in open_alerts(world.state)}
    assert {key for key in opened & lasting if not said[key]} == still & lasting


@given(lives())
def test_muted_alerts_are_never_told_within_the_window_and_those_still_open_are_after_it(
    records: list[Arrived],
) -> None:
    window = mute("2026-01-02T13:00:00Z", "2026-01-02T19:00:00Z")
    world = World(plan(route(kinds=["drift", "failed-run", "roll-back"]), mutes=(window,)))
    lived(records, world, [False])
    start, end = NOON + HOUR, NOON + 7 * HOUR
    assert not [at for at, _ in world.told if start <= at < end]
    told = {key for _, message in world.told for key, _ in message.said}
    wanted = {one.alert_id for one in open_alerts(world.state) if one.kind in {"drift", "failed-run", "roll-back"}}
    assert wanted <= told


@given(lives())
def test_the_state_is_bounded_by_what_is_open_once_all_is_told(records: list[Arrived]) -> None:
    world = World(plan())
    now = lived(records, world, [False])
    world.step(now + HOUR)
    left = {one.alert_id for one in world.state.alerts.values() if one.kind != GOOD_NEWS and one.opened}
    assert left == {one.alert_id for one in open_alerts(world.state)}


@given(lives())
def test_a_restart_from_what_was_remembered_tells_nothing_new(records: list[Arrived]) -> None:
    world = World(plan())
    now = lived(records, world, [False])
    remembered = AlertsState({key: one for key, one in world.state.alerts.items() if one.opened is not None})
    state, messages = notify(remembered, records, world.plan, now)
    assert {one.alert_id for one in open_alerts(state)} == {one.alert_id for one in open_alerts(world.state)}
    assert messages == ()
    assert due(state.alerts.values(), world.plan.routes[0], world.plan, now + MINUTE) == ()
