"""The gate `data.leakage`: is the answer told to the model, or does it train on rows that judge it?

Refused is what cannot be honest, whatever the data:

    an event is trained on and held out, or trained on and in the frozen dataset that gates use
    an input states the label: its values and the label's are the same up to their names, in each of at least 500 rows
    an input that has the name of a label's field states it in fewer rows, too

Everything else that looks like a leak may be honest, and is a warning: an input that alone is nearly always right, one
with the name of a label's field (the demand of this hour, where that of the next is asked), events that arrived after
their labels.

**Errors.** An honest input that is wrong in a share e of cases states the label of n rows with probability (1 - e)^n:
below 0.7 % at e = 1 %, below 0.005 % at e = 2 %, for the 500 rows that are needed. What is missed: a leak with noise,
and any in fewer rows; the warnings are for these.
"""

import polars as pl

from tidemill.spec.model import ContinualModel
from tidemill.training.alone import alone
from tidemill.training.data_verdict import passed, refused, warned
from tidemill.training.verdict import GateVerdict

__all__ = ["LEAK_ROWS", "leakage", "states_label"]

LEAK_ROWS = 500
"""Rows from which on an input that states the label is refused."""
_LATE = 0.05
"""Share of training events that arrived after their label, above which it is told."""
_DISTINCT = 30
"""Different numbers that a field and a label must share before the one states the other."""
_EACH = 5
_KEY = ["entity", "event_id"]


def leakage(
    rows: pl.DataFrame, truth: pl.Series, resource: ContinualModel, frozen: pl.DataFrame | None = None
) -> GateVerdict:
    """Judge whether inputs tell the answer, and whether what judges a version is trained on.

    Args:
        rows: of a snapshot.
        truth: what each row's label states: a class, or a number.
        resource: for inputs and label fields.
        frozen: entity and event_id of the rows of the frozen dataset that gates use.
    """
    fresh = pl.col("part") == "fresh"
    train, held = rows.filter(~fresh), rows.filter(fresh)
    found = _both(train, held, "held out as fresh")
    if frozen is not None:
        found += _both(train, frozen, "in the frozen dataset of gates.frozen")
    named = {field.name for field in resource.spec.labels.fields}
    inputs = _inputs(rows, resource)
    fields = {field.name for field in resource.spec.events.fields}
    stating = [name for name in inputs if name in fields and states_label(rows[name], truth)]
    told = {name: f"{name} states the label in each of {rows.height:,} rows" for name in stating}
    leaks = [told[name] for name in stating if rows.height >= LEAK_ROWS or name in named]
    if leaks:
        todo = "is it known when the answer is wanted? Take it out of events.fields; else `--skip-gates` lets it pass"
        found += [*leaks, todo]
    if found:
        return refused("leakage", found, rows=rows.height)
    notes = [*told.values(), *alone(rows, truth, [name for name in inputs if name not in told])]
    notes += [f"{name} is an input and a field of the label" for name in inputs if name in named and name not in told]
    notes += _late(train)
    if notes:
        return warned("leakage", [*notes, "is all of it known when the answer is wanted?"], rows=rows.height)
    return passed("leakage", "no input tells the answer by itself, and no row that judges is trained on")


def states_label(values: pl.Series, truth: pl.Series) -> bool:
    """Whether values and truth are the same up to their names, each truth five times at least; numbers: the same."""
    if truth.dtype.is_numeric():
        same = values.dtype.is_numeric() and bool((values == truth).fill_null(False).all())
        return same and truth.n_unique() >= _DISTINCT
    pairs = pl.DataFrame({"value": values, "truth": truth}).group_by("value", "truth").len()
    kinds = truth.n_unique()
    if not 2 <= kinds == pairs.height == pairs["value"].n_unique():
        return False
    return pairs.filter(pl.col("len") < _EACH).is_empty()


def _both(train: pl.DataFrame, judging: pl.DataFrame, where: str) -> list[str]:
    shared = train.join(judging.select(_KEY), on=_KEY, how="semi").height
    return [f"{shared:,} events are both trained on and {where}"] if shared else []


def _inputs(rows: pl.DataFrame, resource: ContinualModel) -> list[str]:
    features, image = resource.spec.features, resource.image_field
    names = [field.name for field in resource.spec.events.fields] + [*features.image, *features.window_names]
    return [name for name in names if name in rows.columns and (image is None or name != image.name)]


def _late(train: pl.DataFrame) -> list[str]:
    """Events that arrived when their label was there already."""
    if "label_at" not in train.columns or train.is_empty():
        return []
    late = train.filter(pl.col("label_at") < pl.col("available_at")).height
    if late <= _LATE * train.height:
        return []
    return [f"{late:,} of {train.height:,} training events arrived after their label (an import of history does so)"]
