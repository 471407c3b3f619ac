"""What labellers said, read from the lake as one frame: each labeller's last word on each thing that was labelled.

A thing is an event where the label, or the prediction that it names, has an event id; else it is that prediction.
So labels by event and labels by prediction id of the same phone are labels of one thing.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.spec.model import ContinualModel, LabelField

__all__ = ["MOST_LABELS", "OPINIONS", "SAID", "VALUES", "Said", "item_of", "judged_field", "read_said"]

MOST_LABELS = 500_000
"""Labels that are read at most, the newest: with what is read of predictions, half a gigabyte at the peak."""

SAID: dict[str, Any] = {
    "item": pl.String(),
    "labeller": pl.String(),
    "text": pl.String(),
    "label_id": pl.String(),
    "prediction_id": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
}
"""Columns of what was said, one row a labeller and thing. `text` is the value of one field: a class or text as it is,
anything else as JSON; null where the label does not have the field, or has null."""

OPINIONS: dict[str, Any] = {"item": pl.String(), "answer": pl.String(), "confidence": pl.Float64()}
"""Columns of the model's logged answers, one row a thing."""

VALUES: dict[str, Any] = {"text": pl.String(), "labels": pl.Int64(), "first_seen": pl.Datetime("us", "UTC")}
"""Columns of which values were said at all."""


@dataclass(frozen=True)
class Said:
    """The labels of one field in a span of time."""

    field: LabelField
    words: pl.DataFrame
    """`SAID`: last words, of labels that name their labeller; of those who said one of their own."""
    opinions: pl.DataFrame
    """`OPINIONS`: what the model answered, before anybody labelled it."""
    values: pl.DataFrame
    """`VALUES`: each value of a field of type class, by all labels, with how many and the first arrival."""
    read: int
    """Labels read."""
    unnamed: int
    """Labels that name no labeller: nobody's agreement can be told from them."""
    capped: bool
    """Whether there were more than are read, so that the oldest are left out."""


def judged_field(resource: ContinualModel, name: str | None = None) -> LabelField:
    """The label's field by its name; without one what is judged: class, bool or number. Raises `InvalidInput`."""
    fields = resource.spec.labels.fields
    if name is None:
        judged = ("class", "bool", "float", "int")
        wanted = (field for kind in judged for field in fields if field.type == kind)
        return next(wanted)  # the resource is valid only with one of them
    for field in fields:
        if field.name == name:
            return field
    raise InvalidInput(f"labels have no field {name}", hint=f"they have {', '.join(field.name for field in fields)}")


def read_said(
    lake: str,
    resource: ContinualModel,
    field: LabelField,
    *,
    since: datetime,
    until: datetime | None = None,
    most: int = MOST_LABELS,
    opinions: bool = True,
) -> Said:
    """The labels that arrived in [since, until), of them the newest `most`, and what the model had answered.

    Without `opinions` only predictions that labels name are looked at, to tell what thing they are of. Raises
    `NotFound` where there is no table of labels yet, `Unavailable` where the store does not answer.
    """
    labels = _labels(LakeTable(table_uri(lake, resource.id, "labels")), field, since, until, most)
    capped = labels.height > most
    labels = labels.head(most)
    answers = _answers(lake, resource, labels, since, by_event=opinions)
    named = labels.filter(pl.col("labeller") != "")
    words = _last_words(named.join(answers.unique("prediction_id"), on="prediction_id", how="left"))
    last = answers.sort("predicted_at").group_by("item").agg(pl.col("answer", "confidence").last())
    return Said(
        field=field,
        words=words,
        opinions=last.join(words.select("item").unique(), on="item", how="semi").select(*OPINIONS),
        values=_values(labels) if field.type == "class" else pl.DataFrame(schema=VALUES),
        read=labels.height,
        unnamed=labels.height - named.height,
        capped=capped,
    )


def item_of(prediction_id: str, entity: str, event_id: str) -> pl.Expr:
    """The name of a thing, from the names of three columns; unambiguous whatever the ids hold (`event_key`)."""
    length = pl.col(entity).str.len_chars().cast(pl.String)
    return pl.coalesce(
        pl.concat_str([length, entity, event_id], separator=":"), pl.concat_str([pl.lit("="), prediction_id])
    )


def _labels(table: LakeTable, field: LabelField, since: datetime, until: datetime | None, most: int) -> pl.DataFrame:
    """The newest first, one more than `most` at most."""
    rows = with_missing(table.scan(), {"repair": pl.Boolean()}).filter(
        pl.col("refused").is_null() & pl.col("value").is_not_null() & (pl.col("value") != "null"),
        pl.col("available_date") >= since.date(),
        pl.col("available_at") >= since,
    )
    if until is not None:
        rows = rows.filter(pl.col("available_at") < until)
    rows = rows.select(
        "label_id",
        "prediction_id",
        "entity",
        "event_id",
        pl.col("labeller").fill_null(""),
        pl.col("repair").fill_null(False),
        pl.col("value").str.json_path_match(f"$.{field.name}").alias("text"),
        "available_at",
        "source",
        "offset",
    )
    order = ["available_at", "source", "offset"]
    return table.collect(rows.top_k(most + 1, by=order)).sort(order, descending=True)


def _answers(
    lake: str, resource: ContinualModel, labels: pl.DataFrame, since: datetime, *, by_event: bool
) -> pl.DataFrame:
    """The logged predictions that the labels are of: prediction_id, item, p_entity, p_event_id, answer, confidence."""
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    oldest = (since - resource.spec.labels.maturity.kept).date()
    try:
        rows = table.scan()
    except NotFound:
        schema = {"prediction_id": pl.String(), "p_entity": pl.String(), "p_event_id": pl.String(), **OPINIONS}
        return pl.DataFrame(schema=schema | {"predicted_at": pl.Datetime("us", "UTC")})
    events = labels.filter(pl.col("prediction_id").is_null(), by_event)
    named = labels["prediction_id"].drop_nulls().unique()
    # Ids first: taking apart the answers of all predictions takes ten times as long.
    near = pl.col("prediction_id").is_in(named.implode())
    near |= pl.col("event_id").is_in(events["event_id"].unique().implode())
    rows = rows.filter(pl.col("event_date") >= oldest, near).select(
        "prediction_id",
        item_of("prediction_id", "entity", "event_id").alias("item"),
        pl.col("entity").alias("p_entity"),
        pl.col("event_id").alias("p_event_id"),
        pl.col("output").str.json_path_match("$.class").alias("answer"),
        pl.col("output").str.json_path_match("$.confidence").cast(pl.Float64, strict=False).alias("confidence"),
        "predicted_at",
    )
    items = events.select(item_of("prediction_id", "entity", "event_id")).to_series().unique()
    wanted = pl.col("prediction_id").is_in(named.implode()) | pl.col("item").is_in(items.implode())
    return table.collect(rows.filter(wanted))


def _last_words(labels: pl.DataFrame) -> pl.DataFrame:
    """Of each labeller and thing the newest label; `labels` come newest first.

    Who has done nothing but repair what others had said, having seen it, is no witness of whether people agree, that is
    of observers who work independently of each other (Krippendorff 2004, "Reliability in Content Analysis"): a second
    look at a mistake would count as a dispute. Who repairs their own label has said another word.
    """
    by_prediction = pl.col("prediction_id").is_not_null()
    own = item_of("prediction_id", "entity", "event_id")
    named = pl.concat_str([pl.lit("="), "prediction_id"])
    placed = labels.with_columns(
        item=pl.when(by_prediction).then(pl.coalesce("item", named)).otherwise(own),
        entity=pl.when(by_prediction).then(pl.coalesce("p_entity", "entity")).otherwise("entity"),
        event_id=pl.when(by_prediction).then("p_event_id").otherwise("event_id"),
    )
    is_witness = (~pl.col("repair")).any().over("item", "labeller")
    return placed.filter(is_witness).unique(["item", "labeller"], keep="first", maintain_order=True).select(*SAID)


def _values(labels: pl.DataFrame) -> pl.DataFrame:
    return (
        labels.drop_nulls("text")
        .group_by("text")
        .agg(pl.len().cast(pl.Int64).alias("labels"), pl.col("available_at").min().alias("first_seen"))
        .sort("labels", "text", descending=[True, False])
    )
