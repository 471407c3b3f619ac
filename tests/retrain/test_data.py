"""The step snapshot on a lake with predictions."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Corrupt, DeadlineExceeded, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Decision, Request
from tidemill.events.sources import Source
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.retrain import data
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.frozen import freeze, frozen_folder
from tidemill.training.snapshot import SnapshotRecord, snapshots_folder

GRANT = Grant(run=RUN, token="token-1", expires_at=0, cause="initial", reason="enough labels")
SEEN = {"name": "seen", "agg": "count", "over": ["1h"]}
WINDOWS: dict[str, list[Any]] = {"image": ["brightness", "contrast"], "windows": [SEEN]}


def nobody(request: Request, deadline_s: float) -> Decision:
    raise DeadlineExceeded("nobody is asked here")


@pytest.fixture
def place(site: Site) -> Place:
    site.put(tiny_resource(site.resource.metadata.name, features=WINDOWS))
    return Place(
        resource=site.resource,
        lake=site.lake,
        root=site.artifacts,
        clock=SystemClock(),
        ask=nobody,
        registry=lambda: MemoryRegistry(SystemClock()),
    )


def predicted(site: Site, event: int) -> None:
    """Append a prediction of an event that saw 77 events."""
    source = Source("c", "predictions", 0)
    at = START + timedelta(seconds=event + 1)
    row = {
        "source": str(source),
        "offset": event,
        "prediction_id": f"p{event}",
        "entity": f"station-{event % 3}",
        "event_id": f"e{event}",
        "predicted_at": at,
        "available_at": at,
        "features": json.dumps({"seen_1h": 77}),
        "feature_status": "PRESENT",
    }
    table = LakeTable(table_uri(site.lake, site.resource.id, "predictions"), PREDICTIONS, pipeline="outcomes")
    table.append(pl.DataFrame([row], schema=PREDICTIONS, orient="row"), {source: event})


def test_a_snapshot_prefers_the_windows_that_were_served_and_says_so(site: Site, place: Place) -> None:
    site.fill(events_frame(200))
    before = data.snapshot(place, GRANT)
    assert before.record.predictions is None
    predicted(site, 30)
    after = data.snapshot(place, GRANT)
    frame = after.frame()
    assert frame.filter(pl.col("windows_from") == "p30")["seen_1h"].to_list() == [77]
    assert frame.filter(pl.col("event_id") != "e30")["windows_from"].null_count() == frame.height - 1
    rest = pl.col("event_id") != "e30"
    assert frame.filter(rest)["seen_1h"].equals(before.frame().filter(rest)["seen_1h"])
    assert "logged with the event's first prediction" in after.record.query
    assert after.record.predictions is not None
    assert after.record.predictions.offsets == {"c/predictions/0": 30}


def test_rows_of_one_lake_are_the_same_bits_each_time(site: Site, place: Place) -> None:
    site.fill(events_frame(200))
    for event in (30, 31):
        predicted(site, event)
    one, other = data.snapshot(place, GRANT), data.snapshot(place, GRANT)
    assert one.record.files == other.record.files


NOW = START + timedelta(days=1)


@dataclass(frozen=True)
class Fixed:
    """A clock that stands still, so that one lake gives one snapshot."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError


@pytest.fixture
def still(place: Place) -> Place:
    spread = {"name": "spread", "agg": "std", "of": "contrast", "over": ["1h"]}
    features = {**WINDOWS, "windows": [SEEN, spread]}
    return replace(place, clock=Fixed(), resource=tiny_resource(place.resource.metadata.name, features=features))


def scattered(site: Site) -> None:
    """Many small files, events of one time among them, and labels of three people that differ."""
    contrast = (pl.col("offset") * 0.37) % 1
    events = events_frame(240).with_columns(event_time=pl.col("event_time").dt.truncate("60s"), contrast=contrast)
    for part in events.iter_slices(40):
        site.fill(part)
    more = labels_frame(events.filter(pl.col("offset") % 5 == 0), after_s=9, source="c/labels/1", labeller="bob")
    site.fill(events.clear(), more.with_columns(value=pl.lit('{"defect": "ok"}')))


OTHER_PROCESS = """
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from tests.retrain.test_data import GRANT, Fixed, nobody
from tidemill.core.clock import SystemClock
from tidemill.retrain import data
from tidemill.retrain.place import Place
from tidemill.spec.load import load
from tidemill.testing.registry import MemoryRegistry

resource, lake, root = load(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
registry = lambda: MemoryRegistry(SystemClock())
place = Place(resource=resource, lake=lake, root=root, clock=Fixed(), ask=nobody, registry=registry)
print("digest", data.snapshot(place, GRANT).digest)
"""


def test_one_lake_gives_one_digest_in_another_process_too(site: Site, still: Place, tmp_path: Path) -> None:
    scattered(site)
    first = data.snapshot(still, GRANT)
    assert data.snapshot(still, GRANT).digest == first.digest
    written = tmp_path / "resource.json"
    written.write_text(still.resource.model_dump_json(by_alias=True, exclude_unset=True))
    other = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(written), site.lake, str(tmp_path / "elsewhere")],
        env={**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"digest {first.digest}" in other.stdout, other.stderr


def test_rows_of_a_compacted_lake_are_the_same_bits(site: Site, still: Place) -> None:
    scattered(site)
    before = data.snapshot(still, GRANT)
    for name in ("events", "labels"):
        assert LakeTable(table_uri(site.lake, site.resource.id, name)).compact() > 1
    after = data.snapshot(still, GRANT)
    assert after.record.events.delta_version > before.record.events.delta_version
    assert after.record.files == before.record.files
    at = replace_versions(after.record, before.record)
    assert at == before.record


def replace_versions(record: SnapshotRecord, of: SnapshotRecord) -> SnapshotRecord:
    return msgspec.structs.replace(record, events=of.events, labels=of.labels)


def test_another_run_or_another_time_is_another_snapshot(site: Site, still: Place) -> None:
    scattered(site)
    first = data.snapshot(still, GRANT)
    other = msgspec.structs.replace(GRANT, run="r2")
    assert data.snapshot(still, other).digest != first.digest


def test_a_run_from_a_snapshot_learns_from_the_same_bits_whatever_came_since(site: Site, still: Place) -> None:
    site.fill(events_frame(200))
    first = data.snapshot(still, GRANT)
    site.fill(events_frame(100, first=200))
    again = data.snapshot(still, msgspec.structs.replace(GRANT, run="r2"), first.digest)
    assert again == first
    assert data.open_from(still, GRANT, again.digest).frame().equals(first.frame())
    assert data.snapshot(still, GRANT).digest != first.digest


def test_a_run_from_a_frozen_dataset_learns_from_its_rows(site: Site, still: Place) -> None:
    site.fill(events_frame(200))
    first = data.snapshot(still, GRANT)
    folder = frozen_folder(still.version_folder(RUN))
    said = freeze(folder, "golden", first, first.frame().head(150), query="the oldest", by="ann", now=NOW)
    found = data.snapshot(still, GRANT, "golden")
    assert found.digest == said.digest
    assert found.frame().equals(first.frame().head(150))
    assert data.open_from(still, GRANT, found.digest) == found


def test_a_snapshot_that_is_not_there_or_was_changed_is_refused_before_anything_is_done(
    site: Site, still: Place
) -> None:
    site.fill(events_frame(200))
    with pytest.raises(NotFound, match="there is no frozen dataset golden"):
        data.snapshot(still, GRANT, "golden")
    first = data.snapshot(still, GRANT)
    rows = first.folder / "rows.parquet"
    rows.write_bytes(rows.read_bytes() + b"!")
    with pytest.raises(Corrupt, match=r"rows\.parquet is not the file that was written"):
        data.snapshot(still, GRANT, first.digest)


def test_rows_that_a_gate_judges_by_are_never_trained_on(site: Site, still: Place) -> None:
    gates = {"fresh": {"rows": 60}, "frozen": {"dataset": "golden"}}
    resource = tiny_resource(site.resource.metadata.name, gates=gates)
    still = replace(still, resource=resource)
    site.fill(events_frame(200))
    first = data.snapshot(still, GRANT)
    assert (first.record.frozen, first.record.held_out) == (None, 0)
    fresh = first.frame().filter(pl.col("part") == "fresh")
    kept = freeze(
        frozen_folder(still.version_folder(RUN)), "golden", first, fresh, query="part fresh", by="ann", now=NOW
    )
    site.fill(events_frame(100, first=200))
    after = data.snapshot(still, GRANT)
    trained = after.frame().filter(pl.col("part") != "fresh")
    assert trained.join(fresh, on=["entity", "event_id"], how="semi").height == 0
    assert (after.record.frozen, after.record.held_out) == (kept.digest, 60)
    assert after.record.rows == {"new": 180, "replay": 0, "fresh": 60}


def test_disputed_events_are_left_out_and_counted_and_their_words_kept(site: Site, still: Place) -> None:
    fields = [{"name": "defect", "type": "class"}]
    labels = {"fields": fields, "conflict": "unanimous", "maturity": {"after": "4s"}}
    still = replace(still, resource=tiny_resource(site.resource.metadata.name, labels=labels))
    scattered(site)
    found = data.snapshot(still, GRANT)
    assert found.record.disputed == 24  # of the 48 that bob saw, half are scratched
    assert sum(found.record.rows.values()) == 216
    assert found.words()["event_id"].n_unique() == 48
    assert found.words().filter("disputed")["event_id"].n_unique() == 24


def test_a_run_that_dies_while_it_writes_leaves_no_snapshot(
    site: Site, still: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill(events_frame(200))

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            data.snapshot(still, GRANT)
    folder = snapshots_folder(still.version_folder(RUN))
    assert list(folder.iterdir()) == []
    digest = data.snapshot(still, GRANT).digest
    assert [path.name for path in folder.iterdir()] == [digest]
