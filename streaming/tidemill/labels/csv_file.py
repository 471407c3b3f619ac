"""Labels as CSV: a header, a row for each label.

A quote that is opened and never closed would swallow the rest of the file: the csv module gives up after 128 KiB, the
line with the quote is refused, and reading goes on with the line after it.
"""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TextIO

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.check import iso_time
from tidemill.labels.columns import Columns, neutral
from tidemill.labels.lines import Line, Row, beginning, lines
from tidemill.spec.model import ContinualModel

__all__ = ["CsvRows", "CsvWriter"]

_ABOUT = ("prediction_id", "entity", "event_id", "labeller")


class CsvRows:
    """Reads a CSV file; the header decides between comma, semicolon and tab. Implements `RowReader`.

    Args:
        columns: which column says what.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __call__(self, file: BinaryIO) -> Iterator[Row]:
        """The rows after the header."""
        source = _Lines(lines(file))
        first = next(source.rest, None)
        if first is None or first.why or not first.text.strip():
            raise InvalidInput(f"there is no header: line 1 {first.why if first and first.why else 'is empty'}")
        source.held.append(first)
        delimiter = max(",;\t", key=first.text.count)
        rows = csv.reader(source, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(rows)]
        except csv.Error as error:
            raise InvalidInput(f"there is no header: line 1: {error}") from error
        self._columns.check_header(header)
        return self._rows(source, rows, header)

    def _rows(self, source: "_Lines", rows: Iterator[list[str]], header: list[str]) -> Iterator[Row]:
        while True:
            source.taken.clear()
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                first, *after = source.taken
                source.held.extendleft(reversed(after))
                why = "a quote is opened and not closed" if after or "unexpected end" in str(error) else str(error)
                yield Row(first.number, None, first.why or why, beginning([first.text]))
                continue
            if cells or any(line.why for line in source.taken):
                yield self._row(source.taken, cells, header)

    def _row(self, taken: list[Line], cells: list[str], header: list[str]) -> Row:
        number, text = taken[0].number, beginning([line.text for line in taken])
        if why := next((line.why for line in taken if line.why), ""):
            return Row(number, None, why, text)
        if len(cells) != len(header):
            return Row(number, None, f"has {len(cells)} cells, and the header {len(header)}", text)
        try:
            said = self._columns.said(dict(zip(header, cells, strict=True)), cells=True)
        except InvalidInput as refusal:
            return Row(number, None, refusal.message, text)
        return Row(number, said, text=text)


@dataclass
class _Lines:
    """Gives lines to the csv module, keeps those of the present row, and gives lines again that are handed back."""

    rest: Iterator[Line]
    taken: list[Line] = field(default_factory=list)
    held: deque[Line] = field(default_factory=deque)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.held.popleft() if self.held else next(self.rest)
        self.taken.append(line)
        return line.text


class CsvWriter:
    """Writes labels as CSV that `CsvRows` reads back as they were, and that no spreadsheet takes for formulas.

    Every cell is quoted, so that one with another delimiter in it is not split either; text that might be a formula
    has a `'` before it. Fields of the value that are not declared stand together in the column `value`.

    Args:
        file: opened with `newline=""`.
        resource: the model.
    """

    def __init__(self, file: TextIO, resource: ContinualModel) -> None:
        self._fields = resource.spec.labels.fields
        self._out = csv.writer(file, quoting=csv.QUOTE_ALL)
        columns = Columns(resource)
        self._out.writerow([*_ABOUT, "time", *map(columns.name_of, self._fields), "value"])

    def write(self, label: Label) -> None:
        """A row."""
        value = dict(label.value or {})
        about = [neutral(getattr(label, name) or "") for name in _ABOUT]
        time = "" if label.time is None else iso_time(label.time)
        fields = [_cell(value.pop(one.name)) if one.name in value else "" for one in self._fields]
        self._out.writerow([*about, time, *fields, _json(value) if value else ""])

    def close(self) -> None:
        """Nothing is left to write."""


def _cell(content: Any) -> str:
    return neutral(content) if isinstance(content, str) else _json(content)


def _json(content: Any) -> str:
    return msgspec.json.encode(content).decode()
