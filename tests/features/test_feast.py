"""Feast in processes of its own, as it is run: its import is large, and warns of much that is not ours."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.clock import SystemClock
from tidemill.core.ids import model_id
from tidemill.features.label_events import LABELS, label_layout
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineRows
from tidemill.features.project import project_name
from tidemill.spec.load import load

REPOSITORY = Path(__file__).parents[2] / "feature_store"

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES, NAMES, NAMES)
def test_each_model_has_a_project_of_its_own_that_feast_accepts(a: str, b: str, c: str, d: str) -> None:
    one, other = model_id(a, b), model_id(c, d)
    assert (project_name(one) == project_name(other)) == (one == other)
    assert all(part.isalnum() for part in project_name(one).split("_") if part)
    assert not project_name(one).startswith("_")


RESOURCE = """
apiVersion: tidemill.dev/v1alpha1
kind: ContinualModel
metadata: {name: NAME}
spec:
  events:
    entity: {name: station, type: ENTITY}
    timestamp: captured_at
    fields:
      - {name: image, type: image}
      - {name: exposure_ms, type: float}
      - {name: shift, type: int}
      - {name: operator, type: string}
      - {name: rework, type: bool, required: false}
  features:
    image: [brightness]
    ttl: 1h
    windows:
      - {name: seen, agg: count, over: [10m]}
      - {name: longest, agg: max, of: exposure_ms, over: [10m]}
      - {name: last_operator, agg: last, of: operator, over: [1h]}
      - {name: last_grade, agg: last, of: label.grade, over: [10m]}
  prediction: {type: classification, classes: [ok, scratch]}
  labels: {fields: [{name: defect, type: class}, {name: grade, type: string}]}
  model: {codec: "a:Codec", trainer: "a:Trainer"}
"""

READ = """
import json, sys
sys.modules["torch"] = None
from feast import FeatureStore
store = FeatureStore(repo_path=sys.argv[1])
service = store.get_feature_service(store.project)
answer = store.get_online_features(features=service, entity_rows=json.loads(sys.argv[2]))
names = list(answer.proto.metadata.feature_names.val)
statuses = {name: [int(s) for s in result.statuses] for name, result in zip(names, answer.proto.results)}
try:
    store.write_to_online_store("events", df=answer.to_df().assign(event_time=0, available_at=0))
    refused = ""
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
print(json.dumps({"values": answer.to_dict(), "statuses": statuses, "refused": refused}))
"""


class Installation:
    """A state folder, a resource file, and processes that see them."""

    def __init__(self, folder: Path, redis_url: str, name: str, entity: str = "string") -> None:
        self.id = f"default.{name}"
        self.resource = folder / "model.yaml"
        self.resource.write_text(RESOURCE.replace("NAME", name).replace("ENTITY", entity))
        resource = load(self.resource)
        self.rows = OnlineRows(redis_url, self.id, layout_of(resource))
        self.labels = OnlineRows(redis_url, self.id, label_layout(resource), LABELS)
        self.environ = {
            "TIDEMILL_STATE": str(folder / "state"),
            "TIDEMILL_REDIS": redis_url,
            "TIDEMILL_RESOURCE": str(self.resource),
            "TIDEMILL_FEAST_PROJECT": project_name(self.id),
            "TIDEMILL_FEAST_REGISTRY": f"sqlite:///{folder / 'feast.db'}",
            "FEAST_USAGE": "False",
        }

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv], env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def read(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return dict(json.loads(self.run("-c", READ, str(REPOSITORY), json.dumps(rows)).splitlines()[-1]))

    def fill(self, rows: Mapping[str, dict[str, Any]], age: timedelta = timedelta(seconds=30)) -> None:
        at = SystemClock().now() - age
        fixed = {"source": "s", "event_time": at, "available_at": at}
        events = [
            {"entity": entity, "offset": number, **fixed, **values}
            for number, (entity, values) in enumerate(rows.items())
        ]
        frame = pl.DataFrame(events, schema_overrides={"rework": pl.Boolean()})
        self.rows.rebuild(lambda: Filling({"s": len(events)}, [frame]), force=True)
        said = frame.select("entity", "offset", "source", "event_time", "available_at").with_columns(
            pl.lit("good").alias("label.grade")
        )
        self.labels.rebuild(lambda: Filling({"s": len(events)}, [said]), force=True)


VALUES = {"exposure_ms": 8.5, "shift": 2, "operator": "Mö", "rework": None, "brightness": 0.25}
WINDOWS = {"seen_10m": 1, "longest_10m": 8.5, "last_operator_1h": "Mö", "last_grade_10m": "good"}


@pytest.mark.redis
def test_feast_knows_the_features_after_apply_and_reads_what_ingest_wrote(
    tmp_path: Path, redis_url: str, topic_prefix: str
) -> None:
    site = Installation(tmp_path, redis_url, topic_prefix)
    site.fill({"A": VALUES})
    site.run("-m", "tidemill.features.apply", "--resource", str(site.resource))
    answer = site.read([{"station": "A"}, {"station": "nobody"}])
    assert {name: values[0] for name, values in answer["values"].items()} == {"station": "A"} | VALUES | WINDOWS
    assert "written by ingest alone" in answer["refused"]
    # As it is in get_historical_features: an entity without events has been seen no times.
    nothing = dict.fromkeys(VALUES | WINDOWS) | {"station": "nobody", "seen_10m": 0}
    assert {name: values[1] for name, values in answer["values"].items()} == nothing
    present, not_found = 1, 3
    statuses = {name: values for name, values in answer["statuses"].items() if name != "station"}
    assert statuses == {name: [present, not_found] for name in VALUES} | {name: [present] * 2 for name in WINDOWS}
    site.fill({"A": VALUES}, age=timedelta(hours=2))
    old = dict.fromkeys(VALUES) | {"seen_10m": 0, "longest_10m": None, "last_operator_1h": None, "last_grade_10m": None}
    assert site.read([{"station": "A"}])["values"] == {"station": ["A"]} | {
        name: [value] for name, value in old.items()
    }


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_feature_store_folder_is_a_feast_repository(tmp_path: Path, redis_url: str, topic_prefix: str) -> None:
    site = Installation(tmp_path, redis_url, topic_prefix, entity="int")
    site.fill({"7": VALUES})
    feast = ["-m", "feast.cli.cli", "-c", str(REPOSITORY)]
    site.run(*feast, "apply")
    assert "events" in site.run(*feast, "feature-views", "list")
    assert site.read([{"station": 7}])["values"]["shift"] == [2]
