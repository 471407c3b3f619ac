"""Picture files beside the lake: stored under their SHA-256, and fetched from where events say they are.

    <store>/2026-11-25/9f/9f86d081…    one file, in the folder of its event's date

A file is as old as the rows that refer to it: each row finds its own date's copy. So retention deletes whole folders,
as it deletes whole partitions of the table, with no counting of references that a concurrent writer could outrun.
A file is written under a temporary name and renamed (in a folder) or in one request (in an object store): it is there
as a whole or not at all, and writing it again changes nothing.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from tidemill.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from tidemill.core.files import write_atomically

__all__ = ["DIGEST_COLUMN", "MAX_PICTURE_BYTES", "PictureStore", "fetch_picture"]

DIGEST_COLUMN = "picture_sha256"
"""Column of an events table: where the picture is not in its row, its SHA-256 in the store."""
MAX_PICTURE_BYTES = 4 << 20
"""Largest picture file; what fits into a record of 8 MiB as base64, with room for other fields."""

_CONNECT_S, _ANSWER_S = 5.0, 20.0
_LONGEST_PATH, _LONGEST_PART = 1024, 255
"""Bytes of an object's name in S3, and of a file's: a store's refusal of longer ones is no reason to wait for it."""
_SCHEMES = frozenset({"file", "s3", "s3a", "gs", "gcs", "abfs", "abfss"})
_REFUSED = re.compile(
    r"ACCESS_DENIED|PERMISSION_DENIED|NO_SUCH_(KEY|BUCKET)"
    r"|AWS Error \[code \d+\]"  # of S3 itself, without a name in pyarrow: InvalidObjectState, of an archived object
    r"|HTTP status 4(?!01|07|08|25|29)\d\d"
)
"""What pyarrow says where the store has answered, and will not answer otherwise for this object."""
_READERS = 8
"""Files read at once: an object store answers each in 10 to 50 ms, however many are asked for."""


class PictureStore:
    """Files by date and SHA-256 in a folder, or under a URI such as `s3://bucket/path`. Thread-safe.

    Methods raise `Unavailable` where the store does not answer or refuses; calling again is safe. Raises `InvalidInput`
    for a URI of a kind that is not known.
    """

    def __init__(self, uri: str) -> None:
        scheme, separator, path = uri.partition("://")
        if separator and scheme not in _SCHEMES:
            hint = f"a folder, or a URI that begins with one of {', '.join(sorted(_SCHEMES))}"
            raise InvalidInput(f"pictures cannot be kept at {uri}", hint=hint)
        if scheme == "file":
            uri = unquote(path)
        self.uri = uri.rstrip("/")
        self._folder = None if "://" in uri else Path(uri)

    def put(self, data: bytes, day: date) -> str:
        """Keep a file of an event of `day`, and return its digest: 64 hexadecimal digits."""
        digest = hashlib.sha256(data).hexdigest()
        name = _name(digest, day)
        with _failures(self.uri):
            if self._folder is None:
                system, root = _filesystem(self.uri)
                with system.open_output_stream(f"{root}/{name}") as file:
                    file.write(data)
            elif not (path := self._folder / name).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, data)
        return digest

    def get(self, digest: str, day: date) -> bytes:
        """The file; raises `NotFound`, or `Corrupt` where it is not the one that was written."""
        name = _name(digest, day)
        with _failures(self.uri):
            try:
                data = self._read(name)
            except FileNotFoundError as error:
                raise NotFound(f"there is no picture {digest} of {day} in {self.uri}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"{self.uri}/{name} is not the file that was written")
        return data

    def fill(self, rows: pl.DataFrame, column: str) -> pl.DataFrame:
        """The rows with each picture in `column`, and without the column of digests.

        Args:
            rows: with the columns `event_date`, `column` (bytes) and, unless the table is older, `DIGEST_COLUMN`.
            column: the picture field.
        """
        if DIGEST_COLUMN not in rows.columns:
            return rows
        stored = rows.select(DIGEST_COLUMN, "event_date").iter_rows()
        with ThreadPoolExecutor(_READERS) as pool:
            fetched = pool.map(lambda row: row[0] and self.get(*row), stored)
            pictures = [own or found for own, found in zip(rows[column], fetched, strict=True)]
        return rows.with_columns(pl.Series(column, pictures, dtype=pl.Binary)).drop(DIGEST_COLUMN)

    def sweep(self, before: date) -> int:
        """Delete the files of all days before this one; returns how many days there were."""
        with _failures(self.uri):
            system, root = _filesystem(self.uri)
            expired = [one for one in _days(system, root) if one < before]
            for day in expired:
                system.delete_dir(f"{root}/{day.isoformat()}")
        return len(expired)

    def _read(self, name: str) -> bytes:
        if self._folder is not None:
            return (self._folder / name).read_bytes()
        system, root = _filesystem(self.uri)
        with system.open_input_stream(f"{root}/{name}") as file:
            return bytes(file.read())


def fetch_picture(uri: str, prefixes: Sequence[str], *, max_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """The file at a URI that an event names.

    Args:
        uri: what the event says. It must begin with one of `prefixes`, and be written plainly: no `.` or `..`, no
            empty part, no escapes, query or fragment; a link that leads out of the prefix's folder is refused.
        prefixes: what the resource allows (`EventField.uris`), each ending with a slash.
        max_bytes: largest file taken.

    Raises:
        InvalidInput: it is not allowed, not there, not readable or too large; another try would not help.
        Unavailable: the store does not answer, or refuses everyone (5xx, too many requests, a wrong key or clock).

    What cannot be told apart: S3 asks for an object's size first, and an answer to that has a status and no reason. So
    403 is an object that is not there, one that this process may not read, and wrong credentials; 400 is an object
    with a key of its own, and a session that has expired. Each is taken for the object's fault.
    """
    prefix = next((one for one in prefixes if uri.startswith(one)), None)
    if prefix is None:
        raise InvalidInput("is a URI that begins with none of the allowed prefixes")
    if not _is_plain(uri[len(prefix) :]):
        raise InvalidInput("is a URI with a part that is empty, `.`, `..`, escaped or too long, or with a query")
    from pyarrow import ArrowException

    try:
        data = _read_file(uri, prefix, max_bytes) if prefix.startswith("file://") else _read_object(uri, max_bytes)
    except FileNotFoundError as error:
        raise InvalidInput("there is no such file") from error
    except (ValueError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInput(f"cannot be read: {error}") from error
    except (OSError, ArrowException) as error:
        if _REFUSED.search(str(error)):
            raise InvalidInput(f"cannot be read, or there is no such file: {error}") from error
        raise Unavailable(f"pictures at {prefix}: {error}", hint="is the store there?") from error
    if len(data) > max_bytes:
        raise InvalidInput(f"is a file of more than {max_bytes} bytes")
    return data


def _name(digest: str, day: date) -> str:
    return f"{day.isoformat()}/{digest[:2]}/{digest}"


def _days(system: Any, root: str) -> Iterator[date]:
    from pyarrow.fs import FileSelector, FileType

    for found in system.get_file_info(FileSelector(root, allow_not_found=True)):
        if found.type == FileType.Directory:
            try:
                yield date.fromisoformat(found.base_name)
            except ValueError:  # not ours
                continue


def _is_plain(path: str) -> bool:
    if any(character in "?#%\\" or not character.isprintable() for character in path):
        return False
    encoded = path.encode(errors="replace")
    if len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_PART for part in encoded.split(b"/")):
        return False
    return all(part not in {"", ".", ".."} for part in path.split("/"))


def _read_file(uri: str, prefix: str, max_bytes: int) -> bytes:
    folder, path = (Path(os.path.realpath(one.removeprefix("file://"))) for one in (prefix, uri))
    if not folder.is_dir():
        raise Unavailable(f"the folder {folder} of pictures is not there", hint="is it mounted?")
    if not path.is_relative_to(folder):
        raise InvalidInput("is a link that leads out of the allowed folder")
    if path.exists() and not path.is_file():
        raise InvalidInput("is no regular file")
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _read_object(uri: str, max_bytes: int) -> bytes:
    system, path = _filesystem(uri)
    with system.open_input_stream(path) as file:
        return bytes(file.read(max_bytes + 1))


def _s3() -> Any:
    from pyarrow import fs

    # As the lake's tables take it: pyarrow itself does not look for an endpoint in the environment.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, host = endpoint.partition("://")
    return fs.S3FileSystem(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_override=host or None,
        scheme=scheme or None,
        connect_timeout=_CONNECT_S,
        request_timeout=_ANSWER_S,
        allow_delayed_open=True,  # one request for a file, not the three of an upload in parts
    )


_systems: dict[str, Any] = {}


def _filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a URI or folder and the path in it; credentials and endpoints as the environment has them."""
    from pyarrow import fs

    scheme, separator, path = uri.partition("://")
    scheme = scheme.replace("s3a", "s3")
    if not separator:
        return _systems.setdefault("file", fs.LocalFileSystem()), str(Path(uri).absolute())
    if scheme not in {"s3", "gs", "gcs"}:
        system, path = fs.FileSystem.from_uri(uri)
        return system, path
    if scheme not in _systems:
        _systems[scheme] = _s3() if scheme == "s3" else fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_ANSWER_S))
    return _systems[scheme], path


@contextmanager
def _failures(where: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:
        raise Unavailable(
            f"pictures at {where}: {error}", hint="is the store there, and may this process use it?"
        ) from error
