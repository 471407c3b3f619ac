import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import polars as pl
import pytest

from tidemill.core.errors import Unavailable
from tidemill.events.lake import LakeTable
from tidemill.events.pictures import PictureStore
from tidemill.events.sources import Source
from tidemill.events.upkeep import Policy, Upkeep, expire, vacuum
from tidemill.testing.clock import ManualClock
from tidemill.testing.waiting import eventually

SCHEMA: dict[str, pl.DataType] = {"source": pl.String(), "offset": pl.Int64(), "event_date": pl.Date()}
A, B = Source("c", "t", 0), Source("c", "t", 1)
TODAY = date(2026, 11, 25)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def table(folder: Path) -> LakeTable:
    return LakeTable(str(folder / "events"), SCHEMA, pipeline="ingest", partition_by=("event_date",), compacts=False)


def add(to: LakeTable, offsets: Sequence[int], day: date = TODAY, source: Source = A) -> None:
    columns = {"source": [str(source)] * len(offsets), "offset": list(offsets), "event_date": [day] * len(offsets)}
    to.append(pl.DataFrame(columns, schema=SCHEMA), {source: offsets[-1]})


def offsets_of(of: LakeTable, version: int | None = None, source: Source = A) -> list[int]:
    rows = of.scan(version).filter(pl.col("source") == str(source)).sort("offset")
    return rows.collect()["offset"].to_list()


def files_of(folder: Path) -> int:
    return len(list((folder / "events").glob("event_date=*/*.parquet")))


def a_month_passes(folder: Path) -> None:
    """As far as the log's files tell."""
    for file in (folder / "events" / "_delta_log").iterdir():
        os.utime(file, (file.stat().st_atime - 30 * 86400, file.stat().st_mtime - 30 * 86400))


def test_days_before_the_first_kept_one_go_and_no_others(tmp_path: Path) -> None:
    events = table(tmp_path)
    for age in range(4):
        add(events, [age], TODAY - timedelta(days=age))
    assert expire(table(tmp_path), TODAY - timedelta(days=1)) == 2
    assert offsets_of(events) == [0, 1]
    assert expire(table(tmp_path), TODAY - timedelta(days=1)) == 0


def test_what_was_taken_is_known_whatever_upkeep_did(tmp_path: Path) -> None:
    events = table(tmp_path)
    add(events, [7], TODAY - timedelta(days=99), source=B)
    for offset in range(30):
        add(events, [offset])
    spans = events.last_span(A), events.last_span(B)
    expire(table(tmp_path), TODAY)  # all of B's rows
    assert table(tmp_path).compact() == 30
    a_month_passes(tmp_path)
    vacuum(table(tmp_path), timedelta(hours=1))
    again = table(tmp_path)
    assert (again.version_of(A), again.version_of(B)) == (29, 7)
    assert (again.last_span(A), again.last_span(B)) == spans
    add(again, [7], TODAY, source=B)
    add(again, [28, 29, 30])
    assert (offsets_of(again, source=B), offsets_of(again)) == ([], [*range(31)])


def test_the_log_of_old_versions_goes_and_the_newest_stays_readable(tmp_path: Path) -> None:
    events = table(tmp_path)
    for offset in range(30):
        add(events, [offset])
    a_month_passes(tmp_path)
    vacuum(table(tmp_path), timedelta(hours=1))
    assert len(list((tmp_path / "events" / "_delta_log").glob("*.json"))) < 5
    assert offsets_of(table(tmp_path)) == [*range(30)]


def test_a_handle_that_is_older_than_the_log_is_opened_anew(tmp_path: Path) -> None:
    idle, events = table(tmp_path), table(tmp_path)
    add(idle, [0])
    for offset in range(1, 30):
        add(events, [offset])
    a_month_passes(tmp_path)
    vacuum(table(tmp_path), timedelta(hours=1))
    with pytest.raises(Unavailable):
        idle.version_of(B)
    assert idle.version_of(A) == 29
    add(idle, [29, 30])
    assert offsets_of(idle) == [*range(31)]


def test_a_version_that_is_younger_than_the_vacuum_allows_can_still_be_read(tmp_path: Path) -> None:
    events = table(tmp_path)
    for offset in range(30):
        add(events, [offset])
    version = events.delta_version
    table(tmp_path).compact()
    expire(table(tmp_path), TODAY + timedelta(days=1))
    assert vacuum(table(tmp_path), timedelta(hours=1)) == 0
    assert offsets_of(events, version) == [*range(30)]
    assert files_of(tmp_path) == 31


def test_days_with_few_small_files_are_left_alone(tmp_path: Path) -> None:
    events = table(tmp_path)
    for offset in range(20):
        add(events, [offset])
    for offset in range(20, 25):
        add(events, [offset], TODAY - timedelta(days=1))
    assert table(tmp_path).compact(at_least=16) == 20
    assert table(tmp_path).compact(at_least=16) == 0
    assert offsets_of(events) == [*range(25)]


def test_many_days_are_merged_in_few_commits(tmp_path: Path) -> None:
    events = table(tmp_path)
    days = [TODAY - timedelta(days=age) for age in range(40)]
    for first in (0, 40):
        columns = {"source": [str(A)] * 40, "offset": range(first, first + 40), "event_date": days}
        events.append(pl.DataFrame(columns, schema=SCHEMA), {A: first + 39})
    before = events.delta_version
    assert table(tmp_path).compact() == 80
    assert (events.delta_version - before, offsets_of(events)) == (2, [*range(80)])


def test_appends_go_on_beside_all_upkeep_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    events, done = table(tmp_path), Event()
    add(events, [0])

    def keep() -> None:
        own = table(tmp_path)
        actions: list[Callable[[], object]] = [
            own.compact,
            lambda: expire(own, TODAY),
            lambda: vacuum(own, timedelta(hours=1)),
        ]
        while not done.is_set():
            for action in actions:
                try:
                    action()
                except Unavailable:  # it lost against an append: the next round
                    continue

    thread = Thread(target=keep)
    thread.start()
    try:
        for offset in range(1, 80):
            add(events, [offset], TODAY if offset % 4 else TODAY - timedelta(days=1))
    finally:
        done.set()
        thread.join()
    expire(table(tmp_path), TODAY)
    assert offsets_of(table(tmp_path)) == [offset for offset in range(80) if offset % 4 or not offset]
    assert table(tmp_path).version_of(A) == 79


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


def test_a_round_deletes_what_is_older_than_the_policy_says_pictures_too(tmp_path: Path, clock: ManualClock) -> None:
    events, store = table(tmp_path), PictureStore(str(tmp_path / "pictures"))
    for age in (2, 1):
        add(events, [2 - age], TODAY - timedelta(days=age))
        store.put(b"picture", TODAY - timedelta(days=age))
    Upkeep([events], Policy(), clock, sweeps=[store.sweep]).round()
    assert offsets_of(events) == [0, 1]
    Upkeep([events], Policy(keep=timedelta(days=1)), clock, sweeps=[store.sweep]).round()
    assert offsets_of(events) == [1]
    assert [one.name for one in (tmp_path / "pictures").iterdir()] == ["2026-11-24"]


def test_tables_that_are_not_there_yet_need_no_upkeep(tmp_path: Path, clock: ManualClock) -> None:
    Upkeep([table(tmp_path)], Policy(keep=timedelta(days=1)), clock).round()
    assert not table(tmp_path).exists


def test_small_files_are_merged_once_there_are_many_without_a_call_that_waits(
    tmp_path: Path, clock: ManualClock
) -> None:
    events = table(tmp_path)
    upkeep = Upkeep([events], Policy(), clock)
    for offset in range(64):
        upkeep.begin_if_due()
        add(events, [offset])
    before = events.delta_version
    assert before == 64
    upkeep.begin_if_due()
    eventually(lambda: events.delta_version == before + 1)
    upkeep.close()
    upkeep.begin_if_due()
    upkeep.close()
    assert events.delta_version == before + 1


def test_each_hour_there_is_a_whole_round(tmp_path: Path, clock: ManualClock) -> None:
    events = table(tmp_path)
    add(events, [0], TODAY - timedelta(days=9))
    upkeep = Upkeep([events], Policy(keep=timedelta(days=1)), clock)
    for _ in range(2):
        upkeep.begin_if_due()
        clock.advance(3660)
    eventually(lambda: offsets_of(events) == [])
    upkeep.close()
