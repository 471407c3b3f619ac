"""Which datasets a model has, which versions were trained on each, and how a person's word for one is understood."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from tidemill.artifacts.manifest import MANIFEST, decode_manifest
from tidemill.core.errors import Corrupt, InvalidInput, NotFound
from tidemill.training.frozen import FrozenRecord, find_snapshot, frozen_folder, is_digest, list_frozen
from tidemill.training.snapshot import Snapshot, SnapshotRecord, open_snapshot, snapshots_folder

__all__ = ["SHORT", "Dataset", "all_datasets", "find_dataset"]

SHORT = 12
"""Characters of a digest that people are shown."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A snapshot or a frozen dataset."""

    digest: str
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
    if wanted in names:
        return find_snapshot(version_folder, wanted)
    if wanted:
        meant = {text: names.get(text, text) for text in (*names, *digests) if text.startswith(wanted)}
        if len(set(meant.values())) == 1:
            return find_snapshot(version_folder, next(iter(meant.values())))
        if meant:
            which = ", ".join(text[:SHORT] if is_digest(text) else text for text in sorted(meant))
            raise InvalidInput(f"{wanted} may be any of {which}", hint="give more of it")
    short = {digest[:SHORT] for digest in digests}
    near = difflib.get_close_matches(wanted, [*names, *sorted(short)], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`tidemill dataset list` shows those that there are"
    raise NotFound(f"there is no dataset {wanted!r}", hint=hint)


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
    for path in sorted(model.glob(f"*/{MANIFEST}")):
        try:
            digest = decode_manifest(path.read_bytes(), str(path)).snapshot
        except Corrupt:
            continue
        found[digest] = (*found.get(digest, ()), path.parent.name)
    return found
