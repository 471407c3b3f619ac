"""Labels as people and programs hand them in: checked before they are sent, so that who sent one hears why not.

`read_label` decides what a label is, here as in the worker that reads the topic. What is refused besides is what
only the sender can set right: a label of another model, from the future, of a class that nobody declared.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label, encode
from tidemill.labels.parse import read_label
from tidemill.spec.model import ContinualModel

__all__ = ["FIELDS", "LARGEST", "Checked", "LabelCheck", "iso_time", "milliseconds"]

FIELDS = ("prediction_id", "entity", "event_id", "labeller", "time", "value")
"""What a label says."""

LARGEST = 128 << 10
"""Bytes of a label's JSON, at most."""

_LONGEST_ID = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# In JSON; an escaped backslash before `u0000` is a backslash, and no NUL.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Checked:
    """A label that may be sent: what it says, its record, and the record's key."""

    label: Label
    data: bytes
    key: str


class LabelCheck:
    """Checks labels of one model.

    Args:
        resource: the model.
        clock: tells what is the future.
        new_classes: whether classes that the resource does not declare may be sent.
    """

    def __init__(self, resource: ContinualModel, *, clock: Clock, new_classes: bool = False) -> None:
        self._names = frozenset({resource.id, resource.metadata.name})
        self._model = resource.id
        self._fields = resource.spec.labels.fields
        self._classes = resource.spec.prediction.classes
        self._max_future_ms = to_ms(resource.spec.events.max_future)
        self._clock = clock
        self._new_classes = new_classes

    def __call__(self, said: Mapping[str, Any]) -> Checked:
        """The label in a JSON object with the fields of a label record, `time` as milliseconds or ISO 8601.

        Raises:
            InvalidInput: why it is refused, in words for the person who sent it.
        """
        self._check_whose(said)
        value = said.get("value")
        if not isinstance(value, Mapping) or not value:
            raise InvalidInput("says nothing: value should be an object with the label's fields")
        unknown = self.unknown_classes(value)
        written = {name: said[name] for name in FIELDS if said.get(name) is not None}
        if isinstance(written.get("time"), str):
            written["time"] = milliseconds(written["time"])
        label = read_label(_json(written), self._fields, (*self._classes, *unknown))
        if unknown and not self._new_classes:
            field = next(field.name for field in self._fields if value.get(field.name) in unknown)
            raise InvalidInput(f"{field} should be one of {', '.join(self._classes)}, not {unknown[0]!r}")
        self._check_text(label)
        data = encode(label)
        if len(data) > LARGEST:
            raise InvalidInput(f"is larger than {LARGEST >> 10} KiB")
        return Checked(label, data, label.prediction_id or label.entity or "")

    def unknown_classes(self, value: Mapping[str, Any]) -> tuple[str, ...]:
        """The classes in a label's value that the resource does not declare."""
        said = (value.get(field.name) for field in self._fields if field.type == "class")
        return tuple(one for one in said if isinstance(one, str) and one and one not in self._classes)

    def _check_whose(self, said: Mapping[str, Any]) -> None:
        whose = said.get("model")
        if whose is not None and whose not in self._names:
            raise InvalidInput(f"is of the model {whose!r}, not of {self._model}")
        if strange := sorted(str(name) for name in said if name not in FIELDS and name != "model"):
            raise InvalidInput(f"has {', '.join(strange)[:200]}; a label has {', '.join(FIELDS)}")

    def _check_text(self, label: Label) -> None:
        for name in ("prediction_id", "entity", "event_id", "labeller"):
            text = getattr(label, name)
            if text is not None and len(text) > _LONGEST_ID:
                raise InvalidInput(f"{name} is longer than {_LONGEST_ID} characters")
            if text == "" and name != "labeller":
                raise InvalidInput(f"{name} is empty")
        if label.time is not None and label.time > to_ms(self._clock.now()) + self._max_future_ms:
            raise InvalidInput(f"was said in the future: time is {iso_time(label.time)}")


def milliseconds(text: str) -> int:
    """The time in ISO 8601 with a zone, exactly, as milliseconds since the epoch; raises `InvalidInput`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"time should be ISO 8601 with a zone, or milliseconds, not {text[:40]!r}") from error
    if moment.tzinfo is None:
        raise InvalidInput(f"time has no zone: {text[:40]!r}; in UTC it ends in Z")
    return (moment - _EPOCH) // _MILLISECOND


def iso_time(time: int) -> str:
    """Milliseconds since the epoch in ISO 8601, which `milliseconds` reads back exactly."""
    return (_EPOCH + time * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(written: Mapping[str, Any]) -> bytes:
    try:
        data = msgspec.json.encode(written)
    except (UnicodeEncodeError, RecursionError, TypeError, OverflowError) as error:
        raise InvalidInput(f"cannot be written as JSON: {type(error).__name__}") from error
    if _NUL.search(data):
        raise InvalidInput("holds a NUL character")
    return data
