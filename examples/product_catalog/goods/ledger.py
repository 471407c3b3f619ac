"""Writes the lake as the workers of a running stack do, from lists in memory; and hears the labels of each product."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.ingest.tables import events_schema
from tidemill.outcomes.conflict import Heard
from tidemill.outcomes.tables import LABELS, PREDICTIONS
from tidemill.spec.model import ContinualModel

from .products import Product

__all__ = ["Ledger"]


class Ledger:
    """The tables of events, predictions and labels of one model. Rows are in the lake after `flush`.

    Args:
        lake: folder of the lake.
        resource: the model.
    """

    def __init__(self, lake: str, resource: ContinualModel) -> None:
        self._schemas: dict[str, dict[str, Any]] = {
            "events": dict(events_schema(resource)),
            "predictions": PREDICTIONS,
            "labels": LABELS,
        }
        self._tables = {
            name: LakeTable(table_uri(lake, resource.id, name), schema, pipeline="catalogue")
            for name, schema in self._schemas.items()
        }
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self._tables}
        self._next = dict.fromkeys(self._tables, 0)
        self.heard: dict[str, list[Heard]] = {}  # labels so far, by product

    def event(self, product_id: str, product: Product, at: datetime) -> None:
        """A product is listed."""
        fields = {"title": product.title, "price": product.price, "grams": product.grams}
        times = {"event_time": at, "available_at": at, "event_date": at.date()}
        self._add("events", {"entity": product.seller, "event_id": product_id, **fields, **times})

    def prediction(
        self, product_id: str, product: Product, version: str, answer: Mapping[str, Any], at: datetime
    ) -> None:
        """It was answered."""
        said = {"prediction_id": f"p-{product_id}", "version": version, "output": json.dumps(answer)}
        where = {"entity": product.seller, "event_id": product_id}
        times = {"predicted_at": at, "available_at": at, "event_date": at.date()}
        self._add("predictions", said | where | times)

    def label(self, product_id: str, product: Product, desk: str, kind: str, at: datetime) -> None:
        """A desk says what it is."""
        value = {"kind": kind}
        offset = self._add(
            "labels",
            {"entity": product.seller, "event_id": product_id, "labeller": desk, "value": json.dumps(value)}
            | {"event_time": at, "available_at": at, "available_date": at.date()},
        )
        label_id = f"{_source('labels')}@{offset}"
        self._rows["labels"][-1]["label_id"] = label_id
        self.heard.setdefault(product_id, []).append(Heard(label_id, value, desk, to_ms(at), offset, 0))

    def flush(self) -> None:
        """Commit what is written."""
        for name, rows in self._rows.items():
            if rows:
                self._tables[name].append(_frame(rows, self._schemas[name]), {_source(name): self._next[name] - 1})
                rows.clear()

    def _add(self, name: str, row: dict[str, Any]) -> int:
        offset = self._next[name]
        self._next[name] += 1
        self._rows[name].append({"source": str(_source(name)), "offset": offset, **row})
        return offset


def _source(name: str) -> Source:
    return Source("catalogue", name, 0)


def _frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in schema}, schema=dict(schema))
