"""What was known of an entity at a time, against a naive loop."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.features.point_in_time import point_in_time, scan_point_in_time, scan_windows
from tidemill.features.tiles import window_values
from tidemill.spec.model import Window

TIME = pl.Datetime("us", "UTC")
ROWS = {"entity": pl.String(), "at": TIME}
EVENTS = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_time": TIME,
    "available_at": TIME,
    "value": pl.Int64(),
    "text": pl.String(),
}
START = datetime(2026, 1, 1, tzinfo=UTC)


def second(number: int | None) -> datetime | None:
    return None if number is None else START + timedelta(seconds=number)


def rows_frame(*rows: tuple[str | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame([(entity, second(at)) for entity, at in rows], schema=ROWS, orient="row")


def events_frame(*events: tuple[str, int, str | None, int | None, int | None]) -> pl.DataFrame:
    """Events of (source, offset, entity, event time, arrival); `value` is the event's place in the list."""
    return pl.DataFrame(
        [
            (source, offset, entity, second(time), second(arrival), place, f"text {place}")
            for place, (source, offset, entity, time, arrival) in enumerate(events)
        ],
        schema=EVENTS,
        orient="row",
    )


def naive(rows: pl.DataFrame, events: pl.DataFrame, ttl: timedelta | None) -> list[int | None]:
    """The definition, word by word."""
    found: list[int | None] = []
    for row in rows.iter_rows(named=True):
        best: tuple[Any, ...] | None = None
        for event in events.iter_rows(named=True):
            if row["entity"] is None or row["at"] is None or event["entity"] != row["entity"]:
                continue
            if event["event_time"] is None or event["event_time"] > row["at"]:
                continue
            if event["available_at"] is not None and event["available_at"] > row["at"]:
                continue
            if ttl and event["event_time"] < row["at"] - ttl:
                continue
            candidate = (event["event_time"], event["source"], event["offset"], event["value"])
            best = candidate if best is None else max(best, candidate)
        found.append(None if best is None else best[-1])
    return found


def found_by(rows: pl.DataFrame, events: pl.DataFrame, ttl: timedelta | None = None) -> list[int | None]:
    return point_in_time(rows, events, ["value"], ttl=ttl)["value"].to_list()


def test_the_last_event_before_the_time_is_known_and_one_at_the_time_too() -> None:
    events = events_frame(("s", 0, "a", 10, 10), ("s", 1, "a", 20, 20))
    assert found_by(rows_frame(("a", 9), ("a", 10), ("a", 19), ("a", 20), ("a", 99)), events) == [None, 0, 0, 1, 1]


def test_an_event_is_not_known_before_it_arrives() -> None:
    events = events_frame(("s", 0, "a", 10, 10), ("s", 1, "a", 20, 50))
    assert found_by(rows_frame(("a", 30), ("a", 49), ("a", 50)), events) == [0, 0, 1]


def test_a_late_event_does_not_hide_a_newer_one_that_is_there() -> None:
    events = events_frame(("s", 0, "a", 10, 40), ("s", 1, "a", 20, 21))
    assert found_by(rows_frame(("a", 30), ("a", 40), ("a", 99)), events) == [1, 1, 1]


def test_while_the_newest_has_not_arrived_the_last_that_has_counts_however_many_are_missing() -> None:
    late = [("s", 1 + number, "a", 11 + number, 100) for number in range(30)]
    events = events_frame(("s", 0, "a", 10, 10), *late)
    assert found_by(rows_frame(("a", 99), ("a", 100)), events) == [0, 30]


def test_of_one_event_time_the_greater_source_and_offset_is_the_last() -> None:
    events = events_frame(("t", 1, "a", 10, 10), ("s", 9, "a", 10, 10), ("t", 2, "a", 10, 12))
    assert found_by(rows_frame(("a", 10), ("a", 12)), events) == [0, 2]


def test_without_offsets_the_later_arrival_is_the_last_of_one_event_time_then_the_later_row() -> None:
    events = events_frame(("", 0, "a", 10, 12), ("", 0, "a", 10, 11), ("", 0, "a", 10, 12)).drop("source", "offset")
    assert found_by(rows_frame(("a", 11), ("a", 12)), events) == [1, 2]
    assert found_by(rows_frame(("a", 10)), events.drop("available_at")) == [2]


def test_an_event_older_than_its_time_to_live_does_not_count_and_does_not_bring_back_an_older_one() -> None:
    events = events_frame(("s", 0, "a", 5, 5), ("s", 1, "a", 10, 10))
    rows = rows_frame(("a", 15), ("a", 16))
    assert found_by(rows, events, timedelta(seconds=5)) == [1, None]
    assert found_by(rows, events, timedelta(0)) == [1, 1]


def test_event_times_ahead_of_their_arrival_are_not_known_before_their_time() -> None:
    assert found_by(rows_frame(("a", 15), ("a", 20)), events_frame(("s", 0, "a", 20, 10))) == [None, 0]


def test_no_events_and_no_rows() -> None:
    assert found_by(rows_frame(("a", 1)), events_frame()) == [None]
    assert found_by(rows_frame(), events_frame(("s", 0, "a", 1, 1))) == []
    assert scan_point_in_time(rows_frame(), events_frame().lazy(), ["value"]).height == 0
    assert scan_point_in_time(rows_frame(("a", None)), events_frame().lazy(), ["value"])["value"].to_list() == [None]


def test_each_value_is_of_the_same_event_and_has_its_type() -> None:
    found = point_in_time(
        rows_frame(("b", 30), ("a", 30)),
        events_frame(("s", 0, "a", 10, 10), ("s", 1, "b", 20, 20)),
        ["text", "value", "event_time"],
    )
    assert found.rows() == [("text 1", 1, second(20)), ("text 0", 0, second(10))]
    assert found.schema == {"text": pl.String(), "value": pl.Int64(), "event_time": TIME}


def test_a_key_may_have_several_columns_or_none() -> None:
    events = events_frame(("s", 0, "a", 10, 10), ("t", 1, "a", 20, 20), ("s", 2, "b", 30, 30))
    events = events.with_columns(line=pl.Series([1, 2, 1]))
    rows = rows_frame(("a", 50), ("b", 50)).with_columns(line=pl.lit(1, pl.Int64))
    assert point_in_time(rows, events, ["value"], by=["entity", "line"])["value"].to_list() == [0, 2]
    assert point_in_time(rows, events, ["value"], by=[])["value"].to_list() == [2, 2]
    assert scan_point_in_time(rows, events.lazy(), ["value"], by=[], at_once=1)["value"].to_list() == [2, 2]


SECONDS = st.sampled_from([*range(12), None])
ENTITIES = st.sampled_from(["a", "a", "a", "b", None])
EVENT = st.tuples(st.sampled_from(["s", "t"]), st.integers(0, 3), ENTITIES, SECONDS, SECONDS)
MANY = st.lists(EVENT, min_size=5, max_size=14) | st.lists(EVENT, max_size=4)
TTLS = st.sampled_from([None, timedelta(0), timedelta(seconds=3)])


@settings(deadline=None)
@given(
    st.lists(st.tuples(ENTITIES, SECONDS), max_size=12),
    MANY,
    TTLS,
    st.sampled_from([1, 3, 100]),
)
def test_it_equals_the_naive_loop_for_any_order_ties_lateness_and_nulls(
    rows: Sequence[tuple[str | None, int | None]],
    events: Sequence[tuple[str, int, str | None, int | None, int | None]],
    ttl: timedelta | None,
    at_once: int,
) -> None:
    left, right = rows_frame(*rows), events_frame(*events)
    expected = naive(left, right, ttl)
    assert found_by(left, right, ttl) == expected
    assert scan_point_in_time(left, right.lazy(), ["value"], ttl=ttl, at_once=at_once)["value"].to_list() == expected


@settings(deadline=None)
@given(MANY, st.integers(0, 12), st.randoms(use_true_random=False))
def test_what_comes_after_a_time_changes_nothing_that_was_known_at_it(
    events: list[tuple[str, int, str | None, int | None, int | None]], at: int, random: Any
) -> None:
    """Replay: cut the stream off at t, and the values at t are the same; its order does not matter either."""
    frame = events_frame(*events)
    # Two events of one place differ in nothing that orders them: keep one, as the lake does.
    frame = frame.unique(["entity", "event_time", "source", "offset"], keep="first", maintain_order=True)
    rows = rows_frame(("a", at), ("b", at))
    known = pl.max_horizontal("event_time", "available_at") <= second(at)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=random.randrange(1000))
    whole = found_by(rows, shuffled)
    assert whole == found_by(rows, frame.filter(known))


WINDOWS = (
    Window.model_validate({"name": "seen", "agg": "count", "over": ["6s", "1m"]}),
    Window.model_validate({"name": "top", "of": "value", "agg": "max", "over": ["6s"]}),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(ENTITIES, SECONDS), max_size=8),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 12) | st.none()), max_size=10),
    st.sampled_from([1, 3, 100]),
)
def test_windows_over_a_table_are_those_over_frames_however_few_events_are_held(
    rows: Sequence[tuple[str | None, int | None]], events: Sequence[tuple[str, int, int | None]], at_once: int
) -> None:
    left = rows_frame(*rows)
    frame = events_frame(*(("s", place, *event) for place, event in enumerate(events)))
    frame = frame.with_columns(event_date=pl.col("event_time").dt.date())
    lateness, future = timedelta(seconds=5), timedelta(seconds=12)
    found = scan_windows(left, frame.lazy(), WINDOWS, allowed_lateness=lateness, max_future=future, at_once=at_once)
    asked = left.drop_nulls()
    arrived = frame.with_columns(pl.col("available_at").fill_null(pl.col("event_time")))
    expected = iter(window_values(arrived, asked, WINDOWS, lateness).rows())
    assert found.columns == ["seen_6s", "seen_1m", "top_6s"]
    assert found.rows() == [(None,) * 3 if None in row else next(expected) for row in left.rows()]


def test_keys_of_another_type_are_refused_rather_than_never_found() -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        found_by(rows_frame(("1", 1)).with_columns(pl.col("entity").cast(pl.Int64)), events_frame(("s", 0, "1", 0, 0)))
