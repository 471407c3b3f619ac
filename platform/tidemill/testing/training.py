"""Labelled events for tests of training: frames as the lake holds them, of pictures that are bright or dark."""

import io
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from tidemill.core.clock import from_ms, to_ms
from tidemill.events.pictures import PictureStore
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource
from tidemill.training.dataset import content, labelled, query_of, split
from tidemill.training.snapshot import Snapshot, SnapshotRecord, TableRead, write_snapshot

__all__ = [
    "EVENTS",
    "LABELS",
    "START",
    "TAKEN_AT",
    "events_frame",
    "labels_frame",
    "picture",
    "snapshot_of",
    "snapshot_record",
    "snapshot_rows",
    "tiny_resource",
]

START = from_ms(1_767_225_600_000)
"""Event time of the first event: 2026-01-01 00:00 UTC."""
TAKEN_AT = to_ms(START + timedelta(days=1))
"""When the snapshots of `snapshot_of` were taken, milliseconds since the epoch."""

_TIME = pl.Datetime("us", "UTC")
EVENTS: dict[str, Any] = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "event_time": _TIME,
    "available_at": _TIME,
    "event_date": pl.Date(),
    "image": pl.Binary(),
    "brightness": pl.Float64(),
    "contrast": pl.Float64(),
    "origin": pl.String(),
}
LABELS: dict[str, Any] = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "label_id": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "prediction_id": pl.String(),
    "labeller": pl.String(),
    "value": pl.String(),
    "available_at": _TIME,
}


def tiny_resource(name: str = "phone-inspection", **spec: Any) -> ContinualModel:
    """A classification model whose code is tests/training/code/tiny_model.py."""
    content: dict[str, Any] = {
        "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
        "model": {"codec": "tiny_model:Codec", "trainer": "tiny_model:Trainer", "initial": "dataset"},
        "gates": {"fresh": {"rows": 60, "margin": 0.05}},
    }
    return example_resource(name, **(content | spec))


def picture(bright: bool, seed: int) -> bytes:
    """An 8 x 8 PNG, bright or dark, with noise."""
    pixels = np.random.default_rng(seed).normal(180 if bright else 70, 25, (8, 8)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "L").save(file, "PNG")
    return file.getvalue()


def events_frame(count: int, *, first: int = 0, start: datetime = START, source: str = "c/events/0") -> pl.DataFrame:
    """Events number `first` to `first + count - 1`, one a second from `start`, of three stations; odd ones bright."""
    numbers = range(first, first + count)
    times = [start + timedelta(seconds=number) for number in numbers]
    columns = {
        "source": [source] * count,
        "offset": list(numbers),
        "entity": [f"station-{number % 3}" for number in numbers],
        "event_id": [f"e{number}" for number in numbers],
        "event_time": times,
        "available_at": times,
        "event_date": [time.date() for time in times],
        "image": [picture(number % 2 == 1, number) for number in numbers],
        "brightness": [0.7 if number % 2 else 0.3 for number in numbers],
        "contrast": [0.1] * count,
        "origin": [None] * count,
    }
    return pl.DataFrame(columns, schema=EVENTS)


def labels_frame(
    events: pl.DataFrame, *, after_s: float = 2.0, source: str = "c/labels/0", **values: Any
) -> pl.DataFrame:
    """A true label for each event, `after_s` after it arrived; `values` replace columns (offset, value, …)."""
    count = events.height
    offsets = events["offset"].to_list()
    columns: dict[str, Any] = {
        "source": [source] * count,
        "offset": offsets,
        "label_id": [f"{source}@{offset}" for offset in offsets],
        "entity": events["entity"],
        "event_id": events["event_id"],
        "prediction_id": [None] * count,
        "labeller": ["final-check"] * count,
        "value": [json.dumps({"defect": "scratch" if offset % 2 else "ok"}) for offset in offsets],
        "available_at": events["available_at"] + timedelta(seconds=after_s),
    }
    return pl.DataFrame(columns | values, schema=LABELS)


def snapshot_rows(resource: ContinualModel, count: int = 200, *, fresh: int = 60) -> pl.DataFrame:
    """The rows of a snapshot of `count` labelled events, the newest `fresh` held out."""
    events = events_frame(count)
    rows = labelled(events.lazy(), labels_frame(events).lazy(), resource, as_of=TAKEN_AT).rows
    return content(events.lazy(), split(rows, fresh_rows=fresh, known=None, seed=1), resource, PictureStore("none"))


def snapshot_record(rows: pl.DataFrame, **changes: Any) -> SnapshotRecord:
    """A record that fits the rows; `changes` replace fields."""
    values: dict[str, Any] = {
        "model": "default.phone-inspection",
        "as_of": TAKEN_AT,
        "query": query_of(tiny_resource()),
        "maturity_ms": 4000,
        "events": TableRead(uri="lake/events", delta_version=3, offsets={"c/events/0": 199}),
        "labels": TableRead(uri="lake/labels", delta_version=2, offsets={"c/labels/0": 199}),
        "seed": 1,
        "rows": dict(rows["part"].value_counts().iter_rows()),
    }
    return SnapshotRecord(**(values | changes))


def snapshot_of(folder: Path, rows: pl.DataFrame, **changes: Any) -> Snapshot:
    """Write a snapshot of the rows into the folder."""
    reference = pl.DataFrame({"entity": ["a", "b"], "brightness": [0.25, 0.5]})
    return write_snapshot(folder, rows, reference, snapshot_record(rows, **changes))
