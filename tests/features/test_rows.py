"""The law of online rows: whatever is repeated, overlaps, is interleaved or late leaves the row of one clean pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import Corrupt
from tidemill.features.rows import Last, OnlineEvent, Row, fold, pack, pack_header, unpack

EMPTY = Row("g", {})
Logs = dict[str, list[OnlineEvent]]


@st.composite
def logs(draw: st.DrawFn) -> Logs:
    """Two sources of one entity, offsets with gaps, event times with ties and disorder."""
    made: Logs = {}
    for source in ("c/t/0", "c/t/1"):
        offset = 0
        made[source] = []
        for _ in range(draw(st.integers(0, 8))):
            offset += draw(st.integers(1, 3))
            event = OnlineEvent("e", source, offset, draw(st.integers(0, 5)), {"x": draw(st.integers(0, 99))})
            made[source].append(event)
    return made


def clean(log: Logs) -> Row:
    """What one worker leaves that never fails."""
    return fold(EMPTY, [event for events in log.values() for event in events])


STEPS = st.lists(st.tuples(st.sampled_from(["c/t/0", "c/t/1"]), st.integers(0, 8), st.integers(0, 8)), max_size=12)


@given(logs(), STEPS)
def test_any_overlap_repetition_and_interleaving_gives_the_row_of_one_clean_pass(
    log: Logs, steps: list[tuple[str, int, int]]
) -> None:
    row = EMPTY
    taken = dict.fromkeys(log, 0)
    for source, back, length in [*steps, *((source, 0, 99) for source in log)]:
        # Batches of one source begin at or before what was applied, wherever a crash or a zombie left off.
        begin = max(0, taken[source] - back)
        row = fold(row, log[source][begin : begin + length])
        taken[source] = max(taken[source], min(begin + length, len(log[source])))
    assert row == clean(log)


@given(logs())
def test_events_that_a_row_has_already_leave_it_untouched(log: Logs) -> None:
    row = clean(log)
    for events in log.values():
        assert fold(row, events) is row


@given(logs())
def test_the_state_is_the_greatest_by_event_time_source_and_offset(log: Logs) -> None:
    row = clean(log)
    events = [event for mine in log.values() for event in mine]
    if events:
        best = max(events, key=lambda event: (event.event_time, event.source, event.offset))
        assert row.last == Last(best.event_time, best.source, best.offset, best.values)
        assert row.fence == {name: mine[-1].offset for name, mine in log.items() if mine}


def test_an_older_event_moves_the_fence_and_nothing_else() -> None:
    row = fold(EMPTY, [OnlineEvent("e", "s", 1, 50, {"x": 1})])
    later = fold(row, [OnlineEvent("e", "s", 2, 40, {"x": 2})])
    assert later.last == row.last
    assert later.fence == {"s": 2}


@given(logs())
def test_a_row_reads_back_from_its_bytes(log: Logs) -> None:
    row = clean(log)
    found, header = unpack(pack(row))
    assert found == row
    assert header == pack_header(row)
    assert pack(row).startswith(header)


@given(logs(), logs())
def test_headers_are_equal_exactly_when_generation_and_fence_are(one: Logs, other: Logs) -> None:
    first, second = clean(one), clean(other)
    assert (pack_header(first) == pack_header(second)) == (first.fence == second.fence)
    assert pack_header(first) != pack_header(Row("h", first.fence, first.last))


def test_the_order_in_which_sources_came_does_not_show_in_the_header() -> None:
    assert pack_header(Row("g", {"a": 1, "b": 2})) == pack_header(Row("g", {"b": 2, "a": 1}))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_row_are_said_to_be_damaged(data: bytes) -> None:
    with pytest.raises(Corrupt, match="online row"):
        unpack(data)


@pytest.mark.parametrize("values", [{"a": None, "b": True, "c": -(2**63), "d": 2**63 - 1, "e": 0.1, "f": "ü"}])
def test_values_keep_their_types(values: dict[str, float | int | str | bool | None]) -> None:
    row, _ = unpack(pack(fold(EMPTY, [OnlineEvent("e", "s", 0, 0, values)])))
    assert row.last is not None
    assert row.last.values == values
    assert [type(value) for value in row.last.values.values()] == [type(value) for value in values.values()]
