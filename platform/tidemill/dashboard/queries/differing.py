"""Requests that two versions both answered, and answered differently.

Users are answered by one version. Both answered where an event was asked about again, and above all where the candidate
was given copies of the champion's requests (`rollout.shadow`): what it said there is judged by the label of the
champion's answer (`tidemill.rollout.copies`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import NotFound
from tidemill.dashboard.queries.browse import LOOKED_AT, Thing, thing_of_answer, things_of
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Prediction
from tidemill.spec.model import ContinualModel

__all__ = ["Differing", "Pair", "differing"]

_ANSWERS: Mapping[str, Any] = {
    "prediction_id": pl.String(),
    "version": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "request_id": pl.String(),
    "predicted_at": pl.Datetime("us", "UTC"),
    "output": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One event or request, as each of the two answered it."""

    one: Thing
    other: Thing
    is_copy: bool = False
    """Whether one of the answers was to a copy, and so reached nobody."""


@dataclass(frozen=True, slots=True)
class Differing:
    """Where two versions differ."""

    both: int
    """Events and requests that both answered, among the newest answers of each."""
    differ: int
    """Of these, those with different answers."""
    pairs: tuple[Pair, ...]
    """The newest of them."""
    copies: int = 0
    """Of those that both answered, how many by a copy."""
    note: str = ""
    """Why answers are left out."""


def differing(
    lake: str,
    resource: ContinualModel,
    one: str,
    other: str,
    *,
    copies: Sequence[Prediction] = (),
    limit: int = 12,
) -> Differing:
    """The requests with different classes or numbers; boxes are not compared. Raises `Unavailable`.

    Args:
        lake: where answers to users are.
        resource: the model.
        one: a version.
        other: another one.
        copies: answers to copies of requests, of whichever version.
        limit: pairs.
    """
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    copied = pl.DataFrame([_row(answer) for answer in copies], schema=_ANSWERS)
    answer = "$.class" if resource.spec.prediction.classes else "$.value"
    try:
        rows = table.scan()
    except NotFound:
        return Differing(0, 0, ())
    sides = []
    for version in (one, other):
        mine = pl.col("version") == version
        newest = table.collect(rows.filter(mine).select(*_ANSWERS).top_k(LOOKED_AT, by="predicted_at"))
        both = pl.concat([newest.with_columns(copy=pl.lit(False)), copied.filter(mine).with_columns(copy=pl.lit(True))])
        sides.append(_keyed(both).with_columns(answer=pl.col("output").str.json_path_match(answer)))
    both = sides[0].join(sides[1], on=["entity", "key"], suffix="_other", maintain_order="left")
    is_copy = pl.col("copy") | pl.col("copy_other")
    differ = both.filter(pl.col("answer").ne_missing(pl.col("answer_other"))).with_columns(is_copy=is_copy)
    return Differing(
        both.height,
        differ.height,
        tuple(_pairs(lake, resource, differ.head(limit))),
        int(both.select(is_copy.sum()).item()),
    )


def _row(answer: Prediction) -> dict[str, Any]:
    output = msgspec.json.encode(answer.output).decode()
    told = {name: getattr(answer, name) for name in ("prediction_id", "version", "entity", "event_id", "request_id")}
    return told | {"predicted_at": from_ms(answer.time), "output": output}


def _keyed(rows: pl.DataFrame) -> pl.DataFrame:
    """What can be told apart, the newest first: an event by its id, else a request that has one row of its entity."""
    by_event = pl.col("event_id").is_not_null()
    named = rows.sort("predicted_at", descending=True).with_columns(
        key=pl.when(by_event).then(pl.format("event {}", "event_id")).otherwise(pl.format("request {}", "request_id"))
    )
    first = named.filter(by_event).unique(["entity", "key"], keep="first", maintain_order=True)
    alone = named.filter(~by_event).drop_nulls("key").unique(["entity", "key"], keep="none", maintain_order=True)
    return pl.concat([first, alone])


def _pairs(lake: str, resource: ContinualModel, rows: pl.DataFrame) -> list[Pair]:
    ids = [name for row in rows.iter_rows(named=True) for name in (row["prediction_id"], row["prediction_id_other"])]
    known = {one.prediction_id: one for one in things_of(lake, resource, ids)}
    pairs = []
    for row in rows.iter_rows(named=True):
        one = known.get(row["prediction_id"]) or thing_of_answer(row, resource)
        of_other = {name: row[f"{name}_other"] for name in _ANSWERS if f"{name}_other" in row}
        other = known.get(row["prediction_id_other"]) or thing_of_answer(row | of_other, resource)
        picture = one.picture or other.picture
        pairs.append(Pair(replace(one, picture=picture), replace(other, picture=picture), row["is_copy"]))
    return pairs
