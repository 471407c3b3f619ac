"""Labels as they come from the user's systems: read, checked against the resource, or refused with a reason."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label, ResolvedLabel
from tidemill.spec.model import LabelField

__all__ = ["KnownLabel", "event_key", "label_order", "read_label"]


_LAST_MS = 253_402_300_799_999
"""The end of the year 9999, where calendars of most languages end."""

_LARGEST = sys.float_info.max


class KnownLabel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A label that was accepted, as the index keeps it. `label_id` is `<source>@<offset>` of its record."""

    label_id: str
    value: dict[str, Any]
    labeller: str
    available_at: int

    @property
    def order(self) -> tuple[int, str, int]:
        """By arrival; within one millisecond by source and offset."""
        return label_order(self.available_at, self.label_id)

    def resolved(self, prediction_id: str) -> ResolvedLabel:
        """This label, said of a prediction."""
        return ResolvedLabel(
            label_id=self.label_id,
            prediction_id=prediction_id,
            value=self.value,
            labeller=self.labeller,
            available_at=self.available_at,
        )


class _Written(msgspec.Struct, frozen=True, gc=False):
    """A label as systems write it: ids may be numbers."""

    value: dict[str, Any]
    labeller: str = ""
    prediction_id: str | int | None = None
    entity: str | int | None = None
    event_id: str | int | None = None
    time: int | None = None


def label_order(available_at: int, label_id: str) -> tuple[int, str, int]:
    """The order in which labels arrived. Offsets compare as numbers, so that @10 follows @9."""
    source, _, offset = label_id.rpartition("@")
    return available_at, source, int(offset)


def event_key(entity: str, event_id: str) -> str:
    """One string for an event, unambiguous whatever the two hold."""
    return f"{len(entity)}:{entity}:{event_id}"


def read_label(data: bytes | None, fields: Sequence[LabelField], classes: Sequence[str]) -> Label:
    """The label in a record of the labels topic.

    Args:
        data: the record's value.
        fields: `spec.labels.fields`; fields of the value that are not declared are kept as they are.
        classes: `spec.prediction.classes`.

    Raises:
        InvalidInput: why it is refused, in words for the person who sent it.
    """
    try:
        written = msgspec.json.decode(data or b"", type=_Written)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a label: {error}") from error
    if written.prediction_id is None and (written.entity is None or written.event_id is None):
        raise InvalidInput("names neither a prediction (prediction_id) nor an event (entity and event_id)")
    if written.time is not None and not 0 <= written.time <= _LAST_MS:
        raise InvalidInput(f"time should be milliseconds since the epoch, not {written.time}")
    for field in fields:
        _check(field, written.value.get(field.name), classes)
    return Label(
        value=written.value,
        labeller=written.labeller,
        prediction_id=_text(written.prediction_id),
        entity=_text(written.entity),
        event_id=_text(written.event_id),
        time=written.time,
    )


def _check(field: LabelField, value: Any, classes: Sequence[str]) -> None:
    if field.type == "class" and value not in classes:
        raise InvalidInput(f"{field.name} should be one of {', '.join(classes)}, not {value!r}")
    if field.type in _FITS and not _FITS[field.type](value):
        raise InvalidInput(f"{field.name} should be {_EXPECTED[field.type]}, not {value!r}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST  # JSON's numbers have no bound; those that a float cannot hold are no measure


def _is_box(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(side) for side in value):
        return False
    return bool(value[0] < value[2] and value[1] < value[3])


_FITS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "float": _is_number,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "box": _is_box,
}

_EXPECTED = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "string": "text",
    "box": "[x0, y0, x1, y1] with x0 < x1 and y0 < y1, or null",
}


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
