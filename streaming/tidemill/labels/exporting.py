"""Labels written to a file, which appears under its name when it is whole."""

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO, cast

from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label
from tidemill.labels.columns import Columns
from tidemill.labels.csv_file import CsvRows, CsvWriter
from tidemill.labels.jsonl_file import JsonlRows, JsonlWriter
from tidemill.labels.label_studio import LabelStudioRows, LabelStudioWriter
from tidemill.labels.lines import Format, RowReader
from tidemill.spec.model import ContinualModel

__all__ = ["LabelWriter", "export_labels", "rows_reader", "writing"]


class LabelWriter(Protocol):
    """Writes labels to an open file in one of the formats."""

    def write(self, label: Label) -> None:
        """One label."""
        ...

    def close(self) -> None:
        """What stands at the end."""
        ...


def rows_reader(kind: Format, resource: ContinualModel, columns: Columns) -> RowReader:
    """The reader of a format."""
    if kind is Format.CSV:
        return CsvRows(columns)
    return JsonlRows(columns) if kind is Format.JSONL else LabelStudioRows(resource, columns)


def export_labels(
    labels: Iterable[Label], path: Path, kind: Format, resource: ContinualModel, picture: tuple[int, int] | None = None
) -> int:
    """Write labels to a file (gzipped where its name ends in .gz); returns how many.

    Raises:
        InvalidInput: the file cannot be written, or the format cannot hold a label.
    """
    count = 0
    with writing(path) as file:
        writer: LabelWriter = (
            CsvWriter(file, resource)
            if kind is Format.CSV
            else JsonlWriter(file)
            if kind is Format.JSONL
            else LabelStudioWriter(file, resource, picture)
        )
        for label in labels:
            writer.write(label)
            count += 1
        writer.close()
    return count


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name at the end of the block, and is gone where that fails. Raises `InvalidInput`."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            opened = gzip.open if path.suffix == ".gz" else open
            with cast("TextIO", opened(part, "wt", encoding="utf-8", newline="")) as file:
                yield file
            part.replace(path)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
