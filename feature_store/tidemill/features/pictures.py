"""An event's picture, given by value or by URI: its file, checked and measured, and what of it goes into the row.

A picture of up to `INLINE_BYTES` that came by value stays in its row. A larger one, and each that came by URI, goes to
the picture store, and the row has its digest: large files make every scan and compaction of the table heavy, and a
batch of a few thousand URIs would not fit into memory.
"""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from datetime import date
from threading import Lock
from typing import NamedTuple

from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import MAX_PICTURE_BYTES, PictureStore, fetch_picture
from tidemill.features.images import statistics

__all__ = ["INLINE_BYTES", "PictureIntake", "Taken", "picture_file"]

INLINE_BYTES = 64 << 10
"""Largest picture that stays in its row: a request to an object store costs more than so many bytes in Parquet."""

_DECODING = Lock()
"""Of pictures fetched side by side one is decoded at a time: the largest take several hundred MB each."""


class Taken(NamedTuple):
    """What a row has of a picture: its file or its digest, and the statistics."""

    file: bytes | None
    digest: str | None
    statistics: dict[str, float]


def picture_file(text: str, uris: Sequence[str], *, max_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """The file that `text` is (base64) or names (a URI that begins with one of `uris`).

    Raises `InvalidInput` in words for quarantine, and `Unavailable` where the URI's store does not answer.
    """
    if "://" in text:  # base64 has no colon
        if not uris:
            raise InvalidInput("is a URI, and the resource allows none (uris)")
        return fetch_picture(text, uris, max_bytes=max_bytes)
    try:
        found = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"is not base64: {error}") from error
    if len(found) > max_bytes:
        raise InvalidInput(f"has {len(found)} bytes; at most {max_bytes} are taken")
    return found


class PictureIntake:
    """Takes in pictures of one field.

    Args:
        uris: prefixes of URIs that are allowed.
        names: statistics to measure.
        store: where large pictures go; None: all stay in their rows.
    """

    def __init__(self, uris: Sequence[str], names: Sequence[str], store: PictureStore | None) -> None:
        self._uris = tuple(uris)
        self._names = tuple(names)
        self._store = store
        self.fetches = bool(uris)
        """Whether a picture may be somewhere else, so that taking it may take seconds."""

    def take(self, text: str, day: date, *, max_bytes: int = MAX_PICTURE_BYTES) -> Taken:
        """What an event of `day` has of its picture; raises as `picture_file` does, and `InvalidInput` for no picture.

        What is stored of an event that is not committed afterwards goes with its day.
        """
        file = picture_file(text, self._uris, max_bytes=max_bytes)
        with _DECODING:
            measured = statistics(file, self._names)
        if self._store is None or (len(file) <= INLINE_BYTES and "://" not in text):
            return Taken(file, None, measured)
        return Taken(None, self._store.put(file, day), measured)
