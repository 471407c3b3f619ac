"""Classes that appear while the model runs: which a run adopts, and what it holds out of their rows.

    declared    `spec.prediction.classes`: those one starts with; the first means that nothing was found
    known       these, and those that the champion answers: a class is never dropped by a later run
    stated      what mature labelled events say besides, where labellers agree by `labels.conflict`
    adopted     stated by at least `triggers.newClass.minExamples` events: the run learns them

The order is that in which they became known; new ones follow in the order of their first labels.
"""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput
from tidemill.spec.model import ContinualModel
from tidemill.training.dataset import KEY, by_event, labelled

__all__ = ["fresh_rows", "new_classes", "ready_from", "stated"]


def stated(
    events: pl.LazyFrame,
    labels: pl.LazyFrame,
    resource: ContinualModel,
    *,
    as_of: int,
    least: int,
    predictions: pl.LazyFrame | None = None,
) -> dict[str, int]:
    """Mature labelled events by class that is not known, in the order of first labels.

    Classes that fewer than `least` labels name are left out unread. Where no label names another class, that is one
    scan of the labels; else only the events of which one does are joined.

    Args:
        events: the lake's events.
        labels: the lake's labels.
        resource: with all classes that are known.
        as_of: milliseconds since the epoch; what arrived later is not seen.
        least: labels that a class needs to be looked at.
        predictions: the lake's predictions, through which labels by prediction id find their event.
    """
    known, of = resource.spec.prediction.classes, _class_in("value", resource)
    if of is None:
        return {}
    new = labels.filter(pl.col("available_at") <= from_ms(as_of)).with_columns(said=of)
    new = new.filter(pl.col("said").is_not_null() & ~pl.col("said").is_in(list(known)))
    counted = new.group_by("said").agg(count=pl.len(), first=pl.col("available_at").min())
    names = counted.filter(pl.col("count") >= least).sort("first", "said").collect()["said"].to_list()
    if not names:
        return {}
    named = new.filter(pl.col("said").is_in(names)).drop("said")
    keys = by_event(named, predictions).select(KEY).unique().collect().lazy()
    texts = events.with_columns(pl.col("entity").cast(pl.String)).join(keys, on=KEY, how="semi")
    grown = resource.with_classes((*known, *names))
    rows = labelled(texts, _about(labels, keys, predictions), grown, as_of=as_of, predictions=predictions).rows
    counts = Counter(_said(rows, resource))
    return {name: counts[name] for name in names if counts[name]}


def new_classes(classes: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """What was added to the champion's classes; raises `InvalidInput` where the order is not kept."""
    if tuple(classes[: len(before)]) != tuple(before):
        raise InvalidInput(
            f"the classes {', '.join(classes)} do not begin with the champion's, {', '.join(before)}: "
            "its weights would stand for others",
            hint="let spec.prediction.classes begin as before, or set spec.model.warmStart to false",
        )
    return tuple(classes[len(before) :])


def ready_from(rows: pl.DataFrame, resource: ContinualModel, adopted: Sequence[str], as_of: int) -> pl.DataFrame:
    """Rows of `labelled`; those of adopted classes are ready from now on: no earlier run could learn from them."""
    if not adopted:
        return rows
    is_adopted = _said(rows, resource).is_in(list(adopted))
    moment = pl.lit(from_ms(as_of), rows.schema["ready_at"])
    return rows.with_columns(ready_at=pl.when(is_adopted).then(moment).otherwise("ready_at"))


def fresh_rows(rows: pl.DataFrame, resource: ContinualModel, adopted: Sequence[str]) -> int:
    """How many of the newest rows are the fresh ones: `gates.fresh.rows`, or fewer.

    A class that has just appeared is among the newest rows alone; at least half of its examples are trained on.

    Args:
        rows: from `labelled`, oldest event first.
        resource: for the gate.
        adopted: classes that are new with this run.
    """
    held = min(resource.spec.gates.fresh.rows, rows.height)
    said = _said(rows, resource)
    for name in adopted:
        places = (said == name).arg_true()
        held = min(held, rows.height - 1 - int(places[(len(places) - 1) // 2]))
    return held


def _about(labels: pl.LazyFrame, keys: pl.LazyFrame, predictions: pl.LazyFrame | None) -> pl.LazyFrame:
    """All labels of these events."""
    direct = labels.join(keys, on=KEY, how="semi")
    if predictions is None:
        return direct
    about = predictions.join(keys, on=KEY, how="semi").select("prediction_id")
    named = labels.filter(pl.col("event_id").is_null()).join(about, on="prediction_id", how="semi")
    return pl.concat([direct, named])


def _said(rows: pl.DataFrame, resource: ContinualModel) -> pl.Series:
    """The class that the label of each row states."""
    of = _class_in("label", resource)
    return rows.select(pl.lit(None, pl.String) if of is None else of).to_series()


def _class_in(column: str, resource: ContinualModel) -> pl.Expr | None:
    """The class in a column of labels as JSON; None where labels have no field of this type."""
    field = next((field.name for field in resource.spec.labels.fields if field.type == "class"), None)
    return None if field is None else pl.col(column).str.json_path_match(f"$.{field}")
