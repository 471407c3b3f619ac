"""Pictures for the pages: by the digest of a file that the store holds, or of one that an event brought itself.

Only what is a JPEG or PNG is handed out, as that and nothing else, whatever a sender put there.
"""

import hashlib
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date
from io import BytesIO

from PIL import Image

from tidemill.core.errors import InvalidInput, TidemillError
from tidemill.dashboard.queries.browse import Picture
from tidemill.events.lake import table_uri
from tidemill.events.pictures import PictureStore

__all__ = ["Pictures", "Shown", "media_type"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a page shows it."""

    source: str
    width: int
    height: int


class Pictures:
    """Hands out pictures of models, and keeps those that were shown last. Thread-safe.

    Args:
        lake: folder or URI of the lake.
    """

    def __init__(self, lake: str) -> None:
        self._lake = lake
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def show(self, model: str, picture: Picture) -> Shown | None:
        """Where a page finds a picture, and its size; None of what is no picture, or is not there."""
        address = self._address(model, picture)
        try:
            data, _ = self.get(model, *address.rsplit("/", 2)[1:])
            with Image.open(BytesIO(data)) as opened:  # its head alone
                return Shown(address, *opened.size)
        except (TidemillError, OSError, ValueError, Image.DecompressionBombError):
            return None

    def _address(self, model: str, picture: Picture) -> str:
        """Bytes that an event brought are kept for whoever comes to ask."""
        digest = picture.digest
        if digest is None:
            digest = hashlib.sha256(picture.data or b"").hexdigest()
            self._keep((model, digest), picture.data or b"")
        return f"/pictures/{model}/{picture.day.isoformat()}/{digest}"

    def get(self, model: str, day: str, digest: str) -> tuple[bytes, str]:
        """The bytes and their media type.

        Raises `NotFound`, `InvalidInput` for what is no address of a picture or no picture, `Corrupt`, `Unavailable`.
        """
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput("that is no digest of a picture")
        data = self._kept_of((model, digest))
        if data is None:
            store = PictureStore(table_uri(self._lake, model, "pictures"))
            try:
                data = store.get(digest, date.fromisoformat(day))
            except ValueError as error:
                raise InvalidInput("that is no day") from error
            self._keep((model, digest), data)
        kind = media_type(data)
        if kind is None:
            raise InvalidInput("that is neither a JPEG nor a PNG")
        return data, kind

    def _kept_of(self, key: tuple[str, str]) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, str], data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)


def media_type(data: bytes) -> str | None:
    """By what the file begins with; None for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG\r\n\x1a\n") else None
