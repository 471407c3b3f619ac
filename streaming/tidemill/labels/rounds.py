"""The rounds of `labels queue`: what of the lake a round considers, what was picked before, and its records.

The records of a round bear the arrival time up to which it considered predictions (`Label.time`). The newest of them
in the lake says where the next round begins. Two who ask within the seconds until the lake has the records toss the
same coins of the same predictions: with the same budget that gives the same records, which count once; with another
budget the record that comes last holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.events.records import Label
from tidemill.labels.words import item_of
from tidemill.spec.model import ContinualModel, LabelField

__all__ = ["MOST", "Round", "answered", "disputed", "read_round", "records_of"]

MOST = 100_000
"""Predictions that one round considers, the oldest first; the next round goes on from there."""
FIRST_ROUND = timedelta(days=7)
"""How far the first round looks back."""
_SETTLED = timedelta(seconds=10)
"""Younger predictions may not all be in the lake: the next round has them."""

_PREDICTIONS: dict[str, Any] = {
    "prediction_id": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "version": pl.String(),
    "item": pl.String(),
    "answer": pl.String(),
    "confidence": pl.Float64(),
    "available_at": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Round:
    """What a round considers."""

    predictions: pl.DataFrame
    """All that arrived since the last round: `_PREDICTIONS`."""
    through: datetime
    """Up to where."""
    asked: pl.DataFrame
    """Picked in earlier rounds: prediction_id, reasons (JSON), picked_at."""
    labelled: pl.DataFrame
    """What has labels: item, prediction_id, labeller, text, entity, event_id, labelled_at."""

    def things(self) -> pl.DataFrame:
        """One row a thing, from its newest prediction; in the order of their names."""
        return (
            self.predictions.sort("available_at", "prediction_id")
            .group_by("item")
            .agg(
                pl.col("answer", "confidence", "entity").last(),
                versions_differ=(pl.col("version").n_unique() > 1) & (pl.col("answer").n_unique() > 1),
            )
            .sort("item")
        )


def answered() -> list[pl.Expr]:
    """Of rows of the lake's predictions: which thing each is about, and what was answered, how surely."""
    return [
        *(pl.col(name) for name in ("prediction_id", "entity", "event_id", "available_at")),
        item_of("prediction_id", "entity", "event_id").alias("item"),
        pl.col("output").str.json_path_match("$.class").alias("answer"),
        pl.col("output").str.json_path_match("$.confidence").cast(pl.Float64, strict=False).alias("confidence"),
    ]


def read_round(lake: str, resource: ContinualModel, field: LabelField, now: datetime) -> Round:
    """What a round that begins now considers. Raises `NotFound` without predictions, or `Unavailable`."""
    labels = _labels(LakeTable(table_uri(lake, resource.id, "labels")), field, now - 2 * FIRST_ROUND)
    asked = labels.filter(pl.col("reasons").is_not_null())
    settled = now - _SETTLED
    through = settled - timedelta(microseconds=settled.microsecond % 1000)  # records bear whole milliseconds
    begun = asked["event_time"].max()
    after = begun if isinstance(begun, datetime) else now - FIRST_ROUND
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    rows = table.scan().filter(pl.col("available_at") > after, pl.col("available_at") <= through)
    rows = rows.bottom_k(MOST + 1, by=["available_at", "prediction_id"]).select(*answered(), "version")
    predictions = table.collect(rows).sort("available_at", "prediction_id")
    if predictions.height > MOST:  # predictions of one millisecond stay together: the next round is after that time
        end = predictions["available_at"][MOST]
        kept = predictions.filter(pl.col("available_at") < end)
        predictions = kept if kept.height else predictions
        through = predictions["available_at"][-1]
    newest_first = asked.sort("available_at", descending=True).unique("prediction_id", keep="first")
    said = labels.filter(pl.col("reasons").is_null() & pl.col("value").is_not_null())
    return Round(
        predictions.select(*_PREDICTIONS),
        through,
        newest_first.select("prediction_id", "reasons", picked_at="available_at"),
        _placed(said, table),
    )


def records_of(reasons: Mapping[str, Mapping[str, float]], found: Round) -> Iterator[Label]:
    """The records of a round: one of each prediction of each thing that was picked."""
    time = to_ms(found.through)
    rows = found.predictions.filter(pl.col("item").is_in(list(reasons))).select("prediction_id", "item", "entity")
    for prediction_id, item, entity in rows.iter_rows():
        yield Label(prediction_id=prediction_id, reasons=dict(reasons[item]), time=time, entity=entity)


def disputed(found: Round) -> pl.DataFrame:
    """Things of which labellers said different values: item, prediction_id, entity, event_id; those of most words."""
    words = found.labelled.filter(pl.col("labeller") != "").unique(["item", "labeller"], keep="first")
    grouped = words.group_by("item").agg(
        pl.col("text").n_unique().alias("values"),
        pl.len().alias("words"),
        pl.col("prediction_id", "entity", "event_id").first(),
    )
    return grouped.filter(pl.col("values") > 1).sort(["words", "item"], descending=[True, False])


def _labels(table: LakeTable, field: LabelField, since: datetime) -> pl.DataFrame:
    """Labels and picks, the newest first; a lake written before picks were kept has none."""
    columns = ["prediction_id", "entity", "event_id", "labeller", "value", "reasons", "event_time", "available_at"]
    try:
        rows = with_missing(table.scan(), {"reasons": pl.String()})
    except NotFound:
        schema: dict[str, Any] = dict.fromkeys([*columns, "text"], pl.String())
        schema |= dict.fromkeys(("event_time", "available_at"), pl.Datetime("us", "UTC"))
        return pl.DataFrame(schema=schema)
    rows = rows.filter(
        pl.col("refused").is_null(), pl.col("available_date") >= since.date(), pl.col("available_at") >= since
    )
    text = pl.col("value").str.json_path_match(f"$.{field.name}").alias("text")
    return table.collect(rows.select(*columns, text)).sort("available_at", descending=True)


def _placed(said: pl.DataFrame, predictions: LakeTable) -> pl.DataFrame:
    """Labels with the things they are of, for those by prediction id by way of the prediction."""
    named = said["prediction_id"].drop_nulls().unique()
    of = predictions.scan().select("prediction_id", p_entity="entity", p_event_id="event_id")
    known = predictions.collect(of.filter(pl.col("prediction_id").is_in(named.implode()))).unique("prediction_id")
    placed = said.join(known, on="prediction_id", how="left", maintain_order="left").with_columns(
        pl.col("labeller").fill_null(""),
        pl.coalesce("p_entity", "entity").alias("entity"),
        pl.when(pl.col("prediction_id").is_null()).then("event_id").otherwise("p_event_id").alias("event_id"),
    )
    item = item_of("prediction_id", "entity", "event_id").alias("item")
    return placed.select(item, "prediction_id", "labeller", "text", "entity", "event_id", labelled_at="available_at")
