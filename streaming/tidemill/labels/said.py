"""What was said before: how a file of labels that is imported twice takes effect once.

A label is a statement: who says what, about what, when. The statements of a model are those in the lake, and those in
the labels topic that the lake does not have yet; together that is every label that arrived, whoever sent it and
however. So an import that was killed goes on where it ended, a file that grew adds its new rows alone, and nothing has
to be kept anywhere. `label add` and HTTP say a thing again where a person or program says it again.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from tidemill.events.records import Label

__all__ = ["SaidBefore", "statement"]

_CACHE_KIB = 64 << 10


def statement(label: Label) -> bytes:
    """The label's identity, 16 bytes: the same for labels that say the same, however they are written."""
    parts = (label.prediction_id, label.entity, label.event_id, label.labeller, label.time, _plain(label.value))
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).digest()


class SaidBefore:
    """The statements known so far, on disk, as there may be many. A context."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tidemill-labels-")
        self._known = sqlite3.connect(Path(self._folder.name) / "said.sqlite", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):  # it is made anew each time
            self._known.execute(f"PRAGMA {pragma}")
        self._known.execute("CREATE TABLE said (statement BLOB PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> "SaidBefore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._known.close()
        self._folder.cleanup()

    def learn(self, statements: Iterable[bytes]) -> None:
        """Know these, too."""
        self._known.execute("BEGIN")
        self._known.executemany("INSERT OR IGNORE INTO said VALUES (?)", ((one,) for one in statements))
        self._known.execute("COMMIT")

    def are_new(self, statements: Sequence[bytes]) -> list[bool]:
        """Which of these were not known; from now on all are."""
        self._known.execute("BEGIN")
        insert = "INSERT OR IGNORE INTO said VALUES (?)"
        new = [self._known.execute(insert, (one,)).rowcount == 1 for one in statements]
        self._known.execute("COMMIT")
        return new


def _plain(value: Any) -> Any:
    """Numbers that are equal are written alike: 4 and 4.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(found) for name, found in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
