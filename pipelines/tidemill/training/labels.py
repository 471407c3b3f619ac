"""Label values as the lake keeps them: JSON, checked when they arrived, against the classes of that time."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.metrics.losses import true_number
from tidemill.spec.model import ContinualModel

__all__ = ["label_class", "parse_label", "states_new_class", "states_number"]


def parse_label(text: str, resource: ContinualModel) -> dict[str, Any] | None:
    """The label's value, or None where it no longer states what is judged: one of the classes, or a number."""
    try:
        value = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    if resource.spec.prediction.type == "regression":
        return value if states_number(value, resource) else None
    return None if label_class(value, resource) is None else value


def states_number(value: Mapping[str, Any], resource: ContinualModel) -> bool:
    """Whether a label has the number that a regression is judged by."""
    try:
        true_number(resource.spec.labels.fields, value)
    except InvalidInput:
        return False
    return True


def states_new_class(text: str, resource: ContinualModel) -> bool:
    """Whether it states a class that the resource does not declare: no mistake, and nothing to learn yet."""
    field = next((field.name for field in resource.spec.labels.fields if field.type == "class"), None)
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]).get(field or "")
    except msgspec.DecodeError:
        return False
    return isinstance(found, str) and found not in resource.spec.prediction.classes


def label_class(value: Mapping[str, Any], resource: ContinualModel) -> str | None:
    """What a label states: its class, or for a `bool` "found" or the first class; None where it states neither."""
    classes = resource.spec.prediction.classes
    for kind in ("class", "bool"):
        for field in resource.spec.labels.fields:
            if field.type == kind:
                found = value.get(field.name)
                if kind == "class":
                    return found if found in classes else None
                return None if not isinstance(found, bool) else ("found" if found else classes[0])
    return None
