"""One contender of `bench_point_in_time`, in a process of its own: `… CONTENDER FOLDER`; prints its figures as JSON.

Loaded by another interpreter too, one that has Feast's DuckDB store and nothing of ours: what a contender needs it
imports itself.
"""

import json
import resource
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

__all__ = ["CONTENDERS", "FEATURES"]

FEATURES = tuple(f"f{number:02d}" for number in range(20))
EVENTS, ROWS = "events.parquet", "rows.parquet"
_REPEATS = 5
_TURNS = 9


def ours(folder: Path) -> dict[str, Any]:
    """Plain Feast over our store, late arrivals honoured."""
    return _feast(folder, "tidemill.features.feast_offline.TidemillOfflineStore", created="available_at")


def ours_without_arrivals(folder: Path) -> dict[str, Any]:
    """Plain Feast over our store, on the source as the peer has it."""
    return _feast(folder, "tidemill.features.feast_offline.TidemillOfflineStore", created="")


def duckdb(folder: Path) -> dict[str, Any]:
    """Plain Feast over its DuckDB store, on Parquet and without a created timestamp: its least work."""
    import_module("ibis")  # without it Feast names no package

    return _feast(folder, "duckdb", created="", repeats=1)


def function(folder: Path) -> dict[str, Any]:
    """Our function on frames in memory, late arrivals honoured."""
    from tidemill.features import point_in_time as module

    rows, events = _frames(folder)
    found = _measured(lambda: module.point_in_time(rows, events, FEATURES))
    ranked, sorting = _timed(lambda: module._ranked(events, ["entity"]))
    chosen, joining = _timed(lambda: module._last_known(rows, ranked, ["entity"], None))
    _, gathering = _timed(lambda: module._taken(events.select(FEATURES), chosen))
    stages = {"sorting the events' keys": sorting, "the ASOF pass": joining, "gathering values": gathering}
    return found | {"stages": stages}


def function_without_arrivals(folder: Path) -> dict[str, Any]:
    """Our function as the bare ASOF join has it: an event counts from its event time on."""
    from tidemill.features.point_in_time import point_in_time

    rows, events = _frames(folder)
    events = events.drop("available_at")
    return _measured(lambda: point_in_time(rows, events, FEATURES))


def bare(folder: Path) -> dict[str, Any]:
    """What one writes by hand: sort both, join; rows come back in the order of time, arrivals are not looked at."""
    rows, events = _frames(folder)
    events = events.select("entity", "event_time", *FEATURES)
    return _measured(lambda: _asof(rows, events))


def side_by_side(folder: Path) -> dict[str, Any]:
    """The function and the bare join by turns in one process, so that what else the machine does hits all alike."""
    from tidemill.features.point_in_time import point_in_time

    rows, events = _frames(folder)
    plain = events.drop("available_at")

    def turn() -> list[tuple[float, float]]:
        """Wall and processor seconds of each."""
        calls = (
            lambda: point_in_time(rows, events, FEATURES),
            lambda: point_in_time(rows, plain, FEATURES),
            lambda: _asof(rows, plain),
        )
        found = []
        for call in calls:
            worked = process_time()
            wall = _timed(call)[1]
            found.append((wall, process_time() - worked))
        return found

    turn()  # loads and warms up
    return {"turns": [turn() for _ in range(_TURNS)]}


CONTENDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    one.__name__: one
    for one in (ours, ours_without_arrivals, duckdb, function, function_without_arrivals, bare, side_by_side)
}


def _asof(rows: Any, events: Any) -> Any:
    return rows.sort("at").join_asof(
        events.sort("event_time"), left_on="at", right_on="event_time", by="entity", check_sortedness=False
    )


def _frames(folder: Path) -> tuple[Any, Any]:
    import polars as pl

    return pl.read_parquet(folder / ROWS).rename({"event_timestamp": "at"}), pl.read_parquet(folder / EVENTS)


def _feast(folder: Path, kind: str, *, created: str, repeats: int = _REPEATS) -> dict[str, Any]:
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / f"{kind}{created}.db"),
        online_store=None,
        offline_store={"type": kind},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / EVENTS), timestamp_field="event_time", created_timestamp_column=created)
    schema = [Field(name="entity", dtype=String), *(Field(name=name, dtype=Float64) for name in FEATURES)]
    view = FeatureView(name="events", entities=[entity], schema=schema, source=source, ttl=timedelta(0))
    store.apply([entity, source, view])
    rows = pd.read_parquet(folder / ROWS)
    features = [f"events:{name}" for name in FEATURES]
    return _measured(lambda: store.get_historical_features(rows.copy(), features).to_arrow(), repeats)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = perf_counter()
    found = call()
    return found, perf_counter() - begun


def _measured(call: Callable[[], Any], repeats: int = _REPEATS) -> dict[str, Any]:
    seconds, found = [], None
    for _ in range(repeats):
        found = None  # one result in memory at a time
        found, took = _timed(call)
        seconds.append(took)
    return {"seconds": seconds, "peak_mib": _peak_mib(), **_checks(found)}


def _checks(found: Any) -> dict[str, Any]:
    """What must be the same whoever joined: rows, those without a value, and a sum over values."""
    values = found[FEATURES[0]]
    column = values.to_pandas() if hasattr(values, "to_pandas") else values
    return {"rows": len(column), "absent": int(column.isnull().sum()), "sum": round(float(column.sum()), 3)}


def _peak_mib() -> float:
    """Of this process: what `getrusage` says begins with the memory of whoever started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.modules["torch"] = None  # type: ignore[assignment]  # Feast would import it: seconds, for nothing here
    print(json.dumps(CONTENDERS[sys.argv[1]](Path(sys.argv[2]))))
