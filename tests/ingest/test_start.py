"""DATAPLANE rule 3, case by case, and the law that nothing is skipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.ingest.start import Start, start_of


def start(
    committed: int | None, taken: int | None, *, log: tuple[int, int] = (0, 100), has_table: bool = True
) -> Start:
    return start_of(committed=committed, taken=taken, log_start=log[0], log_end=log[1], has_table=has_table)


@pytest.mark.parametrize(
    ("committed", "taken", "expected"),
    [
        (10, 9, Start(10)),  # all is well
        (10, 19, Start(10)),  # the lake got further than the commit: rows of 10..19 may be missing
        (30, 19, Start(20)),  # the lake was restored to an older version
        (None, 19, Start(20, rebuild=True)),
        (None, None, Start(0)),
        (10, None, Start(10)),
    ],
)
def test_it_begins_where_the_rule_says(committed: int | None, taken: int | None, expected: Start) -> None:
    assert start(committed, taken) == expected


def test_a_commit_without_a_table_is_an_alarm_and_reads_the_log_anew() -> None:
    found = start(10, None, has_table=False)
    assert found.offset == 0
    assert "table is gone" in str(found.alarm)


def test_offsets_that_the_log_dropped_before_they_were_taken_are_counted_and_an_alarm() -> None:
    found = start(10, 9, log=(25, 100))
    assert (found.offset, found.lost) == (25, 15)
    assert "15 offsets were dropped" in str(found.alarm)
    assert start(10, None, log=(25, 100)).lost == 15


def test_what_the_lake_has_is_not_lost_when_the_log_drops_it_but_the_rows_may_lack_it() -> None:
    assert start(10, 30, log=(25, 100)) == Start(25, rebuild=True)


def test_a_fresh_log_that_begins_above_zero_lost_nothing() -> None:
    assert start(None, None, log=(25, 100)) == Start(25)


def test_a_log_that_was_cut_off_is_an_alarm() -> None:
    found = start(50, 49, log=(0, 20))
    assert found.offset == 20
    assert "cut off" in str(found.alarm)


OFFSETS = st.none() | st.integers(0, 60)


@given(OFFSETS, OFFSETS, st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_no_offset_is_skipped_that_neither_lake_nor_group_has(
    committed: int | None, taken: int | None, log_start: int, length: int, has_table: bool
) -> None:
    log_end = log_start + length
    found = start(committed, taken, log=(log_start, log_end), has_table=has_table or taken is not None)
    assert log_start <= found.offset <= max(log_end, log_start)
    have = taken if taken is not None else (committed - 1 if committed is not None and has_table else -1)
    skipped = found.offset - (have + 1)
    assert skipped <= found.lost or found.offset == log_start
    if skipped > 0 and (committed is not None or taken is not None) and has_table:
        assert found.lost == skipped
        assert found.alarm
