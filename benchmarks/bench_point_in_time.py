"""The point-in-time join: rows against as many events, 20 features; ours, Feast's DuckDB store, and a bare ASOF join.

Each contender runs in a process of its own on the same files. Through Feast, the time is from the call to the Arrow
table, files read; the function and the bare join are on frames in memory. Events arrive late: a minute on average, one
in a hundred hours late. Ours honours that; the peers cannot or need not, and see the future.

Feast's DuckDB store is an extra (`feast[duckdb]`: duckdb and ibis-framework). Where this interpreter lacks it, one that
has it can be named: TIDEMILL_DUCKDB_PYTHON=…/bin/python.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import polars as pl
from benchmarks.point_in_time_contenders import EVENTS, FEATURES, ROWS
from benchmarks.report import Figure, Report, environment

__all__ = ["run"]

SEED = 7
SIZES = {"small": 100_000, "full": 1_000_000}
EVENTS_EACH = 100
"""Events of an entity, on average: few for a month. The DuckDB store's work grows with them (it joins each row with
all events before it, and keeps the newest), ours and the bare join's do not."""
DAYS = 30
PEER, BARE = 50, 1.3
PEER_PYTHON = "TIDEMILL_DUCKDB_PYTHON"
_NAMES = {
    "ours": "tidemill, through Feast",
    "ours_without_arrivals": "tidemill, through Feast, without arrivals",
    "duckdb": "Feast's DuckDB store",
    "function": "tidemill, the function on frames",
    "function_without_arrivals": "tidemill, the function, without arrivals",
    "bare": "bare Polars ASOF on the same frames",
}
_Found = dict[str, Any]


def run(size: str) -> Report:
    """Run all contenders and compare them."""
    count = SIZES[size]
    with TemporaryDirectory(prefix="tidemill-bench-") as folder:
        _write(Path(folder), count)
        found = {name: _contender(name, Path(folder)) for name in (*_NAMES, "side_by_side")}
    _agree(found)
    figures = [figure for name in _NAMES for figure in _absolute(name, found[name])]
    figures += _ratios(found)
    figures += _stages(found)
    ran = {"seed": SEED, "rows": count, "events": count, "features": len(FEATURES), "entities": count // EVENTS_EACH}
    # The best of a few runs: what else the machine does can only make them slower.
    return Report("bench", "point-in-time", size, ran, figures, environment(("polars", "feast", "deltalake", "pandas")))


def _write(folder: Path, count: int) -> None:
    """Rows, and events in the order of their arrival, as a log has them."""
    rng = np.random.default_rng(SEED)
    start = np.datetime64("2026-01-01", "us").astype(np.int64)
    span = DAYS * 86_400_000_000
    at = start + rng.integers(0, span, count)
    late = rng.exponential(60e6, count) + (rng.random(count) < 0.01) * rng.exponential(4 * 3600e6, count)
    time = pl.Datetime("us", "UTC")
    entities = pl.Series("entity", rng.integers(0, count // EVENTS_EACH, (2, count)).tolist())
    events = pl.DataFrame(
        {
            "entity": "station-" + entities[0].cast(pl.String),
            "event_time": pl.Series(at).cast(time),
            "available_at": pl.Series(at + late.astype(np.int64)).cast(time),
            **{name: rng.normal(size=count) for name in FEATURES},
        }
    )
    events.sort("available_at").write_parquet(folder / EVENTS)
    asked = pl.Series(start + rng.integers(0, span, count)).cast(time)
    rows = pl.DataFrame({"entity": "station-" + entities[1].cast(pl.String), "event_timestamp": asked})
    rows.write_parquet(folder / ROWS)


def _contender(name: str, folder: Path) -> _Found:
    python = os.environ.get(PEER_PYTHON, sys.executable) if name == "duckdb" else sys.executable
    done = subprocess.run(
        [python, "-m", "benchmarks.point_in_time_contenders", name, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode == 0:
        return dict(msgspec.json.decode(done.stdout.splitlines()[-1]))
    last = next((line for line in reversed(done.stderr.splitlines()) if "Error" in line), "killed, perhaps for memory")
    if name == "duckdb" and "ModuleNotFoundError" in last:
        return {"missing": f"{last}: install Feast's extra duckdb (with ibis-framework), or set {PEER_PYTHON}"}
    if name == "duckdb":
        return {"missing": f"it failed (status {done.returncode}): {last}"}
    raise RuntimeError(done.stderr)


def _agree(found: dict[str, _Found]) -> None:
    """The figures are of the same answer."""
    for same in (("ours", "function"), ("ours_without_arrivals", "function_without_arrivals", "bare", "duckdb")):
        answers = {name: [found[name][key] for key in ("rows", "absent")] for name in same if "rows" in found[name]}
        sums = [found[name]["sum"] for name in answers]
        if len({tuple(answer) for answer in answers.values()}) != 1 or max(sums) - min(sums) > 1e-2:
            raise RuntimeError(f"the contenders do not agree: {answers}, {sums}")


def _absolute(name: str, found: _Found) -> list[Figure]:
    title = _NAMES[name]
    if "missing" in found:
        return [Figure(title, None, "s", note=found["missing"])]
    runs = ", ".join(f"{took:.2f}" for took in found["seconds"])
    return [
        Figure(title, min(found["seconds"]), "s", note=f"best of {runs}" if "," in runs else "one run"),
        Figure(f"{title}: peak memory", found["peak_mib"], "MiB"),
    ]


def _ratios(found: dict[str, _Found]) -> list[Figure]:
    took = {name: min(one["seconds"]) for name, one in found.items() if "seconds" in one}
    figures = []
    if "duckdb" in took:
        for name, goal in (("ours", PEER), ("ours_without_arrivals", None)):
            ratio = took["duckdb"] / took[name]
            holds = None if goal is None else ratio >= goal
            figures.append(Figure(f"DuckDB store / {_NAMES[name]}", ratio, "x", f"≥ {goal}" if goal else "", holds))
    turns = found["side_by_side"]["turns"]
    for place, name in enumerate(("function", "function_without_arrivals")):
        ratios, worked = ([turn[place][kind] / turn[-1][kind] for turn in turns] for kind in (0, 1))
        ratio, note = median(ratios), f"by turns in one process: median of {len(turns)}, {_range(ratios)}"
        figures.append(Figure(f"{_NAMES[name]} / bare", ratio, "x", f"≤ {BARE}", ratio <= BARE, note))
        note = f"in processor time, which other load disturbs less: {_range(worked)}"
        figures.append(Figure(f"{_NAMES[name]} / bare, processor", median(worked), "x", note=note))
    return figures


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _stages(found: dict[str, _Found]) -> list[Figure]:
    stages = found["function"]["stages"]
    figures = [Figure(f"of the function: {name}", took, "s") for name, took in stages.items()]
    rest = min(found["ours"]["seconds"]) - min(found["function"]["seconds"])
    return [*figures, Figure("through Feast, besides the function", rest, "s", note="reading Parquet, pandas, Arrow")]
