"""The dashboard with a lot to show: the queries behind its pages on a large lake, and the row of each of 100 models.

A page is there before any of these is: its parts wait for their figures each for itself, read on threads, once
for all who look. So what counts is how long somebody waits for a part that nobody has looked at yet.
"""

import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from benchmarks.report import Figure, Report, environment

from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus, Version, encode_status
from tidemill.core.clock import to_ms
from tidemill.dashboard.queries.browse import Wanted, browse
from tidemill.dashboard.queries.models import headline_of, model_row
from tidemill.dashboard.queries.quality import newest_slices, quality_over_time
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.ingest.tables import EVENT_COLUMNS
from tidemill.outcomes.tables import OUTCOMES, PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

__all__ = ["run"]

SIZES = {"small": {"predictions": 50_000, "pictures": 2_000}, "full": {"predictions": 1_000_000, "pictures": 10_000}}
MODELS = 100
GOAL_S = 1.0
_AT_ONCE = 50_000
_DAYS = 5
_NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
_PICTURE = b"\xff\xd8\xff" + bytes(1500)


def run(size_name: str) -> Report:
    """Write the lake, then ask it what the pages ask; the slowest of three counts."""
    size, resource = SIZES[size_name], _resource()
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), resource, **size)
        stored = _stored(resource)
        asked: dict[str, Callable[[], Any]] = {
            "browse, the newest": lambda: _browse(folder, resource, Wanted()),
            "browse, errors of a station": lambda: _browse(folder, resource, Wanted(entity="s3", kind="wrong")),
            "browse, a declared slice": lambda: _browse(folder, resource, Wanted(groups=(("shift", "night"),))),
            "quality over time": lambda: quality_over_time(folder, resource),
            "slices": lambda: newest_slices(folder, resource),
            "the headline of a model": lambda: headline_of(folder, stored, _NOW),
            f"the rows of {MODELS} models": lambda: [model_row(stored, _NOW, None, None) for _ in range(MODELS)],
        }
        figures = [_timed(name, ask) for name, ask in asked.items()]
    return Report(
        "bench", "dashboard", size_name, size | {"models": MODELS}, figures, environment(("polars", "deltalake"))
    )


def _resource() -> ContinualModel:
    """The example, whose events also have a shift, by which it is cut."""
    events = example_resource().spec.events.model_dump(by_alias=True, exclude_unset=True)
    events["fields"] = [*events["fields"], {"name": "shift", "type": "string"}]
    return example_resource(events=events, triggers={"drift": {"tolerance": 0.2, "slices": ["shift"]}})


def _browse(lake: str, resource: ContinualModel, wanted: Wanted) -> None:
    found = browse(lake, resource, wanted, _NOW, limit=24)
    if len(found.things) != 24:
        raise AssertionError(f"{wanted} found {len(found.things)}")


def _timed(name: str, ask: Callable[[], Any]) -> Figure:
    took, worked = [], []
    for _ in range(3):
        begun, began = time.perf_counter(), time.process_time()
        ask()
        took.append(time.perf_counter() - begun)
        worked.append(time.process_time() - began)
    note = f"{max(worked):.2f} s of processor"
    return Figure(name, max(took), "s", f"< {GOAL_S:g}", max(took) < GOAL_S, note)


def _stored(resource: ContinualModel) -> StoredModel:
    champion = Version(version="v1", artifact="/nowhere", since=to_ms(_NOW))
    status = LoopStatus(created_at=to_ms(_NOW), phase="Serving", champion=champion)
    return StoredModel(resource=resource, status=encode_status(status), version="1")


def _write(lake: Path, resource: ContinualModel, *, predictions: int, pictures: int) -> None:
    """Predictions evenly over five days, each with its outcome; pictures with the newest events."""
    rng = np.random.default_rng(1)
    for begin in range(0, predictions, _AT_ONCE):
        rows = _rows(rng, np.arange(begin, min(begin + _AT_ONCE, predictions)), predictions)
        _append(lake, resource, "predictions", PREDICTIONS, rows)
        _append(lake, resource, "outcomes", OUTCOMES, rows.with_columns(revision=pl.lit(0, pl.Int64)))
    events = rows.tail(pictures).with_columns(image=pl.lit(_PICTURE), event_time=pl.col("predicted_at"))
    _append(lake, resource, "events", {**EVENT_COLUMNS, "image": pl.Binary()}, events)


def _rows(rng: np.random.Generator, numbers: Any, of: int) -> pl.DataFrame:
    count = len(numbers)
    is_scratch, is_wrong = rng.random(count) < 0.3, rng.random(count) < 0.05
    sure = rng.random(count).round(4)
    answers = [
        _text({"class": "scratch" if one else "ok", "confidence": c}) for one, c in zip(is_scratch, sure, strict=True)
    ]
    labels = [_text({"defect": "scratch" if one else "ok", "box": None}) for one in is_scratch ^ is_wrong]
    frame = pl.DataFrame(
        {
            "source": [str(Source("c", "t", 0))] * count,
            "offset": numbers,
            "prediction_id": [f"p{number}" for number in numbers],
            "event_id": [f"e{number}" for number in numbers],
            "entity": [f"s{number % 40}" for number in numbers],
            "version": ["v1"] * count,
            "output": answers,
            "features": [_text({"brightness": float(one), "shift": "night" if one < 0.3 else "day"}) for one in sure],
            "label": labels,
            "loss": is_wrong.astype(float),
        }
    )
    step = timedelta(days=_DAYS) / of
    at = pl.Series("predicted_at", [_NOW - step * (of - int(number)) for number in numbers])
    return frame.with_columns(at, at.dt.date().alias("event_date"), at.alias("available_at"))


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _append(lake: Path, resource: ContinualModel, name: str, schema: dict[str, Any], rows: pl.DataFrame) -> None:
    kept = pl.DataFrame(
        [
            rows[column].cast(kind)
            if column in rows.columns
            else pl.repeat(None, rows.height, dtype=kind, eager=True).alias(column)
            for column, kind in schema.items()
        ]
    )
    table = LakeTable(table_uri(str(lake), resource.id, name), schema, pipeline="bench", partition_by=["event_date"])
    table.append(kept, {Source("c", "t", 0): int(rows["offset"].max() or 0)})  # type: ignore[arg-type]
