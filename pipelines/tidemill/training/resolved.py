"""Of the labels of an event the one that counts, by `labels.conflict`: what outcomes are judged by is what is learnt.

The rule itself is `tidemill.outcomes.conflict.winner`. It is asked only where labellers may differ; elsewhere the last
label counts under each rule.
"""

from typing import Any, NamedTuple

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.outcomes.conflict import Heard, Rule, winner

__all__ = ["WORDS", "Resolved", "resolve"]

WORDS: dict[str, Any] = {
    "entity": pl.String(),
    "event_id": pl.String(),
    "labeller": pl.String(),
    "label": pl.String(),
    "disputed": pl.Boolean(),
}
"""Columns of what several labellers said of one event: the last word (JSON) of each who is named. `disputed`: the rule
finds no label in it."""

_KEY = ["entity", "event_id"]
_ORDER = ["label_at", "label_source", "label_offset"]
_decoder = msgspec.json.Decoder(dict[str, Any])


class Resolved(NamedTuple):
    """One label for each event, and what was said where there were several labellers."""

    labels: pl.DataFrame
    """One row an event: entity, event_id, label, label_at, label_source, label_offset; without disputed events."""
    disputed: pl.DataFrame
    """entity and event_id of the events whose labellers differ, where the rule takes no label then."""
    words: pl.DataFrame
    """`WORDS`, in order of entity, event and labeller."""


def resolve(said: pl.DataFrame, rule: Rule) -> Resolved:
    """Apply the rule to all labels of each event.

    Args:
        said: entity, event_id, labeller, label (JSON), label_at, label_source, label_offset; in any order.
        rule: of the resource (`tidemill.outcomes.conflict.rule_of`).
    """
    said = said.with_columns(pl.col("labeller").fill_null("")).sort(_ORDER)
    open_keys = _undecided(said, rule)
    chosen = said.join(open_keys, on=_KEY, how="anti").unique(_KEY, keep="last", maintain_order=True)
    disputed = open_keys.clear()
    if open_keys.height:
        winners, disputed = _asked(said.join(open_keys, on=_KEY, how="semi", maintain_order="left"), rule)
        chosen = pl.concat([chosen, winners])
    return Resolved(chosen.drop("labeller").sort(_KEY), disputed, _words(said, disputed))


def _undecided(said: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """The events whose last label need not be the one that counts."""
    groups = said.group_by(_KEY).agg(pl.len().alias("labels"), pl.col("label").n_unique().alias("differing"))
    if rule.conflict == "last":
        return groups.clear().select(_KEY)
    # Who speaks last and who stands first may say the same: then it is still the first one's label.
    several = pl.col("labels") > 1 if rule.conflict == "priority" else pl.col("differing") > 1
    return groups.filter(several).select(_KEY).sort(_KEY)


def _asked(said: pl.DataFrame, rule: Rule) -> tuple[pl.DataFrame, pl.DataFrame]:
    numbered = said.with_row_index("row")
    chosen: list[int] = []
    disputed: list[tuple[str, str]] = []
    for key, labels in numbered.group_by(_KEY, maintain_order=True):
        label, in_dispute = winner([_heard(row) for row in labels.iter_rows(named=True)], rule)
        if in_dispute:
            disputed.append((str(key[0]), str(key[1])))
        else:
            # Text that is no label counts where there is nothing else: it is told as not valid then.
            chosen.append(int(labels["row"][-1]) if label is None else label.offset)
    schema = {name: said.schema[name] for name in _KEY}
    return said[chosen], pl.DataFrame(disputed, schema=schema, orient="row")


def _heard(row: dict[str, Any]) -> Heard:
    """A label as the rule knows it; `offset` is the row's number here."""
    try:
        value = _decoder.decode(row["label"])
    except msgspec.DecodeError:
        value = None
    place, at = f"{row['label_source']}@{row['label_offset']}", to_ms(row["label_at"])
    return Heard(place, value, row["labeller"], at, row["row"], 0)


def _words(said: pl.DataFrame, disputed: pl.DataFrame) -> pl.DataFrame:
    words = said.filter(pl.col("labeller") != "").unique([*_KEY, "labeller"], keep="last", maintain_order=True)
    words = words.filter(pl.len().over(_KEY) > 1)
    is_disputed = disputed.with_columns(disputed=pl.lit(True))
    return (
        words.join(is_disputed, on=_KEY, how="left")
        .with_columns(pl.col("disputed").fill_null(False))
        .select(*WORDS)
        .sort("entity", "event_id", "labeller")
    )
