"""Events that two versions both answered, and answered differently."""

from dataclasses import dataclass

import polars as pl

from tidemill.core.errors import NotFound
from tidemill.dashboard.queries.browse import LOOKED_AT, Thing, things_of
from tidemill.events.lake import LakeTable, table_uri
from tidemill.spec.model import ContinualModel

__all__ = ["Differing", "Pair", "differing"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One event, as each of the two answered it."""

    one: Thing
    other: Thing


@dataclass(frozen=True, slots=True)
class Differing:
    """Where two versions differ."""

    both: int
    """Events that both answered, among the newest answers of each."""
    differ: int
    """Of these, those with different answers."""
    pairs: tuple[Pair, ...]
    """The newest of them."""


def differing(lake: str, resource: ContinualModel, one: str, other: str, *, limit: int = 12) -> Differing:
    """The events with different classes or numbers; boxes are not compared. Raises `Unavailable`."""
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    answer = "$.class" if resource.spec.prediction.classes else "$.value"
    try:
        rows = table.scan().filter(pl.col("event_id").is_not_null())
    except NotFound:
        return Differing(0, 0, ())
    newest = [
        table.collect(
            rows.filter(pl.col("version") == version)
            .select("prediction_id", "entity", "event_id", "predicted_at", "output")
            .top_k(LOOKED_AT, by="predicted_at")
        )
        .sort("predicted_at", descending=True)
        .unique(["entity", "event_id"], keep="first", maintain_order=True)
        .with_columns(answer=pl.col("output").str.json_path_match(answer))
        for version in (one, other)
    ]
    both = newest[0].join(newest[1], on=["entity", "event_id"], suffix="_other", maintain_order="left")
    differ = both.filter(pl.col("answer").ne_missing(pl.col("answer_other")))
    ids = list(differ.select("prediction_id", "prediction_id_other").head(limit).iter_rows())
    known = {one.prediction_id: one for one in things_of(lake, resource, [name for pair in ids for name in pair])}
    pairs = tuple(Pair(known[a], known[b]) for a, b in ids if a in known and b in known)
    return Differing(both.height, differ.height, pairs)
