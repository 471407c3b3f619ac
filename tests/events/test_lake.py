from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from tidemill.events.lake import LakeTable, Span, table_uri
from tidemill.events.sources import Source

SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "event_time": pl.Datetime("us", "UTC"),
    "event_date": pl.Date(),
    "image": pl.Binary(),
    "x": pl.Float64(),
}
WRITE = "tidemill.events.lake.write_deltalake"
A, B = Source("c", "t", 0), Source("c", "t", 1)


def rows(source: Source, offsets: Sequence[int]) -> pl.DataFrame:
    n = len(offsets)
    columns = {
        "source": [str(source)] * n,
        "offset": list(offsets),
        "event_time": [datetime(2026, 1, 1, tzinfo=UTC)] * n,
        "event_date": [date(2026, 1, 1)] * n,
        "image": [b"x"] * n,
        "x": [float(offset) for offset in offsets],
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def table(folder: Path, pipeline: str = "ingest") -> LakeTable:
    return LakeTable(str(folder / "events"), SCHEMA, pipeline=pipeline, partition_by=("event_date",))


def offsets(of: LakeTable, source: Source = A) -> list[int]:
    found = of.scan().filter(pl.col("source") == str(source)).select("offset").collect()
    return sorted(found["offset"].to_list())


def test_an_overlapping_append_adds_only_what_is_new(tmp_path: Path) -> None:
    events = table(tmp_path)
    assert events.append(rows(A, range(10)), {A: 9}) == {A: Span(-1, 9)}
    assert events.append(rows(A, range(5, 20)), {A: 19}) == {A: Span(9, 19)}
    assert offsets(events) == list(range(20))


def test_a_repeated_append_adds_nothing_and_does_not_lower_the_version(tmp_path: Path) -> None:
    events = table(tmp_path)
    events.append(rows(A, range(10)), {A: 9})
    assert events.append(rows(A, range(5)), {A: 4}) == {}
    assert events.version_of(A) == 9
    assert offsets(events) == list(range(10))


def test_an_append_through_a_stale_handle_adds_nothing_twice(tmp_path: Path) -> None:
    zombie, owner = table(tmp_path), table(tmp_path)
    zombie.append(rows(A, range(3)), {A: 2})
    owner.append(rows(A, range(10)), {A: 9})
    assert zombie.append(rows(A, range(3, 8)), {A: 7}) == {}
    assert zombie.append(rows(A, range(3, 12)), {A: 11}) == {A: Span(9, 11)}
    assert offsets(owner) == list(range(12))


def test_what_others_took_of_a_source_is_seen_after_a_commit_of_another_source(tmp_path: Path) -> None:
    zombie, owner = table(tmp_path), table(tmp_path)
    zombie.append(pl.concat([rows(A, range(3)), rows(B, range(3))]), {A: 2, B: 2})
    owner.append(rows(B, range(3, 9)), {B: 8})
    zombie.append(rows(A, range(3, 6)), {A: 5})  # does not conflict, and brings the handle up to date
    assert zombie.append(rows(B, range(3, 7)), {B: 6}) == {}
    assert offsets(owner, B) == list(range(9))


def test_what_an_attempt_builds_on_is_told_before_each_attempt(tmp_path: Path) -> None:
    zombie, owner = table(tmp_path), table(tmp_path)
    zombie.append(rows(A, range(3)), {A: 2})
    owner.append(rows(A, range(10)), {A: 9})
    seen: list[Span | None] = []
    zombie.append(rows(A, range(3, 12)), {A: 11}, before_commit=lambda: seen.append(zombie.last_span(A)))
    assert seen == [Span(-1, 2), Span(2, 9)]


def test_a_commit_that_landed_but_seemed_to_fail_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = table(tmp_path)
    events.append(rows(A, range(3)), {A: 2})
    calls = []

    def lands_then_fails(*arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        calls.append(1)
        raise OSError("the connection broke")

    monkeypatch.setattr(WRITE, lands_then_fails)
    events.append(rows(A, range(3, 6)), {A: 5})
    assert len(calls) == 1
    assert offsets(events) == list(range(6))


def test_a_store_that_takes_nothing_is_unavailable_and_the_same_call_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = table(tmp_path)

    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(WRITE, fails)
        with pytest.raises(Unavailable, match="no space left"):
            events.append(rows(A, range(3)), {A: 2})
    events.append(rows(A, range(3)), {A: 2})
    assert offsets(events) == [0, 1, 2]


def test_records_that_all_were_bad_move_the_version_without_rows(tmp_path: Path) -> None:
    events = table(tmp_path)
    events.append(rows(A, []), {A: 7})
    assert events.last_span(A) == Span(-1, 7)
    assert offsets(events) == []


def test_one_commit_takes_several_sources(tmp_path: Path) -> None:
    events = table(tmp_path)
    events.append(pl.concat([rows(A, range(4)), rows(B, [3, 9])]), {A: 3, B: 12})
    assert (events.version_of(A), events.version_of(B)) == (3, 12)
    assert events.delta_version == 1
    snapshot = events.snapshot()
    assert snapshot.upto == {str(A): 3, str(B): 12}
    assert snapshot.rows.collect().height == 6


def test_two_pipelines_in_one_table_do_not_meet(tmp_path: Path) -> None:
    table(tmp_path, "one").append(rows(A, [5]), {A: 5})
    assert table(tmp_path, "two").version_of(A) is None


def test_workers_of_different_sources_append_at_the_same_time(tmp_path: Path) -> None:
    def append(source: Source) -> None:
        mine = table(tmp_path)
        for start in range(0, 50, 5):
            mine.append(rows(source, range(start, start + 5)), {source: start + 4})

    threads = [Thread(target=append, args=[source]) for source in (A, B)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for source in (A, B):
        assert offsets(table(tmp_path), source) == list(range(50))


def test_many_may_make_the_same_table_at_once(tmp_path: Path) -> None:
    failed: list[BaseException] = []
    start = Barrier(6)

    def append() -> None:
        start.wait()
        try:
            table(tmp_path).append(rows(A, range(10)), {A: 9})
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=append) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert offsets(table(tmp_path)) == list(range(10))


def test_versions_outlive_compaction(tmp_path: Path) -> None:
    events = table(tmp_path)
    for start in range(0, 30, 3):
        events.append(rows(A, range(start, start + 3)), {A: start + 2})
    table(tmp_path).compact()
    assert events.append(rows(A, range(25, 35)), {A: 34}) == {A: Span(29, 34)}
    assert offsets(table(tmp_path)) == list(range(35))


def test_a_column_that_is_new_is_added_and_older_rows_have_none(tmp_path: Path) -> None:
    table(tmp_path).append(rows(A, [0]), {A: 0})
    wider = LakeTable(str(tmp_path / "events"), {**SCHEMA, "y": pl.Int64()}, pipeline="ingest")
    wider.append(rows(A, [1]).with_columns(y=pl.lit(7, pl.Int64)), {A: 1})
    table(tmp_path).append(rows(A, [2]), {A: 2})  # a worker of the older resource
    found = wider.scan().sort("offset").collect()
    assert found["y"].to_list() == [None, 7, None]


def test_a_column_of_another_type_is_refused_with_its_name(tmp_path: Path) -> None:
    table(tmp_path).append(rows(A, [0]), {A: 0})
    other = LakeTable(str(tmp_path / "events"), {**SCHEMA, "x": pl.String()}, pipeline="ingest")
    with pytest.raises(InvalidInput, match="column x"):
        other.append(rows(A, []), {A: 1})


def test_a_table_that_is_not_there_is_said_to_be_absent(tmp_path: Path) -> None:
    absent = LakeTable(str(tmp_path / "nothing"))
    assert not absent.exists
    assert absent.version_of(A) is None
    for ask in (absent.scan, absent.snapshot, lambda: absent.delta_version):
        with pytest.raises(NotFound, match="no table"):
            ask()


def test_state_is_appended_only_on_what_it_was_derived_from(tmp_path: Path) -> None:
    schema = {"state": pl.String()}
    uri = str(tmp_path / "watch")
    mine, other = LakeTable(uri, schema, pipeline="watch"), LakeTable(uri, schema, pipeline="watch")
    state = pl.DataFrame({"state": ["one"]})
    mine.append_if(state, {A: Span(-1, 5)})
    other.append_if(state, {A: Span(5, 9)})
    with pytest.raises(Conflict, match="up to 9, not 5"):
        mine.append_if(state, {A: Span(5, 7)})
    other.append_if(state, {A: Span(5, 9)})  # said again by who did not hear the answer
    assert mine.scan().collect().height == 2


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(1, 8)), min_size=1, max_size=8),
)
@settings(max_examples=15, deadline=None)
def test_whatever_ranges_two_workers_append_each_offset_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    workers = {True: table(folder), False: table(folder)}
    taken = -1
    for who, back, length in steps:
        begin = max(0, taken + 1 - back)  # a worker begins where offsets were committed, at or before v + 1
        workers[who].append(rows(A, range(begin, begin + length)), {A: begin + length - 1})
        taken = max(taken, begin + length - 1)
    assert offsets(workers[True]) == list(range(taken + 1))


def test_tables_are_named_after_model_and_kind() -> None:
    assert table_uri("s3://bucket/lake/", "default.m", "events") == "s3://bucket/lake/default.m.events"
    assert table_uri("/data/lake", "default.m", "labels") == "/data/lake/default.m.labels"


def test_a_store_that_is_away_when_files_are_read_at_last_is_unavailable(tmp_path: Path) -> None:
    events = table(tmp_path)
    events.append(rows(A, range(3)), {A: 2})
    found = events.scan()
    assert events.collect(found.select(pl.len())).item() == 3
    for file in (tmp_path / "events").rglob("*.parquet"):
        file.rename(file.with_suffix(".away"))
    with pytest.raises(Unavailable, match="reading"):
        events.collect(found.select("x"))
