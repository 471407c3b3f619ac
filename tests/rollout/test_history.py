"""The champion's history: how late labels come, by class, and how fast outcomes do."""

import msgspec
import pytest

from tidemill.events.records import Outcome
from tidemill.rollout.history import ChampionHistory
from tidemill.testing.loop import example_resource
from tidemill.testing.rollout import EPOCH_MS, judged_outcome


def late(outcome: Outcome, loss: float) -> Outcome:
    """The revision of an unlabelled outcome whose label has come."""
    return msgspec.structs.replace(
        outcome, revision=1, loss=loss, label={"defect": "scratch" if loss else "ok"}, label_age_ms=60_000
    )


def history(outcomes: list[Outcome]) -> ChampionHistory:
    found = ChampionHistory(example_resource(), "v1")
    for outcome in outcomes:
        found.add(outcome)
    return found


def some(count: int, loss: float | None, name: str, *, every_ms: int = 25) -> list[Outcome]:
    return [judged_outcome("v1", EPOCH_MS + number * every_ms, loss, name=f"{name}{number}") for number in range(count)]


def test_labels_that_were_there_in_time_are_visible_in_full() -> None:
    seen = history([*some(60, 0.0, "a"), *some(40, 1.0, "b")]).seen()
    assert seen.visible == {"ok": 1.0, "scratch": 1.0}
    assert seen.outcomes == 100


def test_a_class_whose_labels_come_late_is_told_apart() -> None:
    slow = some(60, None, "c")
    found = history([*some(60, 0.0, "a"), *some(40, 1.0, "b"), *slow, *(late(one, 1.0) for one in slow)]).seen()
    assert found.visible == {"ok": 1.0, "scratch": pytest.approx(0.4)}


def test_what_is_still_unlabelled_may_be_of_any_class() -> None:
    seen = history([*some(60, 0.0, "a"), *some(40, 1.0, "b"), *some(10, None, "c")]).seen()
    assert seen.visible == {"ok": pytest.approx(60 / 70), "scratch": pytest.approx(40 / 50)}


def test_at_the_horizon_an_absent_label_no_longer_counts_as_late() -> None:
    horizon_ms = 14 * 24 * 3_600_000
    old = judged_outcome("v1", EPOCH_MS - horizon_ms, None, name="old")
    assert history([old, *some(60, 0.0, "a")]).seen().visible == {"ok": 1.0}


def test_a_corrected_label_was_no_late_one() -> None:
    first = some(40, 0.0, "a")
    assert history([*first, *(late(one, 0.0) for one in first)]).seen().visible == {"ok": 1.0}


def test_few_labels_tell_nothing_of_their_class() -> None:
    assert history([*some(60, 0.0, "a"), *some(5, 1.0, "b")]).seen().visible == {"ok": 1.0}


def test_repeats_and_other_versions_change_nothing() -> None:
    found = history(some(40, 0.0, "a"))
    before = found.seen()
    found.add(some(1, 0.0, "a")[0])
    found.add(judged_outcome("v2", EPOCH_MS, 1.0, name="z"))
    assert found.seen() == before


def test_the_rate_is_that_of_requests_not_of_rows() -> None:
    rows = [
        judged_outcome("v1", EPOCH_MS + number * 100, 0.0, name=f"{number}-{row}", request=str(number))
        for number in range(41)
        for row in range(3)
    ]
    assert history(rows).seen().per_second == pytest.approx(10.0)


def test_without_outcomes_there_is_neither_a_share_nor_a_rate() -> None:
    seen = history([]).seen()
    assert (seen.visible, seen.per_second, seen.outcomes) == ({}, None, 0)


def test_keys_are_counted_where_a_rollout_is_to_assign_them() -> None:
    keyed = ChampionHistory(example_resource(rollout={"cohorts": {"key": "x-user"}}), "v1")
    for number, outcome in enumerate(some(10, 0.0, "a")):
        keyed.add(msgspec.structs.replace(outcome, cohort=f"user-{number % 3}" if number else None))
    assert keyed.seen().keys == 3
    assert history(some(10, 0.0, "a")).seen().keys is None
