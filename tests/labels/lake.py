"""A lake of labels and predictions, written in the columns in which the outcomes worker writes them."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Prediction
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

    def enter(self, labels: Iterable[Label], predictions: Iterable[Prediction]) -> None:
        """Many at once."""
        said = [
            {"labeller": one.labeller, "value": _json(one.value), "entity": one.entity, "event_id": one.event_id}
            for one in labels
        ]
        answered = [
            {"prediction_id": one.prediction_id, "output": _json(one.output), "version": one.version}
            | {"entity": one.entity, "event_id": one.event_id}
            for one in predictions
        ]
        self._append("labels", _WITH_REASONS, *said)
        self._append("predictions", PREDICTIONS, *answered)

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

    def _append(self, name: str, schema: dict[str, Any], *rows: dict[str, Any]) -> None:
        if not rows:
            return
        source = Source("c", name, 0)
        made = [dict.fromkeys(schema) | self._place(name, source) | row for row in rows]
        frame = pl.DataFrame([{column: row[column] for column in schema} for row in made], schema=schema)
        table = LakeTable(table_uri(self.uri, self.resource.id, name), schema, pipeline="tests")
        table.append(frame, {source: self._offsets[name]})

    def _place(self, name: str, source: Source) -> dict[str, Any]:
        self.now += timedelta(seconds=1)
        self._offsets[name] += 1
        offset = self._offsets[name]
        times: dict[str, Any] = {"available_at": self.now}
        if name == "labels":
            times |= {"event_time": self.now, "available_date": self.now.date()}
        else:
            times |= {"predicted_at": self.now, "event_date": self.now.date()}
        return {"source": str(source), "offset": offset, "label_id": f"{source}@{offset}"} | times


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
