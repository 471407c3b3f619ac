"""The same query on Spark over the same tables gives the same rows. Spark and Feast run in a process of their own."""

import json
import os
import random
import subprocess
import sys
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tidemill.core.errors import Unavailable
from tidemill.events.lake import table_uri
from tidemill.features.spark import COORDINATES, delta_jars
from tidemill.testing.loop import example_resource
from tidemill.testing.training import START

FIELDS = [
    {"name": "image", "type": "image"},
    {"name": "exposure_ms", "type": "float"},
    {"name": "shift", "type": "int"},
]
VALUES = ["exposure_ms", "shift", "brightness"]
TTLS = {"spark-ever": {}, "spark-hour": {"ttl": "1h"}}

ASK = """
import json, sys, warnings
sys.modules["torch"] = None
warnings.simplefilter("ignore")
from datetime import timedelta
from pathlib import Path
import pandas as pd
from tidemill.core.settings import Settings
from tidemill.features.spark import session, spark_store
from tidemill.testing.loop import example_resource

folder, resources, jars = Path(sys.argv[1]), json.loads(sys.argv[2]), [Path(one) for one in json.loads(sys.argv[3])]
rows = pd.read_parquet(folder / "rows.parquet").rename(columns={"entity": "station", "at": "event_timestamp"})
spark = session(jars, master="local[2]", conf={"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"})
ttls = {}
for name, spec in resources.items():
    resource = example_resource(name, **spec)
    state = folder / name
    store = spark_store(resource, Settings(state=state, lake=str(folder / "lake"), redis="redis://127.0.0.1:1/0"))
    service = store.get_feature_service(store.list_feature_services()[0].name)
    job = store.get_historical_features(entity_df=rows, features=service, filter_by_created_timestamp=True)
    job.to_df().to_parquet(folder / f"{name}.parquet")
    ttls[name] = (store.get_feature_view("events").ttl or timedelta(0)).total_seconds()
spark.stop()
print(json.dumps(ttls))
"""


def jars() -> list[str]:
    """Delta's jars; skips, saying what to install, where Spark or they are missing."""
    if find_spec("pyspark") is None:
        pytest.skip("pip install 'tidemill[spark]' (pyspark==4.2.0) to compare with Spark")
    try:
        return [str(path) for path in delta_jars()]
    except Unavailable as error:
        pytest.skip(f"{COORDINATES} from Maven Central is needed to compare with Spark: {error.message}")


def written(folder: Path, specs: dict[str, dict[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events of a day, one in three an hour late, in the lake of each model; and rows that ask about them."""
    chosen, count = random.Random(4), 3000
    times = [START + timedelta(seconds=chosen.randrange(86400)) for _ in range(count)]
    late = [timedelta(seconds=chosen.choice([0, 1, 3600]), microseconds=number) for number in range(count)]
    events = pl.DataFrame(
        {
            "entity": [f"s{chosen.randrange(30)}" for _ in range(count)],
            "event_time": times,
            "available_at": [time + wait for time, wait in zip(times, late, strict=True)],
            "exposure_ms": [chosen.choice([None, float(number)]) for number in range(count)],
            "shift": [number % 3 for number in range(count)],
            "brightness": [number / count for number in range(count)],
            "image": [b"picture"] * count,
        },
        schema_overrides={"event_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC")},
    )
    events = events.sort("available_at").with_row_index("offset").with_columns(pl.col("offset").cast(pl.Int64))
    events = events.with_columns(source=pl.lit("c/events/0"))
    for name, spec in specs.items():
        events.write_delta(table_uri(str(folder / "lake"), example_resource(name, **spec).id, "events"))
    asked = range(600)
    rows = pl.DataFrame(
        {
            "entity": [f"s{chosen.randrange(33)}" for _ in asked],
            "at": [START + timedelta(seconds=chosen.randrange(-3600, 100_000)) for _ in asked],
            "row": list(asked),
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    rows.write_parquet(folder / "rows.parquet")
    return events, rows


def naive(rows: pl.DataFrame, events: pl.DataFrame, ttl_s: float) -> pl.DataFrame:
    """The definition, row by row."""
    oldest = pl.col("at") - pl.duration(seconds=ttl_s) if ttl_s else pl.col("event_time")
    found = (
        rows.join(events, on="entity")
        .filter(pl.max_horizontal("event_time", "available_at") <= pl.col("at"), pl.col("event_time") >= oldest)
        .sort("event_time", "source", "offset")
        .unique("row", keep="last")
    )
    return rows.join(found.select("row", *VALUES), on="row", how="left", maintain_order="left").select(VALUES)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_spark_gives_the_rows_that_our_join_gives(tmp_path: Path) -> None:
    given = json.dumps(jars())
    from tidemill.features.point_in_time import point_in_time

    events = {"entity": {"name": "station"}, "id": "event_id", "timestamp": "captured_at", "fields": FIELDS}
    specs: dict[str, dict[str, Any]] = {
        name: {"events": events, "features": {"image": ["brightness"]} | ttl} for name, ttl in TTLS.items()
    }
    known, rows = written(tmp_path, specs)
    run = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path), json.dumps(specs), given],
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    ttls = json.loads(run.stdout.splitlines()[-1])
    assert ttls.keys() == TTLS.keys()
    for name, ttl_s in ttls.items():
        answer = pl.read_parquet(tmp_path / f"{name}.parquet").sort("row")
        assert answer["row"].to_list() == rows["row"].to_list(), "a row was dropped or repeated"
        on_spark = answer.select(pl.col("exposure_ms").fill_nan(None), pl.col("shift").cast(pl.Int64), "brightness")
        on_spark = on_spark.with_columns(pl.col("brightness").fill_nan(None))
        expected = naive(rows, known, ttl_s)
        assert on_spark.equals(expected), f"{name}: {(on_spark != expected).sum()}"
        ours = point_in_time(rows, known, VALUES, ttl=timedelta(seconds=ttl_s))
        assert ours.equals(expected)
        assert expected["shift"].null_count() > 0


def test_a_process_of_another_time_zone_is_refused() -> None:
    program = """
from tidemill.core.errors import InvalidInput
from tidemill.features.spark import session
try:
    session(())
except InvalidInput as error:
    print(error.message, "|", error.hint)
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TZ": "Europe/Berlin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "time zone is CET" in run.stdout
    assert "TZ=UTC" in run.stdout
