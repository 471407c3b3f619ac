"""Frozen datasets: rows that stay as they are under a name, which gates compare versions on and runs start from.

    <artifact root>/<namespace>/<name>/frozen/<digest>/      a snapshot, as `tidemill.training.snapshot` writes it
    <artifact root>/<namespace>/<name>/frozen/<name>.json    the name's record: which digest, of what, when, by whom

Beside the snapshots and not among them, so that whoever clears away old snapshots never meets one. A name is given
once: it never comes to mean other rows. The name's file appears last and whole, so a crash leaves no name without data.
"""

import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from tidemill.training.snapshot import Snapshot, open_snapshot, snapshots_folder, write_snapshot

__all__ = [
    "FrozenRecord",
    "damaged_names",
    "find_snapshot",
    "freeze",
    "frozen_folder",
    "frozen_named",
    "is_digest",
    "list_frozen",
    "open_frozen",
]

FREEZE_HINT = "`tidemill dataset freeze` makes one"

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FrozenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for."""

    format: Literal[1] = 1
    name: str
    digest: str
    """Of the frozen rows' own snapshot."""
    of: str
    """Digest of the snapshot that the rows were taken from."""
    query: str
    """Which of its rows, in words."""
    rows: int
    frozen_at: int
    """Milliseconds since the epoch."""
    by: str


def frozen_folder(version_folder: Path) -> Path:
    """Where the frozen datasets of the model lie whose version lies in `version_folder`."""
    return version_folder.parent / "frozen"


def is_digest(text: str) -> bool:
    """Whether this is a snapshot's digest, and so no name."""
    return _DIGEST.fullmatch(text) is not None


def freeze(
    folder: Path, name: str, source: Snapshot, rows: pl.DataFrame, *, query: str, by: str, now: datetime
) -> FrozenRecord:
    """Keep rows of a snapshot under a name. The same rows under the same name again change nothing.

    Args:
        folder: from `frozen_folder`.
        name: lower-case letters, digits and dashes, beginning with a letter.
        source: the snapshot they are of; its record is theirs, too.
        rows: of its frame, in its order; each keeps its part.
        query: which rows they are, in words.
        by: who freezes them.
        now: when.

    Raises:
        InvalidInput: the name is no name, or there are no rows.
        Conflict: the name stands for other rows.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name: up to 63 lower-case letters, digits and dashes, a letter first")
    if rows.is_empty():
        raise InvalidInput(f"no row of snapshot {source.digest} is chosen ({query}): nothing to freeze")
    if (folder / f"{name}.json").is_file():
        return _same_rows(folder, name, rows)
    counts = {part: rows.filter(pl.col("part") == part).height for part in sorted(source.record.rows)}
    record = msgspec.structs.replace(
        source.record, rows=counts, query=f"{source.record.query}; frozen of {source.digest}: {query}"
    )
    words = source.words().join(rows.select("entity", "event_id"), on=["entity", "event_id"], how="semi")
    kept = write_snapshot(folder, rows, source.reference(), record, words)
    said = FrozenRecord(
        name=name, digest=kept.digest, of=source.digest, query=query, rows=rows.height, frozen_at=to_ms(now), by=by
    )
    return said if _claim(folder / f"{name}.json", said) else _same_rows(folder, name, rows)


def open_frozen(folder: Path, name: str) -> Snapshot:
    """The rows that a name stands for.

    Args:
        folder: from `frozen_folder`.
        name: as it was frozen.

    Raises:
        NotFound: nothing was frozen under the name.
        Corrupt: what lies there is not what was frozen.
    """
    return open_snapshot(folder, frozen_named(folder, name).digest)


def frozen_named(folder: Path, name: str) -> FrozenRecord:
    """A name's record; raises `NotFound`, or `Corrupt` for a file that is none."""
    path = folder / f"{name}.json"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        known = ", ".join(found.name for found in list_frozen(folder))
        there = f"; there are {known}" if known else ""
        raise NotFound(f"there is no frozen dataset {name}{there}", hint=FREEZE_HINT) from error
    try:
        return msgspec.json.decode(content, type=FrozenRecord)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path} is no record of a frozen dataset: {error}") from error


def list_frozen(folder: Path) -> list[FrozenRecord]:
    """Every frozen dataset whose record can be read, by name; none where the folder is not there."""
    return [found for found in _all(folder).values() if isinstance(found, FrozenRecord)]


def damaged_names(folder: Path) -> dict[str, str]:
    """The names whose records cannot be read, and why: one that was damaged must not hide the others."""
    return {name: found.message for name, found in _all(folder).items() if isinstance(found, Corrupt)}


def _all(folder: Path) -> dict[str, FrozenRecord | Corrupt]:
    found: dict[str, FrozenRecord | Corrupt] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        try:
            found[path.stem] = frozen_named(folder, path.stem)
        except Corrupt as error:
            found[path.stem] = error
    return found


def find_snapshot(version_folder: Path, wanted: str) -> Snapshot:
    """A model's snapshot by its digest or by the name of a frozen dataset.

    Args:
        version_folder: of any version of the model; it need not be there.
        wanted: the digest, whole, or the name.

    Raises:
        NotFound: there is no such snapshot.
        Corrupt: its record is another than was written.
    """
    frozen = frozen_folder(version_folder)
    if not is_digest(wanted):
        return open_frozen(frozen, wanted)
    try:
        return open_snapshot(snapshots_folder(version_folder), wanted)
    except NotFound:
        if not (frozen / wanted).is_dir():
            raise
        return open_snapshot(frozen, wanted)


def _claim(path: Path, said: FrozenRecord) -> bool:
    """Write the name's record, whole and only where there is none; False where there is one."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n")
        os.link(temporary, path)  # unlike a rename it refuses to replace
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _same_rows(folder: Path, name: str, rows: pl.DataFrame) -> FrozenRecord:
    """The name's record, where it stands for these rows."""
    known = frozen_named(folder, name)
    if not open_snapshot(folder, known.digest).frame().equals(rows):
        raise Conflict(
            f"{name} is frozen already, with {known.rows:,} rows of snapshot {known.of} ({known.query}): "
            "it cannot come to mean others",
            hint="freeze these rows under another name",
        )
    return known
