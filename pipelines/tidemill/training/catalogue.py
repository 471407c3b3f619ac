"""Which datasets a model has, which versions were trained on each, and how a person's word for one is understood."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.artifacts import manifest_of, version_folders
from tidemill.core.errors import Corrupt, InvalidInput, NotFound
from tidemill.training.frozen import (
    FrozenRecord,
    damaged_names,
    find_snapshot,
    frozen_folder,
    is_digest,
    list_frozen,
)
from tidemill.training.snapshot import Snapshot, SnapshotRecord, open_snapshot, snapshots_folder

__all__ = ["SHORT", "Dataset", "all_datasets", "find_dataset", "snapshot_times", "the_one"]

SHORT = 12
"""Characters of a digest that people are shown."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A snapshot or a frozen dataset."""

    digest: str
    """Empty of a frozen dataset whose name's record cannot be read."""
    at: int
    """When it was taken or frozen, milliseconds since the epoch; 0 where its record cannot be read."""
    names: tuple[str, ...]
    """Of frozen datasets with these rows."""
    trained: tuple[str, ...]
    """Versions that were trained on it."""
    record: SnapshotRecord | None
    frozen: tuple[FrozenRecord, ...] = ()
    problem: str = ""
    """Why its record cannot be read."""


def all_datasets(version_folder: Path) -> list[Dataset]:
    """Every snapshot and frozen dataset of a model, the newest first.

    Args:
        version_folder: of any version of the model; it need not be there.
    """
    trained = _trained(version_folder.parent)
    found = [
        _dataset(snapshots_folder(version_folder), digest, (), trained)
        for digest in _digests(snapshots_folder(version_folder))
    ]
    named: dict[str, list[FrozenRecord]] = {}
    for said in list_frozen(frozen_folder(version_folder)):
        named.setdefault(said.digest, []).append(said)
    found += [_dataset(frozen_folder(version_folder), digest, tuple(said), trained) for digest, said in named.items()]
    damaged = damaged_names(frozen_folder(version_folder))
    found += [Dataset("", 0, (name,), (), None, problem=problem) for name, problem in damaged.items()]
    return sorted(found, key=lambda one: (-one.at, one.digest))


def find_dataset(version_folder: Path, wanted: str) -> Snapshot:
    """A dataset by the name of a frozen one, or by the beginning of a name or digest, where it is the only such one.

    Raises:
        NotFound: there is none; the message has names that are near.
        InvalidInput: there are several.
        Corrupt: its record is another than was written.
    """
    folder = frozen_folder(version_folder)
    names = {said.name: said.digest for said in list_frozen(folder)}
    digests = {*_digests(snapshots_folder(version_folder)), *names.values()}
    if wanted in names or wanted in damaged_names(folder):
        return find_snapshot(version_folder, wanted)
    digest = the_one(wanted, {digest: digest for digest in digests} | names)
    if digest is not None:
        return find_snapshot(version_folder, digest)
    short = {digest[:SHORT] for digest in digests}
    near = difflib.get_close_matches(wanted, [*names, *sorted(short)], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`tidemill dataset list` shows those that there are"
    raise NotFound(f"there is no dataset {wanted!r}", hint=hint)


def the_one(wanted: str, known: Mapping[str, str]) -> str | None:
    """The digest that a text stands for, by the beginning of a name or digest; None where there is none such.

    Args:
        wanted: the text; an empty one stands for nothing.
        known: digests by name; a digest is its own.

    Raises:
        InvalidInput: it may stand for several.
    """
    meant = {text: digest for text, digest in known.items() if wanted and text.startswith(wanted)}
    if len(set(meant.values())) > 1:
        which = ", ".join(text[:SHORT] if is_digest(text) else text for text in sorted(meant))
        raise InvalidInput(f"{wanted} may be any of {which}", hint="give more of it")
    return next(iter(meant.values()), None)


def snapshot_times(folder: Path) -> dict[str, int | None]:
    """When each snapshot of a folder was taken, by digest, in milliseconds; None of one whose record cannot be read."""
    found: dict[str, int | None] = {}
    for digest in _digests(folder):
        try:
            found[digest] = open_snapshot(folder, digest).record.as_of
        except (Corrupt, NotFound):
            found[digest] = None
    return found


def _dataset(
    folder: Path, digest: str, frozen: tuple[FrozenRecord, ...], trained: dict[str, tuple[str, ...]]
) -> Dataset:
    versions, names = trained.get(digest, ()), tuple(said.name for said in frozen)
    frozen_at = min((said.frozen_at for said in frozen), default=None)
    try:
        record = open_snapshot(folder, digest).record
    except (Corrupt, NotFound) as error:
        # One that was damaged must not hide the others.
        return Dataset(digest, frozen_at or 0, names, versions, None, frozen, error.message)
    return Dataset(digest, record.as_of if frozen_at is None else frozen_at, names, versions, record, frozen)


def _digests(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if is_digest(path.name)) if folder.is_dir() else []


def _trained(model: Path) -> dict[str, tuple[str, ...]]:
    """Versions by the digest that their manifest names. A damaged manifest is for those to tell who load it."""
    found: dict[str, tuple[str, ...]] = {}
    for folder in version_folders(model):
        try:
            digest = manifest_of(folder).snapshot
        except Corrupt:
            continue
        found[digest] = (*found.get(digest, ()), folder.name)
    return found
