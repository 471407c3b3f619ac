"""A snapshot with the features of the user's own FeatureService, through real Feast in a process of its own."""

import json
from pathlib import Path

import pytest

from tidemill.testing.feast import UserRepository

SNAPSHOT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import timedelta
from pathlib import Path
import polars as pl
from tidemill.core.clock import SystemClock
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.retrain.data import snapshot
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.training import EVENTS, LABELS, START, events_frame, labels_frame, tiny_resource
from tidemill.training.snapshot import rows_and_labels

lake, repository = sys.argv[1], Path(sys.argv[2])
events = {"entity": {"name": "station"}, "id": "event_id", "timestamp": "captured_at"}
fields = [{"name": "image", "type": "image"}, {"name": "exposure_ms", "type": "float"}]
resource = tiny_resource(events=events | {"fields": fields}, features={"image": [], "service": "inspection"})

def fill(name, schema, rows):
    table = LakeTable(table_uri(lake, resource.id, name), schema, pipeline="tests")
    table.append(rows, {Source.parse(rows["source"][0]): rows["offset"].max()})

rows = events_frame(9).with_columns(
    entity=pl.Series(["A", "B", "C"] * 3), exposure_ms=pl.Series([float(number) for number in range(9)])
)
fill("events", EVENTS | {"exposure_ms": pl.Float64()}, rows)
fill("labels", LABELS, labels_frame(rows))
served = {"hours": 9.5, "maker": "as served", "exposure_s": 9.5, "exposure_per_year": 9.5}
logged = {
    "source": "c/predictions/0", "offset": 0, "prediction_id": "p", "entity": "A", "event_id": "e3",
    "predicted_at": START, "available_at": START, "features": json.dumps(served),
}
fill("predictions", PREDICTIONS, pl.DataFrame([logged], schema=PREDICTIONS))
place = Place(
    resource=resource, lake=lake, root=lake + "/../artifacts", clock=SystemClock(), ask=None,
    registry=lambda: MemoryRegistry(SystemClock()), feast_repo=repository,
)
taken = snapshot(place, Grant(run="r1", token="t", expires_at=0, cause="initial", reason=""))
rows, _ = rows_and_labels(taken.frame(), resource, taken.record.service)
names = ["exposure_ms", *taken.record.service]
print(json.dumps([[row[name] for name in names] for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_snapshot_has_the_services_features_served_ones_first(tmp_path: Path) -> None:
    repository = UserRepository(tmp_path / "feast")
    repository.write()
    repository.feast("apply")
    out = repository.python("-c", SNAPSHOT, str(tmp_path / "lake"), str(repository.folder)).splitlines()
    assert "features of inspection: 1 of 9 rows as served" in out
    rows = json.loads(out[-1])
    year = {0: 26, 1: 16, 2: 6}
    for number, row in enumerate(rows):
        if number == 3:
            assert row == [3.0, 9.5, "as served", 9.5, 9.5]
        else:
            hours, maker = [(1.5, "x"), (None, None), (None, "z")][number % 3]
            assert row == pytest.approx([number, hours, maker, number / 1000, number / year[number % 3]])
