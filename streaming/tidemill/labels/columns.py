"""From the columns or keys of a file to the fields of a label, and back; and cells that no spreadsheet obeys."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.check import FIELDS, iso_time
from tidemill.spec.model import ContinualModel, LabelField

__all__ = ["Columns", "neutral", "said_by", "typed"]

_NUMBER = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 400
_FORMULA = tuple("=+-@\t\r")
"""A cell that begins so is a formula to a spreadsheet (OWASP, CSV injection)."""
_VALUE = "value."


class Columns:
    """Which column says what.

    That is `prediction_id`, `entity`, `event_id`, `labeller`, `time`, `model`, `value.<field>`, or `value`, a JSON
    object of fields. A column is known by that name; by the name that the resource's events have for it (`station` for
    `entity`); a declared field of the label by its own. Others are ignored.

    Args:
        resource: the model.
        mapping: column to what it says, for columns of other names.
        by: the labeller of rows that name none.

    Raises:
        InvalidInput: a mapping to something that no label has, or of two columns to the same thing.
    """

    def __init__(self, resource: ContinualModel, mapping: Mapping[str, str] | None = None, by: str = "") -> None:
        self._declared = {field.name: field for field in resource.spec.labels.fields}
        self._by = by
        self._known = {f"{_VALUE}{name}": f"{_VALUE}{name}" for name in self._declared}
        self._known |= {name: f"{_VALUE}{name}" for name in self._declared}
        self._known[resource.spec.events.entity.name] = "entity"
        if resource.spec.events.id:
            self._known[resource.spec.events.id] = "event_id"
        self._known |= {name: name for name in (*FIELDS, "model")}
        self._mapping = dict(mapping or {})
        for column, target in self._mapping.items():
            if target not in {*FIELDS, "model"} and not (target.startswith(_VALUE) and target != _VALUE):
                raise InvalidInput(
                    f"column {column!r} is mapped to {target!r}, which no label has",
                    hint=f"{', '.join(FIELDS)}, or value.<field>",
                )

    def of(self, name: str) -> str | None:
        """What a column says; None where it is ignored."""
        if name in self._mapping:
            return self._mapping[name]
        target = self._known.get(name, name if name.startswith(_VALUE) and name != _VALUE else None)
        return None if target in self._mapping.values() else target

    def check_header(self, names: list[str]) -> None:
        """Raise `InvalidInput` for a header that lacks a mapped column, or says a thing twice."""
        if lacking := [name for name in self._mapping if name not in names]:
            raise InvalidInput(f"there is no column {', '.join(lacking)}", hint=f"there are {', '.join(names)[:500]}")
        targets = [target for name in names if (target := self.of(name)) is not None]
        if twice := sorted({target for target in targets if targets.count(target) > 1}):
            raise InvalidInput(
                f"more than one column says {', '.join(twice)}", hint="--mapping COLUMN=FIELD says which"
            )
        if not any(target.startswith("value") for target in targets):
            raise InvalidInput(
                f"no column says what the label is: {', '.join(self._declared)}",
                hint="--mapping COLUMN=FIELD says which",
            )

    def name_of(self, field: LabelField) -> str:
        """The column of a declared field."""
        return field.name if self._known[field.name] == f"{_VALUE}{field.name}" else f"{_VALUE}{field.name}"

    def said(self, found: Mapping[str, Any], *, cells: bool) -> dict[str, Any]:
        """The label that columns (`cells`: of text) or keys say, as `LabelCheck` reads it."""
        label: dict[str, Any] = {}
        value: dict[str, Any] = {}
        for name, content in found.items():
            target = self.of(name)
            if target is None or (cells and content == "" and not self._is_text(target)):
                continue
            content = _plain(content) if cells else content
            if target == "value":
                given = _parsed(content) if cells else content
                if not isinstance(given, dict):
                    raise InvalidInput("value should be a JSON object")
                value = given | value
            elif target.startswith(_VALUE):
                field = target.removeprefix(_VALUE)
                value[field] = typed(content, self._declared.get(field)) if cells else content
            else:
                label[target] = _time(content) if cells and target == "time" else content
        label["value"] = value
        if self._by and not label.get("labeller"):
            label["labeller"] = self._by
        return label

    def _is_text(self, target: str) -> bool:
        field = self._declared.get(target.removeprefix(_VALUE)) if target.startswith(_VALUE) else None
        return field is not None and field.type == "string"


def typed(text: str, field: LabelField | None) -> Any:
    """What a cell says of a field: by its type where it fits, else the text itself, which `LabelCheck` then refuses."""
    if field is None or field.type in {"class", "string"}:
        return text
    if field.type == "bool":
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if field.type == "box":
        return _parsed(text)
    plain = text.strip()
    if len(plain) > _LONGEST_NUMBER or not _NUMBER.fullmatch(plain):
        return text
    return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)


def neutral(text: str) -> str:
    """The text as a cell that a spreadsheet does not take for a formula: with `'` before it where it might.

    `typed` columns of numbers need none. Reading takes exactly that `'` away again.
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def said_by(label: Label) -> dict[str, Any]:
    """A label as `LabelCheck` reads it: what it does not say is left out; the time as ISO 8601."""
    said = {name: found for name in FIELDS if (found := getattr(label, name)) not in (None, "")}
    if label.time is not None:
        said["time"] = iso_time(label.time)
    return said


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def _time(cell: str) -> str | int:
    return int(cell) if cell.isdecimal() and len(cell) < _LONGEST_NUMBER else cell


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
