"""A JSON array of any length, an element at a time."""

import codecs
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from tidemill.core.errors import InvalidInput

__all__ = ["LARGEST_ELEMENT", "Element", "elements"]

LARGEST_ELEMENT = 16 << 20
"""Characters of an element, at most."""

_READ = 64 << 10
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Element:
    """An element, and the line on which it begins; where it cannot be read, `value` is None and `why` says why."""

    line: int
    value: Any
    text: str
    why: str = ""


def elements(file: BinaryIO) -> Iterator[Element]:
    """The elements of the array in a file. The first that is no JSON is the last: where the next begins is not known.

    Raises:
        InvalidInput: the file holds no array.
    """
    text = _Text(file)
    if text.peek() != "[":
        raise InvalidInput("is no JSON array: it does not begin with [")
    text.at += 1
    if text.peek() == "]":
        return
    while True:
        text.peek()
        found = text.element()
        yield found
        if found.why:
            return
        between = text.peek()
        if between != ",":
            break
        text.at += 1
    if between != "]":
        yield Element(text.line, None, "", "is no JSON: , or ] is missing; nothing after it was read")


class _Text:
    """The part of a file that is looked at, and the line of its position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = json.JSONDecoder()
        self._buffer = ""
        self._ended = False
        self._broken = ""
        self.at = 0
        self.line = 1

    def peek(self) -> str:
        """The next character that is no white space, and move there; empty at the end."""
        while True:
            while self.at < len(self._buffer):
                char = self._buffer[self.at]
                if char not in _SPACE:
                    return char
                self.line += char == "\n"
                self.at += 1
            if not self._fill():
                return ""

    def element(self) -> Element:
        """The element that begins here, and move behind it."""
        line = self.line
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self.at)
            except RecursionError:
                return self._bad(line, "is nested too deeply")
            except ValueError as error:
                is_long = len(self._buffer) - self.at > LARGEST_ELEMENT
                if not is_long and self._fill():
                    continue
                longer = f", or longer than {LARGEST_ELEMENT:,} characters" if is_long else ""
                return self._bad(line, f"is no JSON{longer}: {self._where(error)}")
            text = self._buffer[self.at : end]
            self.line += text.count("\n")
            self.at = end
            return Element(line, value, text[:4000])

    def _where(self, error: ValueError) -> str:
        if not isinstance(error, json.JSONDecodeError):  # a number of too many digits
            return str(error)
        return f"{error.msg} in line {self.line + self._buffer.count(chr(10), self.at, error.pos)}"

    def _bad(self, line: int, why: str) -> Element:
        shown = self._buffer[self.at : self.at + 4000]
        return Element(line, None, shown, f"{why}{self._broken}; nothing after it was read")

    def _fill(self) -> bool:
        """Read as much again as is looked at, so that a long element is not tried too often; False at the end."""
        if self._ended:
            return False
        left = self._buffer[self.at :]
        try:
            data = self._file.read(max(_READ, len(left)))
        except (OSError, EOFError, zlib.error) as error:
            data, self._broken = b"", f" (the file cannot be read on: {error})"
        self._ended = not data
        self._buffer, self.at = left + self._decoder.decode(data, final=self._ended), 0
        return True
