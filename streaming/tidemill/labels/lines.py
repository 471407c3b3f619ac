"""Files of labels as lines: of any size in bounded memory, gzipped or not, whatever bytes are in them."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tidemill.core.errors import InvalidInput

__all__ = [
    "LONGEST",
    "Format",
    "Line",
    "Row",
    "RowReader",
    "bad_text",
    "beginning",
    "guess_format",
    "lines",
    "open_labels",
]

LONGEST = 1 << 20
"""Bytes of a line; a longer one is refused, and never held."""

_SHOWN = 2000
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Format(StrEnum):
    """How labels are written in a file."""

    CSV = "csv"
    JSONL = "jsonl"
    LABEL_STUDIO = "label-studio"


_SUFFIXES = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.LABEL_STUDIO,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its number from 1; `why` says why it cannot be used. One that is too long is an empty one then."""

    number: int
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What one place of a file says: the label as a JSON object, or None and why there is none."""

    line: int
    said: dict[str, Any] | None
    why: str = ""
    text: str = ""
    """What stands there, or its beginning."""
    where: str = ""
    """The place within the line, where lines are not enough: `task 17`."""

    @property
    def place(self) -> str:
        """`line 17`, or `line 1, task 17`."""
        return f"line {self.line}, {self.where}" if self.where else f"line {self.line}"


class RowReader(Protocol):
    """Reads the rows of an open file."""

    def __call__(self, file: BinaryIO) -> Iterator[Row]:
        """Each row in order. Raises `InvalidInput` where the file as a whole is not what it should be."""
        ...


@contextmanager
def open_labels(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is gzipped; raises `InvalidInput` where it cannot be read as UTF-8 text."""
    try:
        with path.open("rb") as raw:
            file = cast("BinaryIO", gzip.GzipFile(fileobj=raw) if raw.read(2) == _GZIP else raw)
            raw.seek(0)
            start = file.read(2)
            file.seek(0)
            if start in _UTF16:
                raise InvalidInput(f"{path} is UTF-16", hint="save it as UTF-8")
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def format_named(path: Path) -> Format | None:
    """The format that a file's name says."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def guess_format(path: Path, file: BinaryIO) -> Format:
    """By the file's name, else by its first character; the file is at its beginning again afterwards."""
    named = format_named(path)
    if named is not None and named is not Format.LABEL_STUDIO:  # .json may hold lines, too
        return named
    start = file.read(4096).removeprefix(_BOM).lstrip()[:1]
    file.seek(0)
    return {b"[": Format.LABEL_STUDIO, b"{": Format.JSONL}.get(start, named or Format.CSV)


def lines(file: BinaryIO) -> Iterator[Line]:
    """All lines. Bytes that are no UTF-8 are kept as surrogates, and said in `why`."""
    number = 0
    try:
        while data := file.readline(LONGEST + 1):
            number += 1
            if number == 1:
                data = data.removeprefix(_BOM)
            if len(data) > LONGEST and not data.endswith(b"\n"):
                while data and not data.endswith(b"\n"):
                    data = file.readline(LONGEST)
                yield Line(number, "\n", f"is longer than {LONGEST:,} bytes")
                continue
            text = data.decode(errors="surrogateescape")
            yield Line(number, text, bad_text(text))
    except (OSError, EOFError, zlib.error) as error:
        yield Line(number + 1, "\n", f"the file cannot be read from here on: {error}")


def bad_text(text: str) -> str:
    """Why text is none: it holds bytes that are no UTF-8, or a NUL. Empty where it is well."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:  # the surrogates of bytes that could not be decoded
        return "is not UTF-8"
    return ""


def beginning(parts: Sequence[str]) -> str:
    """The text of some lines, as far as a report of what was refused shows it."""
    return "".join(parts)[:_SHOWN].encode(errors="backslashreplace").decode().rstrip("\r\n")
