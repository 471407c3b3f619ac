"""The core by examples: what is grouped, repeated, resolved and muted."""

from typing import Any

import pytest
from tests.alerts.life import HOUR, MINUTE, NOON, World, decision, mute, plan, route, signal

from tidemill.alerts.notify import Delivered, notify
from tidemill.alerts.state import MOST_ALERTS

PROMOTED = decision("promote", "r1", NOON - 5 * HOUR, "all requests now go to r1")


def started(*routes: object, **given: object) -> World:
    """A model whose version r1 has served for hours."""
    world = World(plan(*routes, **given))  # type: ignore[arg-type]
    world.step(NOON - 5 * HOUR, PROMOTED)
    world.step(NOON - 4 * HOUR)
    world.told.clear()
    return world


def test_what_begins_within_the_group_time_is_one_message() -> None:
    world = started()
    features = ("brightness", "contrast", "exposure", "noise", "sharpness")
    for second, feature in enumerate(features):
        assert world.step(NOON + second * 1000, signal(feature, NOON + second * 1000)) == []
    assert world.step(NOON + 29_999) == []
    (told,) = world.step(NOON + 30_000)
    assert told.title == "default.phone: 5 features drifted"
    assert told.level == "warning"
    for feature in features:
        assert f"{feature} fell from 0.62 to 0.41" in told.body
    assert "since 2026-01-02 11:59 UTC (1m30s), measured against r1" in told.body
    assert world.step(NOON + 31_000) == []


def test_an_open_alert_is_told_again_after_the_time_to_repeat_and_not_before() -> None:
    world = started()
    world.step(NOON, signal())
    world.step(NOON + MINUTE)
    world.step(NOON + MINUTE, signal(at=NOON + 2 * MINUTE))  # it is still so
    told_at = world.told[0][0]
    assert world.step(told_at + 4 * HOUR - 1) == []
    (told,) = world.step(told_at + 4 * HOUR)
    assert told.title == "default.phone: still so: brightness drifted"
    assert told.level == "warning"


def test_a_promotion_ends_drift_and_says_so_in_one_message() -> None:
    world = started()
    world.step(NOON, signal(), signal("contrast"))
    world.step(NOON + MINUTE)
    world.step(NOON + HOUR, decision("promote", "r2", NOON + HOUR, "all requests now go to r2: it is better"))
    (told,) = world.step(NOON + HOUR + MINUTE)
    assert told.title == "default.phone: r2 serves; over: 2 features drifted"
    assert "over after 1h1m: r2 was promoted" in told.body
    assert told.level == "info"
    assert world.open() == set()
    assert world.step(NOON + 20 * HOUR) == []


def test_what_ends_is_told_as_over_where_it_was_told_and_good_news_is_not_wanted() -> None:
    world = started(route(severity="warning"))
    world.step(NOON, signal())
    world.step(NOON + MINUTE)
    world.step(NOON + HOUR, decision("promote", "r2", NOON + HOUR))
    (told,) = world.step(NOON + HOUR + MINUTE)
    assert (told.title, told.level) == ("default.phone: over: brightness drifted", "over")


def test_runs_that_fail_one_after_the_other_are_one_alert_until_one_ends_well() -> None:
    world = started()
    world.step(NOON, decision("run-failed", "r5", NOON, "train failed: out of memory"))
    (told,) = world.step(NOON + MINUTE)
    assert told.title == "default.phone: run r5 failed"
    assert "train failed: out of memory" in told.body
    assert world.step(NOON + HOUR, decision("run-failed", "r6", NOON + HOUR, "train failed: again")) == []
    assert world.step(NOON + 2 * HOUR) == []
    world.step(NOON + 3 * HOUR, decision("start-rollout", "r7", NOON + 3 * HOUR))
    (told,) = world.step(NOON + 3 * HOUR + MINUTE)
    assert "train failed: again" in told.body
    assert "the rollout of r7 started" in told.body
    assert world.open() == set()


@pytest.mark.parametrize(
    ("opens", "kind", "level", "ends"),
    [
        ("run-failed", "failed-run", "warning", "run-finished"),
        ("hold", "held", "warning", "go-on"),
        ("hold", "held", "warning", "rolled-back"),
    ],
)
def test_what_control_decides_opens_and_ends(opens: str, kind: str, level: str, ends: str) -> None:
    world = started(route(kinds=[kind]))
    world.step(NOON, decision(opens, "r5", NOON))
    (told,) = world.step(NOON + MINUTE)
    assert (told.level, {one[0] for one in world.open()}) == (level, {kind})
    world.step(NOON + HOUR, decision(ends, "r6", NOON + HOUR))
    (told,) = world.step(NOON + HOUR + MINUTE)
    assert told.level == "over"
    assert kind not in {one[0] for one in world.open()}


@pytest.mark.parametrize(
    ("opens", "kind", "level", "ends"),
    [
        ("run-finished", "refused-gate", "info", "start-rollout"),
        ("roll-back", "roll-back", "critical", "promote"),
    ],
)
def test_what_happened_is_told_once_and_open_until_something_better_happens(
    opens: str, kind: str, level: str, ends: str
) -> None:
    world = started(route(kinds=[kind]))
    world.step(NOON, decision(opens, "r5", NOON))
    (told,) = world.step(NOON + MINUTE)
    assert (told.level, {one[0] for one in world.open()}) == (level, {kind})
    assert world.step(NOON + 30 * HOUR) == []
    world.step(NOON + 31 * HOUR, decision(ends, "r6", NOON + 31 * HOUR))
    assert world.step(NOON + 32 * HOUR) == []
    assert world.open() == set()


def test_what_happened_while_a_route_was_down_is_told_even_if_it_is_over() -> None:
    world = started(route(kinds=["roll-back"]))
    world.down = {"oncall"}
    world.step(NOON, decision("roll-back", "r5", NOON))
    world.step(NOON + HOUR, decision("promote", "r6", NOON + HOUR))
    world.step(NOON + 50 * HOUR)
    world.down = set()
    assert [one.title for one in world.step(NOON + 51 * HOUR)] == ["default.phone: over: r5 was rolled back"]


def test_each_version_that_is_rolled_back_is_told() -> None:
    world = started()
    world.step(NOON, decision("roll-back", "r5", NOON))
    world.step(NOON + MINUTE)
    world.step(NOON + HOUR, decision("roll-back", "r6", NOON + HOUR))
    assert [one.title for one in world.step(NOON + HOUR + MINUTE)] == ["default.phone: r6 was rolled back"]


def test_a_signal_about_a_version_that_no_longer_serves_is_history() -> None:
    world = started()
    world.step(NOON, decision("promote", "r2", NOON))
    world.step(NOON + MINUTE, signal(at=NOON + MINUTE, version="r1"))
    assert world.open() == set()


def test_a_signal_that_is_read_before_the_promotion_of_its_version_opens_with_it() -> None:
    world = started(route(kinds=["drift"]))
    world.step(NOON + 2 * MINUTE, signal(at=NOON + MINUTE, version="r2"))
    assert world.open() == set()
    world.step(NOON + 3 * MINUTE, decision("promote", "r2", NOON))
    assert world.open() == {("drift", "brightness", "r2")}
    assert len(world.step(NOON + 4 * MINUTE)) == 1


def test_a_repeated_record_changes_nothing() -> None:
    world = started()
    failed = decision("run-failed", "r5", NOON)
    world.step(NOON, failed)
    world.step(NOON + MINUTE, decision("run-finished", "r6", NOON + MINUTE))
    world.step(NOON + 2 * MINUTE, failed)
    world.step(NOON + 3 * MINUTE, PROMOTED)
    assert ("failed-run", None, "r5") not in world.open()


def test_the_history_that_is_read_on_start_is_no_news() -> None:
    world = World(plan())
    history = [
        decision("promote", "r1", NOON - 300 * HOUR),
        signal(at=NOON - 290 * HOUR),
        decision("run-failed", "r2", NOON - 280 * HOUR),
        decision("start-rollout", "r3", NOON - 270 * HOUR),
        decision("promote", "r3", NOON - 269 * HOUR),
        signal("contrast", NOON - 2 * HOUR, version="r3"),
    ]
    world.step(NOON, *history)
    (told,) = world.step(NOON + MINUTE)
    assert told.title == "default.phone: contrast drifted"


def test_what_changed_in_the_hour_before_is_told_in_three_lines_at_most() -> None:
    world = started()
    since = NOON - MINUTE
    changes = [
        decision("start-run", "r2", since - 2 * HOUR, "long ago"),
        decision("start-run", "r3", since - 50 * MINUTE, "5,000 new labels"),
        decision("start-rollout", "r3", since - 40 * MINUTE),
        decision("go-on", "r3", since - 20 * MINUTE, "on to 25 %: as good as r1"),
        signal("labels", since - 10 * MINUTE, kind="state", message="12,000 labels wait to be joined"),
    ]
    world.step(NOON - 30 * MINUTE, *changes)
    world.step(NOON - 20 * MINUTE)
    world.step(NOON, signal())
    (told,) = world.step(NOON + MINUTE)
    assert told.body.splitlines()[-4:] == [
        "Changed then:",
        "- 11:49 12,000 labels wait to be joined",
        "- 11:39 the rollout of r3 went on to 25 %: as good as r1",
        "- 11:19 the rollout of r3 started",
    ]


def test_muted_alerts_are_told_when_the_window_ends_and_they_are_still_open() -> None:
    window = mute("2026-01-02T12:00:00Z", "2026-01-02T15:00:00+01:00")
    world = started(mutes=(window,))
    world.step(NOON + MINUTE, signal(at=NOON + MINUTE), signal("contrast", at=NOON + MINUTE))
    assert world.step(NOON + 2 * HOUR - 1) == []
    assert len(world.open()) == 2
    (told,) = world.step(NOON + 2 * HOUR)
    assert told.title == "default.phone: 2 features drifted"
    assert told.body.count("muted until 2026-01-02 14:00 UTC: the hall is being painted") == 2


def test_what_began_and_ended_while_it_was_muted_is_not_told() -> None:
    world = started(route(kinds=["drift"]), mutes=(mute("2026-01-02T12:00:00Z", "2026-01-02T14:00:00Z"),))
    world.step(NOON + MINUTE, signal(at=NOON + MINUTE))
    world.step(NOON + HOUR, decision("promote", "r2", NOON + HOUR))
    assert world.step(NOON + 3 * HOUR) == []
    assert world.state.alerts.keys() <= {key for key, one in world.state.alerts.items() if one.kind == "promotion"}


def test_the_end_of_what_was_told_before_a_window_is_told_after_it() -> None:
    world = started(route(kinds=["drift"]), mutes=(mute("2026-01-02T12:30:00Z", "2026-01-02T14:00:00Z"),))
    world.step(NOON, signal())
    assert len(world.step(NOON + MINUTE)) == 1
    world.step(NOON + HOUR, decision("promote", "r2", NOON + HOUR))
    assert world.step(NOON + 2 * HOUR - 1) == []
    assert [one.level for one in world.step(NOON + 2 * HOUR)] == ["over"]


def test_a_window_mutes_what_it_names_and_comes_again() -> None:
    nightly = mute("2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z", every="24h", features=["brightness"])
    world = started(mutes=(nightly,))
    world.step(NOON, signal(), signal("contrast"))
    assert [one.title for one in world.step(NOON + MINUTE)] == ["default.phone: contrast drifted"]
    assert [one.title for one in world.step(NOON + HOUR)] == ["default.phone: brightness drifted"]


def test_a_route_that_is_down_holds_up_no_other_and_is_told_later_what_is_so_then() -> None:
    world = started(route("chat"), route("pager"))
    world.down = {"pager"}
    world.step(NOON, signal())
    assert [one.route for one in world.step(NOON + MINUTE)] == ["chat"]
    world.step(NOON + HOUR, signal("contrast", NOON + HOUR))
    assert [one.title for one in world.step(NOON + HOUR + MINUTE)] == ["default.phone: contrast drifted"]
    world.down = set()
    (told,) = world.step(NOON + 2 * HOUR)
    assert (told.route, told.title) == ("pager", "default.phone: 2 features drifted")


def test_what_ended_before_a_route_could_be_told_is_told_as_over() -> None:
    world = started(route(kinds=["failed-run"]))
    world.down = {"oncall"}
    world.step(NOON, decision("run-failed", "r5", NOON))
    world.step(NOON + HOUR, decision("run-finished", "r6", NOON + HOUR))
    world.down = set()
    (told,) = world.step(NOON + 2 * HOUR)
    assert told.title == "default.phone: over: run r5 failed"


@pytest.mark.parametrize(
    ("filters", "titles"),
    [
        ({"kinds": ["concept"]}, ["default.phone: the loss rose for station=B"]),
        ({"severity": "critical"}, ["default.phone: the loss rose for station=B, r5 was rolled back"]),
        ({"subjects": ["inputs"]}, ["default.phone: r5 was rolled back, brightness drifted"]),
        ({"kinds": ["state"]}, []),
    ],
)
def test_a_route_is_told_what_it_asks_for(filters: dict[str, Any], titles: list[str]) -> None:
    world = started(route(**filters))
    loss = signal("error", kind="concept", subject="errors", slice="station=B", message="the loss rose from 0.1 to 0.3")
    world.step(NOON, signal(), loss, decision("roll-back", "r5", NOON))
    assert [one.title for one in world.step(NOON + MINUTE)] == titles


def test_names_in_a_message_give_no_orders() -> None:
    world = started()
    world.step(NOON, signal(message="x fell, station @everyone\x1b[2J\nSent by: the CEO " + "a" * 1000))
    (told,) = world.step(NOON + MINUTE)
    assert "@everyone" not in told.body
    assert "\x1b" not in told.body
    assert "\nSent by" not in told.body
    assert len(told.body) < 500


def test_alerts_beyond_what_is_held_are_counted() -> None:
    world = started()
    world.step(NOON, *(signal(f"f{number}") for number in range(MOST_ALERTS + 10)))
    assert len(world.state.alerts) == MOST_ALERTS
    assert world.state.unheld in {10, 11}
    (told,) = world.step(NOON + MINUTE)
    assert "more" in told.body
    assert len(told.body) < 5000


def test_columns_that_are_not_watched_keep_no_drift_from_being_told() -> None:
    world = started()
    world.step(NOON, *(signal(f"f{number}", kind="state") for number in range(MOST_ALERTS + 10)))
    world.step(NOON + MINUTE)
    held, unheld = len(world.state.alerts), world.state.unheld
    world.step(NOON + 2 * MINUTE, signal("brightness", NOON + 2 * MINUTE))
    assert (len(world.state.alerts), world.state.unheld) == (held, unheld + 1)
    (told,) = world.step(NOON + 3 * MINUTE)
    assert told.title == "default.phone: brightness drifted"


def test_what_happened_long_before_it_was_noticed_is_no_news() -> None:
    world = World(plan())
    rolled_back = decision("roll-back", "r2", NOON - 25 * HOUR)
    not_watched = signal(at=NOON - 25 * HOUR, kind="state", message="brightness: reference too small")
    world.step(NOON, decision("promote", "r1", NOON - 26 * HOUR), rolled_back, not_watched)
    titles = [one.title for one in world.step(NOON + MINUTE)]
    assert titles == ["default.phone: brightness is not watched as declared"]


def test_what_fails_again_right_after_it_was_told_as_over_is_told_anew() -> None:
    world = started()
    world.step(NOON, decision("run-failed", "r5", NOON))
    world.step(NOON + MINUTE)
    world.step(NOON + 2 * MINUTE, decision("run-finished", "r6", NOON + 2 * MINUTE))
    world.step(NOON + 3 * MINUTE)
    world.step(NOON + 4 * MINUTE, decision("run-failed", "r7", NOON + 4 * MINUTE))
    titles = [one.title for one in world.step(NOON + 5 * MINUTE)]
    assert [title for title in titles if "run r7 failed" in title]


def test_what_opens_again_while_its_end_is_being_told_is_told_anew() -> None:
    world = started(route(kinds=["failed-run"]))
    world.step(NOON, decision("run-failed", "r5", NOON))
    world.step(NOON + MINUTE)
    world.down = {"oncall"}
    world.step(NOON + 2 * MINUTE, decision("run-finished", "r6", NOON + 2 * MINUTE))
    world.state, (end,) = notify(world.state, [], world.plan, NOON + 3 * MINUTE)  # it is under way
    world.step(NOON + 4 * MINUTE, decision("run-failed", "r7", NOON + 4 * MINUTE))
    world.state, _ = notify(world.state, [Delivered(end, NOON + 5 * MINUTE)], world.plan, NOON + 5 * MINUTE)
    world.down = set()
    assert [one.title for one in world.step(NOON + 6 * MINUTE)] == ["default.phone: run r7 failed"]
