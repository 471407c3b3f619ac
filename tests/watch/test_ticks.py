"""Window ticks: when they close, what is late, and which sketches are used."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from tidemill.events.cells import by_name
from tidemill.events.records import FeatureSketch, Sketch
from tidemill.watch.plan import WatchPlan
from tidemill.watch.ticks import Arrived, ClosedTick, Ticks, merge, without_open

Sketches = Callable[..., Sketch]
EMPTY = Ticks(tick_ms=1_000)


def play(plan: WatchPlan, *arrived: Arrived, ticks: Ticks = EMPTY) -> tuple[Ticks, list[ClosedTick]]:
    closed = []
    for taken in arrived:
        ticks, ended = merge(ticks, taken, plan.lateness_ms)
        closed += ended
    return ticks, closed


def test_a_tick_closes_when_the_newest_event_is_later_than_its_end_by_the_lateness(
    plan: WatchPlan, sketch: Sketches
) -> None:
    ticks, closed = play(plan, Arrived(sketch(10, 0.6), 1))
    assert closed == []  # the newest event is at 10.999 s, less 0.5 s
    ticks, closed = play(plan, Arrived(sketch(11, 0.6), 2), ticks=ticks)
    assert [tick.end for tick in closed] == [11_000]
    assert by_name(closed[0].votes)["B"]["brightness"] == FeatureSketch(count=2, total=1.24)
    assert list(ticks.open) == [11]


@pytest.mark.parametrize(("newest", "closes"), [(11_000, 0), (11_499, 0), (11_500, 1)])
def test_an_event_that_is_no_later_than_allowed_still_counts(
    plan: WatchPlan, sketch: Sketches, newest: int, closes: int
) -> None:
    at_the_edge = msgspec.structs.replace(sketch(11, 0.6), max_event_time=newest)
    _, closed = play(plan, Arrived(sketch(10, 0.6), 1), Arrived(at_the_edge, 2))
    assert len(closed) == closes


def test_votes_of_one_tick_are_merged_over_sources_and_ranges(plan: WatchPlan, sketch: Sketches) -> None:
    _, closed = play(
        plan,
        Arrived(sketch(10, 0.6, stations=("A",), first=0), 1),
        Arrived(sketch(10, 0.2, stations=("A", "B"), first=10, rows=6), 1),
        Arrived(sketch(10, 0.5, stations=("C",), source="cluster/topic/1"), 1),
        Arrived(sketch(11, 0.6, first=20), 2),
        Arrived(sketch(11, 0.6, source="cluster/topic/1"), 2),
    )
    assert len(closed) == 1
    assert set(closed[0].votes.entities) == {"A", "B", "C"}
    vote = by_name(closed[0].votes)["A"]["brightness"]
    assert vote.count == 8
    assert vote.total == pytest.approx(2 * 0.6 + 6 * 0.2)


def test_the_slowest_source_that_is_not_idle_holds_the_watermark(plan: WatchPlan, sketch: Sketches) -> None:
    behind = Arrived(sketch(10, 0.6, source="cluster/topic/1"), 10_000)
    ticks, closed = play(plan, behind, *(Arrived(sketch(tick, 0.6), 10_000 + tick) for tick in range(10, 15)))
    assert closed == []
    ticks, closed = play(plan, Arrived(sketch(15, 0.6), 11_000), Arrived(sketch(16, 0.6), 12_000), ticks=ticks)
    assert closed == []  # others were heard for 2 s since: not idle yet
    _, closed = play(plan, Arrived(sketch(17, 0.6), 12_001), ticks=ticks)
    assert [tick.end for tick in closed] == [11_000, 12_000, 13_000, 14_000, 15_000, 16_000, 17_000]


def test_a_source_of_which_nothing_has_a_time_holds_up_no_other(plan: WatchPlan, sketch: Sketches) -> None:
    """All its events are in quarantine, or all its outcomes are corrections."""
    behind = {"source": "cluster/topic/1"}
    ticks, _ = play(plan, Arrived(sketch(10, 0.6, **behind), 10_000))
    found = []
    for tick in range(11, 18):
        nothing = msgspec.structs.replace(sketch(tick, 0.6, **behind), votes={}, max_event_time=0)
        both = [Arrived(one, 1_000 * tick) for one in (sketch(tick, 0.6), nothing)]
        ticks, closed = play(plan, *both, ticks=ticks)
        found += [one.end for one in closed]
    assert found == [11_000, 12_000, 13_000, 14_000, 15_000, 16_000, 17_000]


def test_a_pause_of_the_whole_stream_makes_no_source_idle(plan: WatchPlan, sketch: Sketches) -> None:
    """The first source that is heard again closes no tick over the head of the other."""
    other = {"source": "cluster/topic/1"}
    first = [Arrived(sketch(10, 0.6), 10_000), Arrived(sketch(10, 0.6, **other), 10_001)]
    ticks, _ = play(plan, *first)
    hours = 10_000_000
    burst = [Arrived(sketch(tick, 0.6), hours + tick) for tick in range(11, 40)]
    ticks, closed = play(plan, *burst, ticks=ticks)
    assert closed == []
    ticks, closed = play(
        plan, *(Arrived(sketch(tick, 0.6, **other), hours + 100 + tick) for tick in range(11, 40)), ticks=ticks
    )
    assert ticks.late == 0
    assert [by_name(tick.votes)["A"]["brightness"].count for tick in closed] == [4] * 29


def test_of_one_row_a_vote_the_first_counts(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = merge(EMPTY, Arrived(sketch(10, 0.6, first=0, rows=1), 1), 0, one_row=True)
    ticks, _ = merge(ticks, Arrived(sketch(10, 0.9, first=10, rows=1), 1), 0, one_row=True)
    assert by_name(ticks.open[10])["A"]["brightness"] == FeatureSketch(count=1, total=0.6)


def test_a_source_without_events_holds_nothing(plan: WatchPlan, sketch: Sketches) -> None:
    nothing = Sketch(source="cluster/topic/1", first_offset=0, last_offset=3, max_event_time=0, tick_ms=1_000, votes={})
    _, closed = play(plan, Arrived(nothing, 1), Arrived(sketch(10, 0.6), 1), Arrived(sketch(11, 0.6), 2))
    assert len(closed) == 1


def test_a_late_event_changes_no_tick_and_is_counted(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = play(plan, Arrived(sketch(10, 0.6), 1), Arrived(sketch(12, 0.6), 2))
    after, closed = play(plan, Arrived(sketch(10, 0.1, first=130), 3), ticks=ticks)
    assert closed == []
    assert after.open == ticks.open
    assert after.late == 12  # 3 stations, 2 features, 2 rows


def test_a_sketch_that_is_known_is_dropped(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = play(plan, Arrived(sketch(10, 0.6), 1), Arrived(sketch(11, 0.6), 2))
    for known in (sketch(11, 0.6), sketch(10, 0.9)):
        assert merge(ticks, Arrived(known, 9), plan.lateness_ms) == (ticks, [])


def test_a_sketch_that_overlaps_what_was_used_is_dropped_whole_and_counted(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = play(plan, Arrived(sketch(10, 0.6, first=100), 1))
    after, _ = play(plan, Arrived(sketch(10, 0.9, first=105), 1), ticks=ticks)
    assert after.open == ticks.open
    assert after.out_of_order == 1
    later, _ = play(plan, Arrived(sketch(10, 0.9, first=115), 1), ticks=after)
    assert later.open != after.open


def test_votes_of_another_tick_length_are_not_used(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = play(plan, Arrived(sketch(10, 0.6, tick_ms=10_000), 1))
    assert ticks.open == {}


def test_without_lateness_a_tick_closes_at_the_first_event_behind_it(plan: WatchPlan, sketch: Sketches) -> None:
    punctual = replace(plan, lateness_ms=0)
    _, closed = play(punctual, Arrived(sketch(10, 0.6), 1), Arrived(sketch(11, 0.6), 1))
    assert [tick.end for tick in closed] == [11_000]


def test_forgetting_open_ticks_keeps_what_is_known_of_sources(plan: WatchPlan, sketch: Sketches) -> None:
    ticks, _ = play(plan, Arrived(sketch(10, 0.6), 1))
    forgot = without_open(ticks)
    assert forgot.open == {}
    assert forgot.sources == ticks.sources
