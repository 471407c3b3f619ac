"""Which of several labels of an event is learnt: the one that counts by `labels.conflict`, as outcomes are judged."""

from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.outcomes.conflict import Heard, rule_of, winner
from tidemill.spec.model import ContinualModel

__all__ = ["settled"]

_KEY = ["entity", "event_id"]


def settled(labels: pl.LazyFrame, resource: ContinualModel) -> pl.LazyFrame:
    """One label an event: of those that agree the last; none where they differ so that none counts (`unanimous`).

    Args:
        labels: columns entity, event_id, label_source, label_offset, label (JSON), label_at and labeller.
        resource: for the rule.
    """
    ordered = labels.sort("label_at", "label_source", "label_offset")
    last = ordered.unique(_KEY, keep="last", maintain_order=True)
    rule = rule_of(resource.spec.labels)
    if rule.conflict == "last":
        return last.drop("labeller")
    # What one person said alone counts by every rule; where several spoke, events are settled one by one.
    several = pl.col("labeller").fill_null("").n_unique().over(_KEY) > 1
    contested = ordered.filter(several).sort(_KEY, maintain_order=True).collect()
    kept = []
    rows = contested.with_row_index("row").iter_rows(named=True)
    for _, of_event in groupby(rows, key=itemgetter(*_KEY)):
        counts, _ = winner([_heard(row) for row in of_event], rule)
        if counts is not None:
            kept.append(counts.place)
    alone = last.join(contested.lazy().select(_KEY), on=_KEY, how="anti")
    return pl.concat([alone, contested[kept].lazy()]).drop("labeller")


def _heard(row: dict[str, Any]) -> Heard:
    return Heard(
        label_id=f"{row['label_source']}@{row['label_offset']}",
        value=_value(row["label"]),
        labeller=row["labeller"] or "",
        available_at=to_ms(row["label_at"]),
        offset=0,
        through=0,
        place=row["row"],
    )


def _value(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
