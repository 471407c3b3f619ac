"""What retention decides, done to folders: what there is of a model, and how some of it goes.

    <artifact root>/<namespace>/<name>/<version>/            goes with a mark in the registry, which keeps its lineage
    <artifact root>/<namespace>/<name>/snapshots/<digest>/   goes after the versions that were trained on it
    <state>/runs/<model>/<run>/                              goes where no version came of the run, or with it

The mark comes first: from then on nobody counts on the files. Then the folder is renamed, so that it is gone as a
whole, and removed; what a crash leaves of it, and of a folder that never became whole, goes the next time.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tidemill.artifacts import artifact_root, artifact_uri, local_folder, manifest_of, version_folders
from tidemill.control.retention import Going, Kept, KeptVersion, Rule, may_go
from tidemill.control.runs import run_folder, said_at
from tidemill.control.state import LoopStatus
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Corrupt, Unavailable
from tidemill.core.settings import Settings
from tidemill.core.telemetry import get_logger
from tidemill.registry import Registry
from tidemill.spec.model import ContinualModel
from tidemill.training.catalogue import snapshot_times
from tidemill.training.frozen import damaged_names, frozen_folder, list_frozen
from tidemill.training.snapshot import snapshots_folder

__all__ = ["Clearing", "Places", "clear", "look", "places_of", "sweep"]

_log = get_logger(__name__)

_EVERY_S, _SOON_S = 3600.0, 60.0
_MOST = 20
"""Versions that go in one turn of the loop: every other model waits for it."""
_GONE = ".gone"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a model's runs leave what they make."""

    model: str
    versions: Path
    """Folder of its versions, with the snapshots beside them."""
    runs: Path
    """Folder of its runs on this machine; it need not be there."""

    @property
    def snapshots(self) -> Path:
        """Folder of its snapshots."""
        return snapshots_folder(self.versions / "any")

    def going(self, going: Going) -> list[Path]:
        """The folders that go, in their order."""
        versions = [self.versions / name for name in going.versions]
        return [*versions, *(self.snapshots / name for name in going.snapshots), *(self.runs / n for n in going.runs)]


def places_of(resource: ContinualModel, settings: Settings) -> Places:
    """The places of a model; raises `Unsupported` where its versions are not on this machine."""
    versions = local_folder(artifact_uri(artifact_root(resource, settings), resource, "any")).parent
    return Places(resource.id, versions, run_folder(settings.state, resource.id, "any").parent)


def look(places: Places) -> Kept:
    """What there is."""
    frozen = frozen_folder(places.versions / "any")
    named = None if damaged_names(frozen) else frozenset(said.of for said in list_frozen(frozen))
    runs = [path for path in places.runs.iterdir() if _is_whole(path)] if places.runs.is_dir() else []
    return Kept(
        versions={path.name: _version(path) for path in version_folders(places.versions)},
        snapshots=snapshot_times(places.snapshots),
        runs={path.name: said_at(path) for path in runs},
        frozen=named,
    )


def clear(places: Places, going: Going, registry: Registry, now: datetime) -> None:
    """Let it go. Raises `Unavailable`; what is left then goes the next time."""
    registered = {one.version for one in registry.versions(places.model)} if going.versions else set()
    try:
        for version in going.versions:
            if version in registered:
                registry.mark_cleared(places.model, version, now)
            _remove(places.versions / version)
        for digest in going.snapshots:
            _remove(places.snapshots / digest)
        for run in going.runs:
            (places.versions / f".{run}.failed").unlink(missing_ok=True)
            _remove(places.runs / run)
    except OSError as error:
        raise Unavailable(f"clearing away what {places.model} needs no more: {error}") from error


class Clearing:
    """Clears away each hour, in the loop's own turn: nothing comes to serve meanwhile.

    Args:
        places: of the model; asked for each time, because a store may hold versions that nothing is cleared from.
        registry: has a mark of each version that goes.
        rule: what is kept although nothing needs it.
        clock: the time.
    """

    def __init__(self, places: Callable[[], Places], registry: Registry, rule: Rule, clock: Clock) -> None:
        self._places, self._registry, self._rule, self._clock = places, registry, rule, clock
        self._due = clock.monotonic() + _SOON_S  # control that has just started has better things to do

    def __call__(self, status: LoopStatus) -> None:
        """Clear away what may go by this status, if it is time. Raises `Unavailable`, and what `places` does."""
        if self._clock.monotonic() < self._due or status.run is not None:
            return
        self._due = self._clock.monotonic() + _EVERY_S
        places, now = self._places(), self._clock.now()
        sweep(places, to_ms(now - self._rule.older_than))
        going = may_go(look(places), status, self._registry.aliases(places.model), self._rule, now)
        if len(going.versions) > _MOST:
            going, self._due = Going(going.versions[:_MOST]), self._clock.monotonic() + _SOON_S
        clear(places, going, self._registry, now)
        if going:
            gone = {"versions": going.versions, "snapshots": len(going.snapshots), "runs": len(going.runs)}
            _log.info("what nothing needed was cleared away", model=places.model, **gone)


def sweep(places: Places, before: int) -> None:
    """Remove what was left of folders: of those that went, and of those that never became whole and are older."""
    try:
        for folder in (places.versions, places.snapshots, places.runs):
            for path in folder.iterdir() if folder.is_dir() else ():
                old = path.name.endswith(".partial") and path.stat().st_mtime * 1000 < before
                if path.name.startswith(".") and (old or path.name.endswith(_GONE)):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise Unavailable(f"clearing away what {places.model} needs no more: {error}") from error


def _version(folder: Path) -> KeptVersion:
    try:
        manifest = manifest_of(folder)
        return KeptVersion(to_ms(datetime.fromisoformat(manifest.created_at)), manifest.snapshot)
    except (Corrupt, ValueError):  # a time that is none, or without a zone
        return KeptVersion(None)


def _is_whole(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _remove(folder: Path) -> None:
    """Remove a folder, which is gone as a whole before any of its files is."""
    gone = folder.with_name(f".{folder.name}{_GONE}")
    if gone.exists():
        shutil.rmtree(gone)
    folder.rename(gone)
    shutil.rmtree(gone)
