import polars as pl
import pytest

from tidemill.events.records import Quarantined
from tidemill.events.sources import Source
from tidemill.ingest.batch import Batch
from tidemill.ingest.guard import NEWEST, Guard
from tidemill.ingest.tables import QUARANTINE_COLUMNS

A, B = Source("c", "t", 0), Source("c", "t", 1)


def batch(origin: str | None = None, **counts: tuple[int, int]) -> Batch:
    """Good and bad records of the sources A and B."""
    sources = {"a": A, "b": B}
    good = [str(sources[name]) for name, (count, _) in counts.items() for _ in range(count)]
    bad = [
        Quarantined(
            source=str(sources[name]),
            offset=n,
            reason="is required",
            field="x",
            available_at=0,
            value=b"",
            origin=origin,
        )
        for name, (_, count) in counts.items()
        for n in range(count)
    ]
    return Batch(
        begin={sources[name]: 0 for name in counts},
        upto={sources[name]: 1 for name in counts},
        events=pl.DataFrame({"source": good}, schema={"source": pl.String()}).with_columns(
            origin=pl.lit(origin, pl.String)
        ),
        quarantine=pl.DataFrame(schema=QUARANTINE_COLUMNS),
        quarantined=bad,
    )


def test_a_source_that_is_mostly_bad_is_stopped_with_its_reason_and_others_are_not() -> None:
    stops = Guard(0.5).judge(batch(a=(100, 101), b=(101, 100)))
    assert stops.keys() == {A}
    assert (stops[A].share, stops[A].of, stops[A].reason) == (101 / 201, 201, "x: is required")


def test_a_few_bad_records_stop_nothing_however_large_their_share() -> None:
    assert Guard(0.0).judge(batch(a=(0, NEWEST - 1))) == {}


def test_small_batches_are_judged_with_what_came_before_them() -> None:
    guard = Guard(0.5)
    guard.took(batch(a=(10_000, 0)))
    taken = 0
    while not guard.judge(small := batch(a=(0, 7))):
        guard.took(small)
        taken += 7
    assert NEWEST / 2 - 7 <= taken <= NEWEST / 2


def test_what_was_not_taken_is_not_held_against_what_comes_next() -> None:
    guard = Guard(0.5)
    guard.took(batch(a=(NEWEST, 0)))
    assert guard.judge(batch(a=(0, NEWEST)))
    assert guard.judge(batch(a=(NEWEST, NEWEST - 1))) == {}


@pytest.mark.parametrize("good", [0, 1])
def test_a_limit_of_one_stops_nothing(good: int) -> None:
    assert Guard(1.0).judge(batch(a=(good, 10_000))) == {}


def test_a_batch_without_records_is_no_case() -> None:
    assert Guard(0.5).judge(batch(a=(0, 0))) == {}


def test_replays_that_are_bad_again_stop_nothing_and_good_ones_hide_nothing() -> None:
    guard = Guard(0.5)
    assert guard.judge(batch("c/t/0/1", a=(0, 10 * NEWEST))) == {}
    guard.took(batch("c/t/0/1", a=(10 * NEWEST, 0)))
    assert guard.judge(batch(a=(NEWEST // 2 - 1, NEWEST // 2 + 1)))[A].of == NEWEST
