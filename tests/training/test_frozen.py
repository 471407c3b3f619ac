"""Rows that stay as they are under a name."""

import threading
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from tidemill.testing.training import START, TAKEN_AT, snapshot_of, snapshot_rows, tiny_resource
from tidemill.training.frozen import (
    FrozenRecord,
    find_snapshot,
    freeze,
    frozen_folder,
    frozen_named,
    list_frozen,
    open_frozen,
)
from tidemill.training.snapshot import Snapshot, snapshots_folder

NOW = START + timedelta(days=2)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a version that need not be there."""
    return tmp_path / "default" / "phone-inspection" / "r1"


@pytest.fixture
def source(version: Path) -> Snapshot:
    return snapshot_of(snapshots_folder(version), snapshot_rows(tiny_resource(), 200, fresh=60))


def fresh(source: Snapshot) -> pl.DataFrame:
    return source.frame().filter(pl.col("part") == "fresh")


def frozen(version: Path, source: Snapshot, name: str = "golden", rows: pl.DataFrame | None = None) -> FrozenRecord:
    chosen = fresh(source) if rows is None else rows
    return freeze(frozen_folder(version), name, source, chosen, query="part fresh", by="ann", now=NOW)


def test_what_was_frozen_is_opened_by_its_name(version: Path, source: Snapshot) -> None:
    frozen(version, source)
    found = open_frozen(frozen_folder(version), "golden")
    assert found.frame().equals(fresh(source))
    assert found.record.rows == {"fresh": 60, "new": 0}
    assert found.reference().equals(source.reference())


def test_the_record_says_of_what_when_and_by_whom(version: Path, source: Snapshot) -> None:
    said = frozen(version, source)
    assert frozen_named(frozen_folder(version), "golden") == said
    assert (said.of, said.query, said.rows, said.by) == (source.digest, "part fresh", 60, "ann")
    assert said.frozen_at == to_ms(NOW)
    record = open_frozen(frozen_folder(version), "golden").record
    assert record.query == f"{source.record.query}; frozen of {source.digest}: part fresh"
    assert (record.events, record.as_of) == (source.record.events, TAKEN_AT)


def test_a_name_that_nobody_froze_is_not_found_with_what_to_do(version: Path, source: Snapshot) -> None:
    with pytest.raises(NotFound, match="there is no frozen dataset golden") as nothing:
        open_frozen(frozen_folder(version), "golden")
    assert "tidemill dataset freeze" in (nothing.value.hint or "")
    frozen(version, source, "gold")
    with pytest.raises(NotFound, match="there are gold"):
        open_frozen(frozen_folder(version), "golden")


def test_the_same_rows_again_change_nothing_and_others_are_a_conflict(version: Path, source: Snapshot) -> None:
    said = frozen(version, source)
    before = sorted(path.name for path in frozen_folder(version).iterdir())
    assert frozen(version, source) == said
    with pytest.raises(Conflict, match="golden is frozen already, with 60 rows"):
        frozen(version, source, rows=fresh(source).head(59))
    assert sorted(path.name for path in frozen_folder(version).iterdir()) == before
    assert open_frozen(frozen_folder(version), "golden").frame().height == 60


def test_of_two_who_freeze_one_name_at_once_one_wins(version: Path, source: Snapshot) -> None:
    ready = threading.Barrier(2)
    results: list[int | None] = []

    def race(rows: int) -> None:
        ready.wait()
        try:
            results.append(frozen(version, source, rows=fresh(source).head(rows)).rows)
        except Conflict:
            results.append(None)

    threads = [threading.Thread(target=race, args=(rows,)) for rows in (30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [rows for rows in results if rows is not None]
    assert open_frozen(frozen_folder(version), "golden").frame().height == won


@pytest.mark.parametrize("name", ["", "Golden", "gold.json", "../gold", "-gold", "a" * 64])
def test_a_name_is_a_name(version: Path, source: Snapshot, name: str) -> None:
    with pytest.raises(InvalidInput, match="is no name"):
        frozen(version, source, name)


def test_nothing_is_not_frozen(version: Path, source: Snapshot) -> None:
    with pytest.raises(InvalidInput, match=r"no row .* is chosen \(part fresh\)"):
        frozen(version, source, rows=fresh(source).clear())


def test_a_snapshot_is_found_by_digest_and_by_name(version: Path, source: Snapshot) -> None:
    said = frozen(version, source)
    assert find_snapshot(version, source.digest) == source
    assert find_snapshot(version, "golden").digest == said.digest
    assert find_snapshot(version, said.digest).frame().equals(fresh(source))
    with pytest.raises(NotFound, match="there is no snapshot 000"):
        find_snapshot(version, "0" * 64)


def test_names_are_listed_and_only_they(version: Path, source: Snapshot) -> None:
    assert list_frozen(frozen_folder(version)) == []
    said = [frozen(version, source, name) for name in ("b", "a")]
    (frozen_folder(version) / ".a.12345678.tmp").write_bytes(b"half")
    assert list_frozen(frozen_folder(version)) == said[::-1]


def test_a_changed_row_or_record_is_refused(version: Path, source: Snapshot) -> None:
    said = frozen(version, source)
    path = frozen_folder(version) / said.digest / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Corrupt, match=r"rows\.parquet"):
        open_frozen(frozen_folder(version), "golden").frame()
    (frozen_folder(version) / "golden.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match=r"golden\.json is no record"):
        open_frozen(frozen_folder(version), "golden")
