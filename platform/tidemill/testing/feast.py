"""A user's own Feast repository for tests: a batch view with a ttl, a static table, an on-demand view, one service.

Feast runs in processes of its own, as its import is large and warns of much that is not ours.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

__all__ = ["BUILT", "MEASURED", "SERVICE", "UserRepository"]

SERVICE = "inspection"
"""The service's name; its features: hours (ttl 1 day), maker, exposure_s and exposure_per_year (on demand)."""
MEASURED = datetime(2026, 1, 1, tzinfo=UTC)
"""Event time of the newest rows of the batch view."""
BUILT = datetime(2020, 1, 1, tzinfo=UTC)
"""Event time of all rows of the static table."""

_YAML = """
project: factory
provider: local
registry: data/registry.db
online_store: {ONLINE}
offline_store: {type: file}
entity_key_serialization_version: 3
"""

_DEFINITIONS = """
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)
wear = FeatureView(
    name="wear",
    entities=[station],
    ttl=timedelta(days=1),
    schema=[Field(name="hours", dtype=Float64)],
    source=FileSource(name="wear_file", path="data/wear.parquet", timestamp_field="measured_at"),
)
machines = FeatureView(
    name="machines",
    entities=[station],
    ttl=timedelta(0),
    schema=[Field(name="year", dtype=Int64), Field(name="maker", dtype=String)],
    source=FileSource(
        name="machines_table", path="data/machines", file_format=DeltaFormat(), timestamp_field="built_at"
    ),
)
request = RequestSource(name="request", schema=[Field(name="exposure_ms", dtype=Float64)])


@on_demand_feature_view(
    sources=[request, machines],
    schema=[Field(name="exposure_s", dtype=Float64), Field(name="exposure_per_year", dtype=Float64)],
)
def exposure(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "exposure_s": inputs["exposure_ms"] / 1000,
            "exposure_per_year": inputs["exposure_ms"] / (2026 - inputs["year"]),
        }
    )


inspection = FeatureService(name="inspection", features=[wear, machines[["maker"]], exposure])
"""


@dataclass(frozen=True)
class UserRepository:
    """A repository in a folder.

    Stations A (worn, built 2000 by x), B (worn two days before `MEASURED`, built 2010, maker unknown) and C (not worn,
    built 2020 by z).
    """

    folder: Path
    online: str = "type: sqlite, path: data/online.db"
    """Its online store, as feature_store.yaml says it."""

    def write(self) -> None:
        """Write definitions and data."""
        data = self.folder / "data"
        data.mkdir(parents=True)
        (self.folder / "feature_store.yaml").write_text(_YAML.replace("ONLINE", self.online))
        (self.folder / "definitions.py").write_text(_DEFINITIONS)
        hour, day = timedelta(hours=1), timedelta(days=1)
        wear = {
            "station": ["A", "A", "B"],
            "hours": [0.5, 1.5, 2.5],
            "measured_at": [MEASURED - 5 * hour, MEASURED, MEASURED - 2 * day],
        }
        pl.DataFrame(wear).write_parquet(data / "wear.parquet")
        machines = {
            "station": ["A", "B", "C"],
            "year": [2000, 2010, 2020],
            "maker": ["x", None, "z"],
            "built_at": [BUILT] * 3,
        }
        pl.DataFrame(machines).write_delta(str(data / "machines"))

    def feast(self, *arguments: str) -> str:
        """Run Feast's CLI on it; returns what it printed."""
        return self.python("-m", "feast.cli.cli", "-c", str(self.folder), *arguments)

    def apply(self) -> None:
        """Register the definitions and fill the online store, as its user does."""
        self.feast("apply")
        end = (MEASURED + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S")
        self.feast("materialize", "2019-01-01T00:00:00", end)

    def python(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run Python; returns its output, and raises `AssertionError` with its errors where it fails."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "FEAST_USAGE": "False", **(environ or {})},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{arguments[:4]} failed: {done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done.stdout
