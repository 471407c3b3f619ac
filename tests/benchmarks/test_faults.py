"""The parts of the fault run: its plan, what it breaks on purpose, and that its account finds it."""

import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from benchmarks.faults.recovery import Recovery, answers_dropped, recovery
from benchmarks.faults.site import the_resource
from benchmarks.faults.story import ADD_PARTITIONS, KILL, MAKE_ANEW, MAKE_ANEW_AFTER_DEATH, OTHERS, plan
from benchmarks.faults.worker import Journal, forgetful
from benchmarks.faults.workers import Worker
from benchmarks.faults.wrong_fence import fence_by_batch
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.events import lake
from tidemill.events.lake import LakeTable
from tidemill.events.sources import Source
from tidemill.features import online
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineReader, OnlineRows

SOURCE = Source("c", "t", 0)
NOW = datetime(2025, 4, 11, 12, tzinfo=UTC)
SCHEMA = {"source": pl.String(), "offset": pl.Int64()}


@given(st.integers(0, 1 << 30), st.integers(0, 100))
def test_a_plan_has_each_fault_and_is_the_same_for_the_same_seed(seed: int, kills: int) -> None:
    found = plan(random.Random(seed), kills)
    assert Counter(found) == Counter([KILL] * kills + [*OTHERS, MAKE_ANEW, MAKE_ANEW_AFTER_DEATH, ADD_PARTITIONS])
    assert found == plan(random.Random(seed), kills)
    assert found.index(MAKE_ANEW_AFTER_DEATH) < found.index(ADD_PARTITIONS)


def rows(first: int, last: int) -> pl.DataFrame:
    return pl.DataFrame({"source": str(SOURCE), "offset": range(first, last + 1)}, schema=SCHEMA)


def offsets(table: LakeTable) -> list[int]:
    return sorted(table.scan().select("offset").collect()["offset"])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal"))


def test_a_commit_whose_answer_is_dropped_is_there_once(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = forgetful(write_deltalake, journal, random.Random(1), share=0.5)
    monkeypatch.setattr(lake, "write_deltalake", write)
    table = LakeTable(str(tmp_path / "m.events"), SCHEMA)
    for first in range(0, 40, 4):
        table.append(rows(first, first + 3), {SOURCE: first + 3})
    assert offsets(table) == list(range(40))
    lines = (tmp_path / "journal").read_text().splitlines()
    assert 0 < sum("dropped events" in line for line in lines) < len(lines) / 2


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "_newer", lake._newer)
    monkeypatch.setattr(online, "fresh", online.fresh)  # type: ignore[attr-defined]
    fence_by_batch()


@pytest.mark.usefixtures("broken")
def test_a_fence_by_batch_doubles_rows_of_the_lake_where_batches_overlap(tmp_path: Path) -> None:
    table = LakeTable(str(tmp_path / "m.events"), SCHEMA)
    table.append(rows(0, 9), {SOURCE: 9})
    table.append(rows(5, 14), {SOURCE: 14})
    assert offsets(table) == sorted([*range(15), *range(5, 10)])


@pytest.mark.redis
@pytest.mark.usefixtures("broken")
def test_a_fence_by_batch_takes_events_again_into_an_online_row(redis_url: str, topic_prefix: str) -> None:
    resource = the_resource()
    kept = OnlineRows(redis_url, topic_prefix, layout_of(resource))
    kept.rebuild(lambda: Filling({}, ()))
    kept.apply(events(0, 9))
    kept.apply(events(0, 9))
    kept.apply(events(5, 14))
    kept.close()
    reader = OnlineReader(redis_url, topic_prefix)
    (row,) = reader.read(["a"], to_ms(NOW))
    reader.close()
    assert row.fence == {str(SOURCE): 14}
    assert row.values["seen_10h"] == 20


def events(first: int, last: int) -> pl.DataFrame:
    time = pl.lit(NOW, pl.Datetime("us", "UTC"))
    return rows(first, last).with_columns(
        entity=pl.lit("a"), event_time=time, available_at=time, exposure_ms=pl.col("offset").cast(pl.Float64())
    )


def worker(folder: Path, name: str, lines: list[str], killed_at: float | None = None) -> Any:
    path = folder / name
    path.write_text("\n".join(lines) + "\n5.0 cut o")
    return Worker(SimpleNamespace(), path, killed_at)  # type: ignore[arg-type]


def test_recovery_is_the_time_until_one_of_the_victims_partitions_is_committed_again(tmp_path: Path) -> None:
    victim = worker(tmp_path, "a", ["1.0 commit 0,1", "1.5 begun events"], killed_at=2.0)
    other = worker(
        tmp_path, "b", ["1.2 commit 2", "2.5 commit 2", "4.5 commit 0", "6.5 commit 0,1", "7.0 dropped events"]
    )
    assert victim.in_batch
    assert not worker(tmp_path, "c", ["1.0 commit 0"]).in_batch
    assert recovery([victim], [victim, other], others=[9.0]) == Recovery(alone=2.5, at_all=2.5)
    assert recovery([victim], [victim, other], others=[4.0]) == Recovery(alone=0.0, at_all=2.5)
    assert answers_dropped([victim, other]) == 1
