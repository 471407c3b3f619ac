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

_LONGEST_CLASS = 200
"""Characters of a class's or a reason's name: what is longer is text that went into the wrong field."""

_MOST_REASONS = 50


class KnownLabel(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="l"):
    """A label that was accepted, as the index keeps it. `label_id` is `<source>@<offset>` of its record."""

    label_id: str
    value: dict[str, Any] | None
    labeller: str
    available_at: int
    reasons: dict[str, float] = {}

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
            reasons=self.reasons,
            labeller=self.labeller,
            available_at=self.available_at,
        )


class _Written(msgspec.Struct, frozen=True, gc=False):
    """A label as systems write it: ids may be numbers."""

    value: dict[str, Any] | None = None
    reasons: dict[str, float] | None = None
    labeller: str = ""
    prediction_id: str | int | None = None
    entity: str | int | None = None
    event_id: str | int | None = None
    time: int | None = None
    repair: bool = False


def label_order(available_at: int, label_id: str) -> tuple[int, str, int]:
    """The order in which labels arrived. Offsets compare as numbers, so that @10 follows @9."""
    source, _, offset = label_id.rpartition("@")
    return available_at, source, int(offset)


def event_key(entity: str, event_id: str) -> str:
    """One string for an event, unambiguous whatever the two hold."""
    return f"{len(entity)}:{entity}:{event_id}"


def read_label(
    data: bytes | None,
    fields: Sequence[LabelField],
    classes: Sequence[str] | None = None,
    *,
    latest: int | None = None,
) -> Label:
    """The label, or the pick for labelling, in a record of the labels topic.

    Args:
        data: the record's value.
        fields: `spec.labels.fields`; fields of the value that are not declared are kept as they are.
        classes: the classes that a label may state; None: any, as new ones turn up before anyone declares them.
        latest: the latest time (milliseconds) that it may bear; None: any.

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
    if latest is not None and written.time is not None and written.time > latest:
        raise InvalidInput(f"lies {(written.time - latest) / 1000:g} s further in the future than maxFuture allows")
    if (written.value is None) == (written.reasons is None):
        raise InvalidInput("says either what is true (value) or why it was picked for labelling (reasons)")
    if written.value is not None:
        for field in fields:
            _check(field, written.value.get(field.name), classes)
    else:
        _check_reasons(written.reasons or {})
    return Label(
        value=written.value,
        reasons=written.reasons or {},
        labeller=written.labeller,
        prediction_id=_text(written.prediction_id),
        entity=_text(written.entity),
        event_id=_text(written.event_id),
        time=written.time,
        repair=written.repair,
    )


def _check(field: LabelField, value: Any, classes: Sequence[str] | None) -> None:
    if field.type == "class":
        if classes is not None and value not in classes:
            raise InvalidInput(f"{field.name} should be one of {', '.join(classes)}, not {value!r}")
        if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_CLASS:
            shown = f"{value[:20]!r} of {len(value)} characters" if isinstance(value, str) else repr(value)
            raise InvalidInput(f"{field.name} should be a class of 1 to {_LONGEST_CLASS} characters, not {shown}")
    if field.type in _FITS and not _FITS[field.type](value):
        raise InvalidInput(f"{field.name} should be {_EXPECTED[field.type]}, not {value!r}")


def _check_reasons(reasons: dict[str, float]) -> None:
    if not 0 < len(reasons) <= _MOST_REASONS:
        raise InvalidInput(f"reasons should be 1 to {_MOST_REASONS}, not {len(reasons)}")
    for name, share in reasons.items():
        if not 0 < len(name) <= _LONGEST_CLASS:
            raise InvalidInput(f"a reason's name should have 1 to {_LONGEST_CLASS} characters, not {len(name)}")
        if not 0 < share <= 1:
            raise InvalidInput(f"the probability of {name} should be above 0 and at most 1, not {share:g}")


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
