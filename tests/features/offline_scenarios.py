"""Run by test_feast_offline.py in a process of its own: a user's Feast repository, asked in many ways.

Prints one JSON object: what came of each scenario.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, RequestSource
from feast.data_format import DeltaFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from tidemill.events.lake import LakeTable
from tidemill.events.sources import Source
from tidemill.features.definitions import definitions
from tidemill.features.project import project_name
from tidemill.features.tiles import window_values
from tidemill.outcomes.tables import LABELS
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

START = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "available_at": pl.Datetime("us", "UTC"),
    "event_date": pl.Date(),
    "heat": pl.Float64(),
    "note": pl.String(),
}


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


def naive(number: float) -> datetime:
    return hours(number).replace(tzinfo=None)


def files(folder: Path) -> None:
    """What the user's systems wrote: naive times and an unlucky column name, a Delta table, a static table."""
    trips = [(7, 1, 1, 0.25, 3), (7, 3, 3, 0.5, 4), (7, 5, 30, 0.75, None), (8, 2, 2, 0.1, 5)]
    columns = ["driver", "at", "written", "value_0", "trips"]
    frame = pl.DataFrame(trips, schema=columns, orient="row").with_columns(
        pl.col("at", "written").map_elements(naive, return_dtype=pl.Datetime("us"))
    )
    frame.write_parquet(folder / "trips.parquet")
    cars = [(7, hours(0), "van"), (7, hours(4), "lorry")]
    pl.DataFrame(cars, schema=["car_driver", "since", "kind"], orient="row").write_delta(str(folder / "cars"))
    pl.DataFrame({"day": [hours(0), hours(24)], "fuel_price": [1.5, 1.75]}).write_parquet(folder / "prices.parquet")


def lake(folder: Path) -> str:
    """Our own table: two days, in the second an event that arrived late."""
    uri = str(folder / "lake" / "default.m.events")
    table = LakeTable(uri, EVENTS, pipeline="ingest", partition_by=("event_date",))
    rows = [(0, "7", 1, 1, 10.0, "first"), (1, "7", 20, 30, 20.0, None), (2, "7", 26, 26, 30.0, "second")]
    for offset, entity, at, arrived, heat, note in rows:
        source = Source("c", "t", 0)
        row = (str(source), offset, entity, hours(at), hours(arrived), hours(at).date(), heat, note)
        table.append(pl.DataFrame([row], schema=EVENTS, orient="row"), {source: offset})
    said = LakeTable(str(folder / "lake" / "default.m.labels"), LABELS, pipeline="outcomes")
    labels = [
        {"source": "c/l/0", "offset": n, "entity": "7", "value": '{"defect": "ok"}'}
        | {"event_time": hours(at), "available_at": hours(at), "available_date": hours(at).date()}
        for n, at in enumerate((18, 25.5))
    ]
    said.append(pl.DataFrame(labels, schema=LABELS), {Source("c", "l", 0): 1})
    return uri


def store(folder: Path, **offline: Any) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="mine",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "tidemill.features.feast_offline.TidemillOfflineStore", **offline},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )


def windowed() -> ContinualModel:
    """A model over the lake's table that has windows."""
    fields = [{"name": "heat", "type": "float"}, {"name": "note", "type": "string"}]
    windows = [
        {"name": "seen", "agg": "count", "over": ["1h", "1d"]},
        {"name": "hottest", "of": "heat", "agg": "max", "over": ["1d"]},
        {"name": "said", "of": "label.defect", "agg": "count", "over": ["1d"]},
    ]
    events = {"entity": {"name": "station", "type": "int"}, "timestamp": "at", "fields": fields}
    lateness = {"allowedLateness": "6h"}
    return example_resource("m", events=events | lateness, features={"windows": windows}, triggers={})


def theirs() -> list[Any]:
    """A repository of somebody who has never heard of Tidemill."""
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    trips_source = FileSource(
        name="trips",
        path="trips.parquet",
        timestamp_field="at",
        created_timestamp_column="written",
        field_mapping={"driver": "driver_id", "value_0": "rate"},
    )
    trips = FeatureView(
        name="trips",
        entities=[driver],
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="rate", dtype=Float64),
            Field(name="trips", dtype=Int64),
        ],
        source=trips_source,
        ttl=timedelta(hours=10),
    )
    cars = FeatureView(
        name="cars",
        entities=[driver],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="kind", dtype=String)],
        source=FileSource(
            name="cars",
            path="cars",
            file_format=DeltaFormat(),
            timestamp_field="since",
            field_mapping={"car_driver": "driver_id"},
        ),
        ttl=timedelta(0),
    )
    prices = FeatureView(
        name="prices",
        entities=[],
        schema=[Field(name="fuel_price", dtype=Float64)],
        source=FileSource(name="prices", path="prices.parquet", timestamp_field="day"),
        ttl=timedelta(0),
    )

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[trips, RequestSource(name="asked", schema=[Field(name="km", dtype=Float64)])],
        schema=[Field(name="cost", dtype=Float64)],
    )
    def costs(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"cost": inputs["rate"] * inputs["km"]})

    service = FeatureService(name="all", features=[trips[["rate"]], cars, prices, costs])
    return [driver, trips_source, trips, cars, prices, costs, service]


def refused(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(folder: Path) -> dict[str, Any]:
    files(folder)
    uri = lake(folder)
    feast = store(folder)
    feast.apply([*theirs(), *definitions(windowed(), str(folder / "lake"))])
    out: dict[str, Any] = {}

    def ask(name: str, rows: dict[str, Any], features: Any, *, of: FeatureStore = feast, **options: Any) -> Any:
        job = of.get_historical_features(entity_df=pd.DataFrame(rows), features=features, **options)
        frame = pl.DataFrame(job.to_arrow())
        out[name] = {column: frame[column].to_list() for column in frame.columns if column not in {"event_timestamp"}}
        return job

    times = [hours(at) for at in (6, 2, 0.5, 2, 31, 14)]
    rows = {"driver_id": [7, 7, 7, 8, 7, 99], "event_timestamp": times, "label": list("abcdef")}
    ask("trips", rows, ["trips:rate", "trips:trips"])
    ask("trips, full", rows, ["trips:rate", "cars:kind"], full_feature_names=True)
    ask("trips, created only breaks ties", rows, ["trips:rate"], of=store(folder, created_is_arrival=False))
    ask(
        "trips, created asked for",
        rows,
        ["trips:rate"],
        of=store(folder, created_is_arrival=False),
        filter_by_created_timestamp=True,
    )
    ask("service", rows | {"km": [10.0] * 6}, feast.get_feature_service("all"))
    ask("times as text", {"driver_id": [7], "event_timestamp": ["2026-01-01T04:30:00+01:00"]}, ["trips:rate"])
    ask("a missing key", {"driver_id": [7.0, None], "event_timestamp": [hours(3)] * 2}, ["trips:rate"])
    at = {"station": [7, 7, 7, 7], "event_timestamp": [hours(19), hours(25), hours(26), hours(31)]}
    ask("ours", at, ["events:heat", "events:note"])
    asked = ["events:hottest_1d", "events:note", "events:seen_1d"]
    ask("windows", at | {"station": [7, 7, 7, None]}, asked)
    ask("service of ours", at, feast.get_feature_service(project_name("default.m")))
    table, rows_at = pl.read_delta(uri), pl.DataFrame({"entity": ["7"] * 4, "at": at["event_timestamp"]})
    rows_at = rows_at.cast({"at": pl.Datetime("us", "UTC")})
    spec = windowed().spec
    direct = window_values(table, rows_at, spec.features.event_windows, spec.events.allowed_lateness)
    out["windows, directly"] = {name: direct[name].to_list() for name in ("hottest_1d", "seen_1d")}
    out["frame types"] = {
        name: str(kind)
        for name, kind in feast.get_historical_features(pd.DataFrame(at), ["events:heat"]).to_df().dtypes.items()
    }

    job = feast.get_historical_features(pd.DataFrame(rows), ["trips:rate"])
    saved = feast.create_saved_dataset(job, "kept", SavedDatasetFileStorage(str(folder / "kept.parquet")))
    out["saved"] = pl.DataFrame(feast.get_saved_dataset("kept").to_arrow())["rate"].to_list()
    out["saved again"] = refused(lambda: job.persist(saved.storage))
    job.persist(SavedDatasetFileStorage(str(folder / "kept"), file_format=DeltaFormat()))
    out["saved as a table"] = pl.read_delta(str(folder / "kept"))["rate"].to_list()

    feast.materialize(naive(0), naive(40), feature_views=["trips", "cars"])
    feast.materialize(naive(0), naive(31), feature_views=["events", "labels"])
    out["materialized windows"] = feast.get_online_features(
        ["events:heat", "events:seen_1d", "events:hottest_1d", "labels:said_1d"], [{"station": 7}]
    ).to_dict()
    out["materialized"] = feast.get_online_features(
        ["trips:rate", "trips:trips", "cars:kind"], [{"driver_id": 7}, {"driver_id": 8}]
    ).to_dict()

    out["sql"] = refused(lambda: feast.get_historical_features("SELECT 1", ["trips:rate"]))
    trips = pd.DataFrame({"at": [naive(1)], "driver": [7], "trips": [1], "value_0": [0.5], "written": [naive(1)]})
    out["write"] = refused(lambda: feast.write_to_offline_store("trips", trips))
    out["no key"] = refused(
        lambda: feast.get_historical_features(pd.DataFrame({"event_timestamp": [hours(1)]}), ["trips:rate"]).to_arrow()
    )
    clash = pd.DataFrame({"driver_id": [7], "event_timestamp": [hours(1)], "rate": [1.0]})
    out["name twice"] = refused(lambda: feast.get_historical_features(clash, ["trips:rate"]))

    # The first day's files gone: whoever asks about the second day, with a limit on age, does not notice.
    for file in Path(uri).glob("event_date=2026-01-01/*.parquet"):
        file.unlink()
    view = feast.get_feature_view("events")
    out["all files"] = refused(lambda: feast.get_historical_features(pd.DataFrame(at), ["events:heat"]).to_arrow())
    view.ttl = timedelta(hours=3)
    feast.apply([view])
    ask("second day", {"station": [7], "event_timestamp": [hours(28)]}, ["events:heat"])
    (folder / "prices.parquet").unlink()
    out["file gone"] = refused(
        lambda: feast.get_historical_features(pd.DataFrame(rows), ["prices:fuel_price"]).to_arrow()
    )
    return out


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1])), default=str))
