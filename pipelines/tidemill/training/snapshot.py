"""A run's dataset: written once as content-addressed Parquet, with what it came from.

    <artifact root>/<namespace>/<name>/snapshots/<digest>/
        rows.parquet        one row per labelled event: its content, its label, and its part
        reference.parquet   the inputs that drift from this version will be measured against
        words.parquet       what several labellers said of one event, also of events that they dispute
        snapshot.json       the record; its SHA-256 is the digest, and it holds those of the files

Beside the versions, because a version is nothing without it: the next run asks what its champion's snapshot could
see, and replays from the lake what lies before that. A folder appears whole or not at all, and is not changed again.
"""

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from tidemill.core.errors import Corrupt, NotFound
from tidemill.spec.model import ContinualModel
from tidemill.training.dataset import Known
from tidemill.training.labels import parse_label
from tidemill.training.protocols import Row
from tidemill.training.resolved import WORDS

__all__ = [
    "Snapshot",
    "SnapshotRecord",
    "TableRead",
    "open_snapshot",
    "row_columns",
    "rows_and_labels",
    "snapshots_folder",
    "write_snapshot",
]

_ROWS, _REFERENCE, _WORDS, _RECORD = "rows.parquet", "reference.parquet", "words.parquet", "snapshot.json"


class TableRead(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of one table of the lake."""

    uri: str
    delta_version: int
    offsets: dict[str, int] = {}
    """Last offset read of each source."""


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot holds and where it came from."""

    format: Literal[1] = 1
    model: str
    as_of: int
    """Milliseconds since the epoch; what arrived later was not seen."""
    query: str
    maturity_ms: int
    events: TableRead
    labels: TableRead
    predictions: TableRead | None = None
    """Where labels found their event and rows their logged features; None: there were no predictions."""
    known: str | None = None
    """Digest of the champion's snapshot, to which `new` refers; None: all rows are new."""
    since: int | None = None
    """Event time (ms) from which the drift grew that caused the run."""
    seed: int
    rows: dict[str, int]
    """Rows by part: new, replay, fresh."""
    service: tuple[str, ...] = ()
    """Features of the user's FeatureService, columns of the rows, too."""
    classes: tuple[str, ...] = ()
    """The classes that it was taken for, in their order; empty of a regression, and of one that is older than this."""
    adopted: tuple[str, ...] = ()
    """Those among them, the last, that are new with it."""
    invalid_labels: int = 0
    """Labels that do not fit the resource and were left out."""
    disputed: int = 0
    """Mature events that were left out because their labellers differ (`labels.conflict`)."""
    frozen: str | None = None
    """Digest of the frozen dataset that versions are judged on, whose rows are not trained on; None: there is none."""
    held_out: int = 0
    """Rows that would have been trained on and are in that dataset."""
    files: dict[str, str] = {}
    """SHA-256 of each file."""

    def seen(self) -> Known:
        """What this snapshot could see, for the next one to know what is new."""
        return Known(self.events.offsets, self.labels.offsets, self.as_of)

    def resource(self, declared: ContinualModel) -> ContinualModel:
        """The resource with the snapshot's classes: what is done with its rows is done with these."""
        return declared.with_classes(self.classes) if self.classes else declared


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot in its folder. Frames have the columns of `dataset.content` and `part`, oldest event first."""

    record: SnapshotRecord
    digest: str
    folder: Path

    def frame(self) -> pl.DataFrame:
        """All rows; raises `Corrupt` where they are not the ones that were written."""
        return self._read(_ROWS)

    def reference(self) -> pl.DataFrame:
        """The inputs that drift is measured against; raises `Corrupt` as `frame` does."""
        return self._read(_REFERENCE)

    def words(self) -> pl.DataFrame:
        """What several labellers said of one event (`tidemill.training.resolved.WORDS`); raises as `frame` does."""
        return self._read(_WORDS) if _WORDS in self.record.files else pl.DataFrame(schema=WORDS)

    def _read(self, name: str) -> pl.DataFrame:
        path = self.folder / name
        if not path.is_file() or _sha256(path) != self.record.files.get(name):
            raise Corrupt(f"{path} is not the file that was written", hint="start another run: it takes a new snapshot")
        return pl.read_parquet(path)


def snapshots_folder(version_folder: Path) -> Path:
    """Where the snapshots of the model lie whose version lies in `version_folder`."""
    return version_folder.parent / "snapshots"


def write_snapshot(
    folder: Path,
    frame: pl.DataFrame,
    reference: pl.DataFrame,
    record: SnapshotRecord,
    words: pl.DataFrame | None = None,
) -> Snapshot:
    """Write rows and record below `folder`, under their digest; the same rows and record are one snapshot.

    Args:
        folder: from `snapshots_folder`; made where it is not there.
        frame: the rows, oldest event first.
        reference: the inputs that drift is measured against.
        record: everything but `files`.
        words: what several labellers said of one event; None: nothing.
    """
    partial = folder / f".{secrets.token_hex(4)}.partial"
    partial.mkdir(parents=True)
    try:
        frames = {_ROWS: frame, _REFERENCE: reference, _WORDS: pl.DataFrame(schema=WORDS) if words is None else words}
        for name, content in frames.items():
            # Pictures are compressed already; what else there is, is small.
            content.write_parquet(partial / name, compression="lz4")
        record = msgspec.structs.replace(record, files={name: _sha256(partial / name) for name in frames})
        encoded = msgspec.json.encode(record, order="sorted")
        (partial / _RECORD).write_bytes(encoded)
        digest = hashlib.sha256(encoded).hexdigest()
        try:
            partial.rename(folder / digest)
        except OSError:
            # Refused where there is a folder with content: that is this snapshot, written before.
            if not (folder / digest).is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Snapshot(record, digest, folder / digest)


def open_snapshot(folder: Path, digest: str) -> Snapshot:
    """The snapshot with this digest; raises `NotFound`, or `Corrupt` where its record is another."""
    path = folder / digest / _RECORD
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no snapshot {digest} in {folder}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Corrupt(f"{path} is not the record that was written: its SHA-256 is not the folder's name")
    return Snapshot(msgspec.json.decode(content, type=SnapshotRecord), digest, path.parent)


def row_columns(resource: ContinualModel, service: Sequence[str] = ()) -> list[str]:
    """What a Codec sees of a row: fields, picture statistics, windows, and features of the user's FeatureService."""
    columns = [field.name for field in resource.spec.events.fields] + list(resource.spec.features.image)
    return [*columns, *resource.spec.features.window_names, *service]


def rows_and_labels(
    frame: pl.DataFrame, resource: ContinualModel, service: Sequence[str] = ()
) -> tuple[list[Row], list[Mapping[str, Any]]]:
    """The rows as the Codec takes them (fields and features by name), and their label values.

    `service` names the features of the user's FeatureService (`SnapshotRecord.service`).
    """
    rows: list[Row] = list(frame.select(row_columns(resource, service)).iter_rows(named=True))
    return rows, [parse_label(text, resource) or {} for text in frame["label"]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
