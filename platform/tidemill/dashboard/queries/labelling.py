"""What a label says, from what a person chose: a class, a number, a box. Pure."""

from collections.abc import Mapping
from typing import Any

from tidemill.dashboard.queries.browse import Box, Thing
from tidemill.spec.model import ContinualModel

__all__ = ["before_of", "choices_of", "drawn_box", "is_repair", "value_of"]

_LEAST = 1.0
"""Pixels of a box's sides; less is a click, and no box."""


def choices_of(resource: ContinualModel) -> tuple[str, ...]:
    """What a labeller chooses from; empty where the label is a number."""
    types = {field.type for field in resource.spec.labels.fields}
    if "class" in types:
        return resource.spec.prediction.classes
    return ("no", "yes") if "bool" in types else ()


def value_of(resource: ContinualModel, choice: str, box: Box | None) -> dict[str, Any]:
    """The label's value. What found nothing has no box. Raises `ValueError` for a number that is none."""
    value: dict[str, Any] = {}
    classes = resource.spec.prediction.classes
    is_nothing = bool(classes) and choice in {classes[0], "no"}
    for field in resource.spec.labels.fields:
        if field.type == "class":
            value[field.name] = choice
        elif field.type == "bool":
            value[field.name] = choice == "yes" if choice in {"yes", "no"} else not is_nothing
        elif field.type == "box":
            value[field.name] = None if is_nothing or box is None else [round(edge, 1) for edge in box]
        elif field.type in {"float", "int"} and not classes:
            value[field.name] = int(choice) if field.type == "int" else float(choice)
    return value


def before_of(resource: ContinualModel, thing: Thing) -> Mapping[str, Any] | None:
    """What counted as true of a thing before; None: nothing did."""
    if thing.label is None:
        return None
    choice = {"true": "yes", "false": "no"}.get(thing.label, thing.label)
    try:
        return value_of(resource, choice, thing.label_box)
    except ValueError:
        return None


def is_repair(thing: Thing) -> bool:
    """Whether who labels it sees that others have: their word is then no independent one (`Label.repair`)."""
    return (thing.label is not None and not thing.assumed) or thing.kind == "disputed"


def drawn_box(begin: tuple[float, float], end: tuple[float, float], width: int, height: int) -> Box | None:
    """The box between two corners in any order, within the picture; None where it is no more than a click."""
    xs, ys = sorted((begin[0], end[0])), sorted((begin[1], end[1]))
    x0, x1 = max(0.0, xs[0]), min(float(width), xs[1])
    y0, y1 = max(0.0, ys[0]), min(float(height), ys[1])
    return (x0, y0, x1, y1) if x1 - x0 >= _LEAST and y1 - y0 >= _LEAST else None
