"""Labels as JSON lines: each the record of a label, or an object with keys that are mapped like columns."""

from collections.abc import Iterator
from typing import BinaryIO, TextIO

import msgspec

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.columns import Columns, said_by
from tidemill.labels.lines import Row, beginning, lines

__all__ = ["JsonlRows", "JsonlWriter"]


class JsonlRows:
    """Reads a file of JSON lines. Implements `RowReader`.

    Args:
        columns: which key says what.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __call__(self, file: BinaryIO) -> Iterator[Row]:
        """The rows; empty lines are none."""
        for line in lines(file):
            if line.why:
                yield Row(line.number, None, line.why, beginning([line.text]))
            elif line.text.strip():
                yield self._row(line.number, line.text)

    def _row(self, number: int, text: str) -> Row:
        shown = beginning([text])
        try:
            said = self._columns.said(msgspec.json.decode(text, type=dict), cells=False)
        except (msgspec.MsgspecError, RecursionError) as error:
            return Row(number, None, f"is no JSON object: {error}", shown)
        except InvalidInput as refusal:
            return Row(number, None, refusal.message, shown)
        return Row(number, said, text=shown)


class JsonlWriter:
    """Writes labels as JSON lines that `JsonlRows` reads back as they were.

    Args:
        file: where to.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, label: Label) -> None:
        """A line."""
        self._file.write(msgspec.json.encode(said_by(label)).decode() + "\n")

    def close(self) -> None:
        """Nothing is left to write."""
