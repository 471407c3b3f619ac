"""The gate `data.schema`: the rows are what the resource says of events, in columns, types, ranges and values.

Ingest held each event against the resource of its day. Where rows do not fit now, the resource has changed since: a
range became narrower, a field required. A few such rows are a warning. A column that is missing or of another type is
a refusal, and so are many rows that do not fit: a codec made for the resource would meet what it does not know.
"""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from tidemill.spec.inputs import EventField
from tidemill.spec.model import ContinualModel
from tidemill.training.data_verdict import passed, refused, warned
from tidemill.training.verdict import GateVerdict

__all__ = ["MAX_MISFITS", "schema"]

MAX_MISFITS = 0.05
"""Share of rows that do not fit the resource above which one of the two is wrong."""

_FITS: dict[str, Callable[[Any], bool]] = {
    "float": lambda kind: kind.is_numeric(),
    "int": lambda kind: kind.is_integer(),
    "string": lambda kind: kind == pl.String(),
    "bool": lambda kind: kind == pl.Boolean(),
    "image": lambda kind: kind == pl.Binary(),
}


def schema(rows: pl.DataFrame, resource: ContinualModel, service: Sequence[str] = ()) -> GateVerdict:
    """Judge the columns, then the values.

    Args:
        rows: of a snapshot.
        resource: what they are held against.
        service: features of the user's FeatureService.
    """
    fields, features = resource.spec.events.fields, resource.spec.features
    names = [field.name for field in fields] + [*features.image, *features.window_names, *service]
    wrong = _columns(rows, fields, names)
    if wrong:
        return refused("schema", [*wrong, "take a new snapshot, or give a field of another type another name"])
    rules = [(field.name, name, rule) for field in fields for name, rule in _rules(field).items()]
    said = [text for rule in rules if (text := _misfit(rows, *rule))]
    if not said:
        return passed("schema", f"{len(names)} inputs are in all {rows.height:,} rows as the resource says")
    count = rows.filter(pl.any_horizontal(*(rule for *_, rule in rules))).height
    figures = {"rows": rows.height, "misfits": count}
    if count > MAX_MISFITS * rows.height:
        wanted = "widen the resource, or wait until such rows are replayed no more"
        return refused("schema", [*said, f"at most {MAX_MISFITS:.0%} of the rows may differ: {wanted}"], **figures)
    return warned("schema", said, **figures)


def _columns(rows: pl.DataFrame, fields: Sequence[EventField], names: Sequence[str]) -> list[str]:
    missing = [f"the rows have no {name}, which the resource declares" for name in names if name not in rows.columns]
    other = [
        f"{field.name} is {rows.schema[field.name]} in the rows and {field.type} in the resource"
        for field in fields
        if field.name in rows.columns and not _FITS[field.type](rows.schema[field.name])
    ]
    return missing + other


def _rules(field: EventField) -> dict[str, pl.Expr]:
    """What a value must not be, by its name."""
    column = pl.col(field.name)
    rules: dict[str, pl.Expr] = {}
    if field.required:
        rules[f"{field.name} missing, though it is required"] = column.is_null()
    if field.type == "float":
        rules[f"{field.name} that is no number"] = ~column.cast(pl.Float64).is_finite()
    if field.min is not None:
        rules[f"{field.name} below min {field.min:g}"] = column < field.min
    if field.max is not None:
        rules[f"{field.name} above max {field.max:g}"] = column > field.max
    if field.enum is not None:
        rules[f"{field.name} outside its enum"] = ~column.is_in(list(field.enum))
    return rules


def _misfit(rows: pl.DataFrame, field: str, name: str, rule: pl.Expr) -> str:
    """How many rows break a rule, in words; empty where none does."""
    found = rows.filter(rule).select("event_id", field)
    if found.is_empty():
        return ""
    event, value = found.row(0)
    example = f"event {event}" + ("" if value is None else f" with {value!r}")
    return f"{found.height:,} of {rows.height:,} rows have {name}, such as {example}"
