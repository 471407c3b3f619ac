"""Replays from quarantine, on a real broker: each takes effect once, whatever is repeated."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.ingest.site import Site

from tidemill.cli import main
from tidemill.cli.quarantine import preview
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import InvalidInput, NotFound, Unavailable
from tidemill.events.cluster import Cluster
from tidemill.events.records import Quarantined
from tidemill.events.replay import TransactionWriter
from tidemill.events.sources import Source
from tidemill.ingest import quarantine
from tidemill.ingest.batch import ORIGIN, BatchReader
from tidemill.ingest.quarantine import QuarantineStore, Wanted, parse_place
from tidemill.ingest.tables import QUARANTINE_COLUMNS, events_table, quarantine_table
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually

A, B = Source("c", "t", 0), Source("c", "t", 1)
MIB = 1 << 20


def relaxed(resource: ContinualModel) -> ContinualModel:
    """The resource with exposures of up to a million."""
    rules = resource.model_dump(mode="json", by_alias=True)
    rules["spec"]["events"]["fields"][1]["max"] = 1_000_000
    return ContinualModel.model_validate(rules)


def store(site: Site) -> QuarantineStore:
    return QuarantineStore(site.resource, lake=site.lake, kafka=site.kafka, clock=SystemClock())


def event(site: Site, name: str, **fields: Any) -> tuple[str, bytes]:
    now = to_ms(SystemClock().now())
    return "A", site.event_json(**{"event_id": name, "captured_at": now, **fields})


def origins(site: Site) -> dict[str, str | None]:
    found = events_table(site.lake, site.resource).scan().select("event_id", ORIGIN).collect()
    assert found["event_id"].is_unique().all()
    return dict(found.iter_rows())


def quarantined(site: Site, count: int) -> list[Quarantined]:
    eventually(lambda: len(store(site).find(Wanted())) == count, 40, every_s=0.2)
    return store(site).find(Wanted())


@pytest.mark.kafka
@pytest.mark.redis
def test_a_replay_takes_effect_once_however_often_it_is_repeated(site: Site) -> None:
    site.send_values([event(site, "good"), event(site, "over", exposure_ms=5000), event(site, "high", exposure_ms=9e9)])
    with site.worker():
        found = {record.offset: f"{record.source}/{record.offset}" for record in quarantined(site, 2)}
    over, high = (found[offset] for offset in sorted(found))
    site.resource = relaxed(site.resource)
    first = store(site).replay(Wanted(), by="me")
    assert (len(first.replayed), first.gone, first.already) == (2, [], 0)
    assert store(site).replay(Wanted(), by="me").already == 2
    store(site).replay(Wanted(), by="me", again=True)  # in the same batch as the first
    with site.worker():
        eventually(lambda: origins(site) == {"good": None, "over": over}, 40, every_s=0.2)
        again = quarantined(site, 4)
        assert Counter(record.origin for record in again) == {None: 2, high: 2}
    store(site).replay(Wanted(), by="me", again=True)  # after a restart, the bad one by its first origin too
    rules = site.resource.model_dump(mode="json", by_alias=True)
    rules["spec"]["events"]["fields"][1]["max"] = 1e10
    site.resource = ContinualModel.model_validate(rules)
    site.send_values([event(site, "last")])
    with site.worker():
        eventually(lambda: origins(site) == {"good": None, "over": over, "high": high, "last": None}, 40, every_s=0.2)
        site.check_rows()


@pytest.mark.kafka
@pytest.mark.redis
def test_a_value_that_quarantine_only_points_to_is_read_back_from_its_place(site: Site) -> None:
    site.send_values([event(site, "large", exposure_ms=5000, operator="x" * MIB)])
    with site.worker():
        (record,) = quarantined(site, 1)
    assert (record.truncated, record.value) == (True, b"")
    site.resource = relaxed(site.resource)
    assert len(store(site).replay(Wanted(), by="me", dry_run=True).replayed) == 1
    assert store(site).markers() == {}
    store(site).replay(Wanted(), by="me")
    assert store(site).markers().keys() == {(record.source, record.offset)}
    with site.worker():
        eventually(lambda: origins_or_none(site) == {"large": f"{record.source}/{record.offset}"}, 40, every_s=0.2)


@pytest.mark.kafka
@pytest.mark.redis
def test_a_large_value_that_the_broker_does_not_tell_is_not_replayed_as_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.send_values([event(site, "large", exposure_ms=5000, operator="x" * MIB)])
    with site.worker():
        (record,) = quarantined(site, 1)
    answers = iter([Unavailable("no answer"), None])

    def read_value(*_: object, **__: object) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    monkeypatch.setattr(quarantine, "read_value", read_value)
    with pytest.raises(Unavailable):
        store(site).replay(Wanted(), by="me")
    found = store(site).replay(Wanted(), by="me")
    assert (found.replayed, found.gone) == ([], [(record.source, record.offset)])
    assert store(site).markers() == {}
    with Cluster(site.kafka) as cluster:
        assert sum(cluster.ends(site.topics.events, [0, 1]).values()) == 1


@pytest.mark.kafka
def test_values_are_replayed_a_bounded_part_at_a_time(
    site: Site, resource: ContinualModel, filled: QuarantineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(one.value) for one in filled.find(Wanted())[::-1]]
    written: list[list[bytes | None]] = []
    monkeypatch.setattr(quarantine, "_TOGETHER_BYTES", sizes[0] + sizes[1])
    monkeypatch.setattr(
        TransactionWriter, "write", lambda _, outs: written.append([one.value for one in outs if one.headers])
    )
    store = QuarantineStore(resource, lake=str(tmp_path / "lake"), kafka=site.kafka, clock=SystemClock())
    assert [offset for _, offset in store.replay(Wanted(), by="me").replayed] == [1, 4, 2, 9]
    assert [[len(value or b"") for value in part] for part in written] == [sizes[:2], sizes[2:3], sizes[3:]]


def origins_or_none(site: Site) -> dict[str, str | None] | None:
    try:
        return origins(site)
    except NotFound:
        return None


def raw(offset: int, value: bytes, timestamp: int) -> Any:
    from types import SimpleNamespace

    headers = [("trace", b"\x00"), (ORIGIN, b"c/t/0/1")] if offset == 9 else []
    return SimpleNamespace(offset=offset, value=value, timestamp=timestamp, key=b"k", headers=headers)


@pytest.fixture
def filled(resource: ContinualModel, tmp_path: Path, event_json: Any) -> QuarantineStore:
    """Four bad records of two sources."""
    records = {
        A: [raw(1, b"\xff\x1b[31m", 1000), raw(4, event_json(exposure_ms=-1), 2000)],
        B: [raw(2, event_json(exposure_ms=None), 3000), raw(9, event_json(shift="x"), 4000)],
    }
    batch = BatchReader(resource).read(records, {A: 0, B: 0})
    quarantine_table(str(tmp_path / "lake"), resource).append(batch.quarantine, batch.upto)
    return QuarantineStore(resource, lake=str(tmp_path / "lake"), kafka=None, clock=SystemClock())


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (Wanted(), [9, 2, 4, 1]),
        (Wanted(reason="NO JSON"), [1]),
        (Wanted(field="exposure_ms"), []),
        (Wanted(field="captured_at"), [9, 2, 4]),
        (Wanted(source=str(B)), [9, 2]),
        (Wanted(source="c/"), [9, 2, 4, 1]),
        (Wanted(since=at(2000), until=at(4000)), [2, 4]),
        (Wanted(places=frozenset([(str(A), 4), (str(B), 4)])), [4]),
        (Wanted(places=frozenset()), []),
    ],
)
def test_records_are_found_by_what_is_wanted_the_newest_first(
    filled: QuarantineStore, wanted: Wanted, offsets: list[int]
) -> None:
    assert [record.offset for record in filled.find(wanted)] == offsets


def test_a_record_is_found_as_it_came(filled: QuarantineStore) -> None:
    record = filled.get((str(B), 9))
    assert (record.key, record.headers, record.origin) == (b"k", [("trace", b"\x00"), (ORIGIN, b"c/t/0/1")], "c/t/0/1")
    with pytest.raises(NotFound, match="c/t/1/10"):
        filled.get((str(B), 10))


def test_a_table_from_before_replays_were_known_is_read(resource: ContinualModel, tmp_path: Path) -> None:
    table = quarantine_table(str(tmp_path), resource)
    batch = BatchReader(resource).read({A: [raw(1, b"", 1000)]}, {A: 0})
    batch.quarantine.drop(ORIGIN).write_delta(table.uri)
    (found,) = QuarantineStore(resource, lake=str(tmp_path), kafka=None, clock=SystemClock()).find(Wanted())
    assert (found.offset, found.origin) == (1, None)


@pytest.mark.parametrize("text", ["", "c/t/0", "c/t/0/x", "7", "c/t/0/-1"])
def test_a_place_is_a_source_and_an_offset(text: str) -> None:
    assert parse_place("c/t/0/17") == ("c/t/0", 17)
    with pytest.raises(InvalidInput):
        parse_place(text)


def test_a_preview_is_no_order_to_a_terminal() -> None:
    assert preview("ä\n\x1b[31m\u202e".encode() + b"\xff") == "ä\\n\\x1b[31m\\u202e\\xff"
    assert preview(b"x" * 1000) == "x" * 400 + "… (1000 bytes)"


@pytest.fixture
def project(filled: QuarantineStore, resource: ContinualModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with the model declared and its lake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_LAKE", str(tmp_path / "lake"))
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(resource)
    return resource.metadata.name


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return out


def test_the_command_lists_and_shows(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = said(capsys, "quarantine", "list", project, "--source", "c/t/0").splitlines()
    assert [row.split()[0] for row in rows] == ["record", "c/t/0/4", "c/t/0/1"]
    listed = json.loads(said(capsys, "quarantine", "list", project, "--limit", "1", "-o", "json"))
    assert [(one["record"], one["field"], one["origin"]) for one in listed] == [("c/t/1/9", "captured_at", "c/t/0/1")]
    shown = said(capsys, "quarantine", "show", project, "c/t/0/1")
    assert "no JSON" in shown
    assert "\\xff\\x1b[31m" in shown
    assert json.loads(said(capsys, "quarantine", "show", project, "c/t/1/9", "-o", "json"))["offset"] == 9


@pytest.mark.parametrize("output", [("list",), ("show", "\x1b/t/0/7")])
def test_no_cell_gives_orders_to_a_terminal(
    resource: ContinualModel, project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: tuple[str, ...]
) -> None:
    escape = "\x1b[31m\x9b\n"
    told = {"source": "\x1b/t/0", "reason": f"why{escape}", "field": f"field{escape}", "origin": f"from{escape}"}
    sent = {"key": escape.encode(), "value": escape.encode(), "headers": json.dumps([[escape, "G1s="]])}
    day = {"offset": 7, "available_at": at(5000), "available_date": at(5000).date(), "truncated": False}
    frame = pl.DataFrame([{**told, **sent, **day}], schema=QUARANTINE_COLUMNS)
    quarantine_table(str(tmp_path / "lake"), resource).append(frame, {Source("\x1b", "t", 0): 7})
    command, *place = output
    shown = said(capsys, "quarantine", command, project, *place)
    assert "why\\x1b[31m\\x9b\\n" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.kafka
def test_the_command_replays(
    kafka: str, site: Site, project: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA", kafka)
    assert "1 records would be replayed" in said(capsys, "quarantine", "replay", project, "c/t/0/4", "--dry-run")
    found = json.loads(said(capsys, "quarantine", "replay", project, "--field", "captured_at", "-o", "json"))
    assert found["replayed"] == ["c/t/0/4", "c/t/1/2", "c/t/1/9"]
    assert "3 were replayed before" in said(
        capsys, "quarantine", "replay", project, "--source", "c/", "--until", "1970-01-01T00:00:09"
    )
