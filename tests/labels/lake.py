"""A lake of labels and predictions, written in the columns in which the outcomes worker writes them."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label
from tidemill.events.sources import Source
from tidemill.outcomes.tables import LABELS, PREDICTIONS
from tidemill.spec.model import ContinualModel

__all__ = ["LabelLake"]

_WITH_REASONS = LABELS | {"reasons": pl.String()}


class LabelLake:
    """Appends rows; each a second after the one before, from `start` on.

    Args:
        folder: of the lake.
        resource: the model.
        start: arrival of the first row.
    """

    def __init__(self, folder: Path, resource: ContinualModel, start: datetime) -> None:
        self.uri, self.resource, self.now = str(folder), resource, start
        self._offsets = {"labels": -1, "predictions": -1}

    def label(self, labeller: str, value: dict[str, Any] | None, **about: Any) -> None:
        """One label; `about`: entity and event_id, or prediction_id; `refused`."""
        self._append("labels", _WITH_REASONS, {"labeller": labeller, "value": _json(value)} | about)

    def pick(self, record: Label) -> None:
        """A pick for labelling, as it is kept."""
        at = datetime.fromtimestamp((record.time or 0) / 1000, self.now.tzinfo)
        row = {"labeller": "", "prediction_id": record.prediction_id, "reasons": _json(record.reasons)}
        self._append("labels", _WITH_REASONS, row | {"event_time": at})

    def predict(self, prediction_id: str, answer: str, confidence: float, **about: Any) -> None:
        """One prediction; `about`: entity, event_id, version."""
        row = {"prediction_id": prediction_id, "output": _json({"class": answer, "confidence": confidence})}
        self._append("predictions", PREDICTIONS, {"entity": "a", "version": "v1"} | row | about)

    def _append(self, name: str, schema: dict[str, Any], row: dict[str, Any]) -> None:
        self.now += timedelta(seconds=1)
        self._offsets[name] += 1
        source, offset = Source("c", name, 0), self._offsets[name]
        place = {"source": str(source), "offset": offset, "available_at": self.now}
        times = {"event_time": self.now, "available_date": self.now.date()} if name == "labels" else {}
        times |= {"predicted_at": self.now, "event_date": self.now.date()} if name == "predictions" else {}
        made = dict.fromkeys(schema) | place | times | {"label_id": f"{source}@{offset}"} | row
        table = LakeTable(table_uri(self.uri, self.resource.id, name), schema, pipeline="tests")
        table.append(pl.DataFrame([{name: made[name] for name in schema}], schema=schema), {source: offset})


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
