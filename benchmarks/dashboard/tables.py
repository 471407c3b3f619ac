"""The lake of a model with a lot to show: predictions over five days, each with its outcome and its label; pictures."""

import io
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.ingest.tables import events_schema
from tidemill.outcomes.tables import LABELS, OUTCOMES, PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

__all__ = ["CANDIDATE", "CHAMPION", "SOURCE", "Amount", "resource_of", "write_lake"]

SOURCE = Source("c", "t", 0)
CHAMPION, CANDIDATE = "v29", "v30"
STATIONS = 40
_AT_ONCE = 50_000
_DAYS = 5
_ANSWERED_BY_CANDIDATE = 0.25
_UNLABELLED = 0.01
"""Share of the things that nobody has labelled yet."""
_AGAIN = 0.02
"""Share of the things that a second labeller labels, too."""
_LABELLERS = ("ada", "ben", "cem", "dora")
_FILES = 200
"""Pictures that differ in more than their last bytes."""


@dataclass(frozen=True)
class Amount:
    """How much there is."""

    predictions: int
    pictures: int

    def at(self, number: int, now: datetime) -> datetime:
        """When a prediction was made."""
        return now - timedelta(days=_DAYS) / self.predictions * (self.predictions - number)


def resource_of(name: str) -> ContinualModel:
    """The example, whose events also have a shift, by which it is cut."""
    events = example_resource().spec.events.model_dump(by_alias=True, exclude_unset=True)
    events["fields"] = [*events["fields"], {"name": "shift", "type": "string"}]
    return example_resource(name, events=events, triggers={"drift": {"tolerance": 0.2, "slices": ["shift"]}})


def write_lake(lake: Path, resource: ContinualModel, amount: Amount, now: datetime, rollout_since: datetime) -> None:
    """Predictions evenly over the days, with all that came of them; pictures with the newest events."""
    rng, count = np.random.default_rng(1), amount.predictions
    tables = _Tables(str(lake), resource)
    for begin in range(0, count, _AT_ONCE):
        numbers = np.arange(begin, min(begin + _AT_ONCE, count))
        rows = _rows(rng, numbers, [amount.at(int(number), now) for number in numbers], rollout_since)
        tables.append("predictions", PREDICTIONS, "event_date", rows)
        tables.append("outcomes", OUTCOMES, "event_date", rows.with_columns(revision=pl.lit(0, pl.Int64)))
        tables.append("labels", LABELS, "available_date", _labels(rng, rows))
        pictured = rows.filter(pl.col("offset") >= count - amount.pictures)
        if pictured.height:
            tables.append("events", events_schema(resource), "event_date", _events(rng, pictured))


class _Tables:
    def __init__(self, lake: str, resource: ContinualModel) -> None:
        self._lake, self._model = lake, resource.id

    def append(self, name: str, schema: dict[str, Any], day: str, rows: pl.DataFrame) -> None:
        """Append to a table; columns that the rows lack are null."""
        kept = rows.select(
            (pl.col(column) if column in rows.columns else pl.lit(None)).cast(kind).alias(column)
            for column, kind in schema.items()
        )
        table = LakeTable(table_uri(self._lake, self._model, name), schema, pipeline="bench", partition_by=[day])
        table.append(kept, {SOURCE: int(rows["offset"].max() or 0)})  # type: ignore[arg-type]


def _rows(rng: np.random.Generator, numbers: npt.NDArray[Any], times: list[datetime], since: datetime) -> pl.DataFrame:
    """Predictions and outcomes: what both tables have of them."""
    count = len(numbers)
    is_scratch, is_wrong, sure = rng.random(count) < 0.3, rng.random(count) < 0.05, rng.random(count).round(4)
    is_unlabelled = rng.random(count) < _UNLABELLED
    is_candidates = (rng.random(count) < _ANSWERED_BY_CANDIDATE) & np.array([at >= since for at in times])
    box = [8.0, 8.0, 24.0, 24.0]
    answers = [
        _text({"class": "scratch" if one else "ok", "confidence": c, "box": box if one else None})
        for one, c in zip(is_scratch, sure.tolist(), strict=True)
    ]
    labels = [
        None if missing else _text({"defect": "scratch" if one else "ok", "box": box if one else None})
        for one, missing in zip(is_scratch ^ is_wrong, is_unlabelled, strict=True)
    ]
    features = [
        _text({"brightness": one, "contrast": 1 - one, "shift": "night" if one < 0.3 else "day"})
        for one in sure.tolist()
    ]
    frame = pl.DataFrame(
        {
            "source": [str(SOURCE)] * count,
            "offset": numbers,
            "prediction_id": [f"p{number}" for number in numbers],
            "event_id": [f"e{number}" for number in numbers],
            "request_id": [f"r{number}" for number in numbers],
            "entity": [f"s{number % STATIONS}" for number in numbers],
            "version": np.where(is_candidates, CANDIDATE, CHAMPION).tolist(),
            "output": answers,
            "features": features,
            "label": labels,
            "loss": [None if missing else float(one) for one, missing in zip(is_wrong, is_unlabelled, strict=True)],
        }
    )
    at = pl.Series("predicted_at", times)
    later = at.dt.offset_by("4s")
    return frame.with_columns(
        at, at.dt.date().alias("event_date"), later.alias("available_at"), later.alias("eligible_at")
    )


def _labels(rng: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """A label of each thing that has one, and a second labeller's of some."""
    rows = rows.drop_nulls("label")
    who = pl.Series("labeller", rng.choice(_LABELLERS[:-1], rows.height).tolist())
    first = rows.select(
        "source", "offset", "entity", "event_id", "available_at", pl.col("label").alias("value")
    ).with_columns(who, pl.format("l{}", "offset").alias("label_id"))
    second = first.filter(rng.random(rows.height) < _AGAIN).with_columns(
        pl.lit(_LABELLERS[-1]).alias("labeller"), pl.format("m{}", "offset").alias("label_id")
    )
    both = pl.concat([first, second])
    return both.with_columns(event_time="available_at", available_date=pl.col("available_at").dt.date())


def _events(rng: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    files = [_jpeg(rng) for _ in range(min(_FILES, rows.height))]
    # What follows a JPEG's end is not looked at, and makes each another file.
    images = [files[number % len(files)] + b"%d" % number for number in rows["offset"]]
    return rows.with_columns(
        pl.Series("image", images),
        _feature("shift"),
        *(_feature(name).cast(pl.Float64) for name in ("brightness", "contrast")),
        event_time="predicted_at",
        available_at="predicted_at",
    )


def _feature(name: str) -> pl.Expr:
    return pl.col("features").str.json_path_match(f"$.{name}").alias(name)


def _jpeg(rng: np.random.Generator) -> bytes:
    """A picture of the size that a line's cameras send to a model: some kilobytes."""
    file = io.BytesIO()
    Image.fromarray(rng.normal(120, 30, (128, 128, 3)).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return file.getvalue()


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
