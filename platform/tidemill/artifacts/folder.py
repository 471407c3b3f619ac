"""The directory of a version: written once, verified before anything of it is loaded.

A directory appears complete or not at all (written beside its place, then renamed), and never changes.
"""

import hashlib
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from tidemill.artifacts.manifest import MANIFEST, FileEntry, Manifest, decode_manifest, encode_manifest
from tidemill.core.errors import Conflict, Corrupt, InvalidInput, NotFound, Unsupported
from tidemill.core.settings import Settings
from tidemill.spec.model import ContinualModel

__all__ = ["artifact_root", "artifact_uri", "local_folder", "manifest_of", "read", "verify", "version_folders", "write"]

_VERSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RESTORE = "restore the file from where it was copied, or retrain; a version's files never change"


def artifact_root(resource: ContinualModel, settings: Settings) -> str:
    """Where the versions of a model are kept: its own `artifactRoot`, or this installation's.

    A relative folder in the resource is relative to the folder that holds this installation's state.
    """
    root = resource.spec.artifact_root
    if root is None:
        return settings.artifacts_uri
    return root if "://" in root else str(settings.state.parent / root)


def artifact_uri(root: str, resource: ContinualModel, version: str) -> str:
    """`<root>/<namespace>/<name>/<version>`: the version's place for good, and what KServe calls its storageUri.

    Raises `InvalidInput` for a version that is no name.
    """
    if not _VERSION.fullmatch(version):
        raise InvalidInput(f"{version!r} is no version: lower-case letters, digits and dashes")
    return f"{root.rstrip('/')}/{resource.metadata.namespace}/{resource.metadata.name}/{version}"


def local_folder(uri: str) -> Path:
    """The folder behind a path or a `file://` URI; raises `Unsupported` for a store that is not on this machine."""
    parts = urlsplit(uri)
    if not parts.scheme:
        return Path(uri)
    if parts.scheme == "file" and not parts.netloc:
        return Path(unquote(parts.path))
    raise Unsupported(f"{uri}: versions are kept in folders so far", hint="set artifactRoot to a folder")


def write(folder: Path, files: Mapping[str, bytes | Path], manifest: Manifest) -> Manifest:
    """Write a version's directory and return its manifest, which now lists the files.

    Args:
        folder: its place; what is there already must be the same, `created_at` aside.
        files: content, or the file to copy, by name.
        manifest: everything but `files`.

    Raises:
        Conflict: another artifact is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        for name, content in files.items():
            if isinstance(content, bytes):
                (partial / name).write_bytes(content)
            else:
                shutil.copyfile(content, partial / name)
        manifest = msgspec.structs.replace(manifest, files={name: _entry(partial / name) for name in files})
        encoded = encode_manifest(manifest)
        decode_manifest(encoded, str(folder))
        (partial / MANIFEST).write_bytes(encoded)
        try:
            partial.rename(folder)
        except OSError:
            # Refused where a directory with content is there: then it must be the same one.
            if not folder.exists():
                raise
            return _unchanged(folder, manifest)
        return manifest
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def manifest_of(folder: Path) -> Manifest:
    """What a version is, without a look at its files. Raises `NotFound` or `Corrupt` as `verify` does."""
    if not folder.is_dir():
        raise NotFound(f"there is no artifact at {folder}")
    path = folder / MANIFEST
    if not path.is_file():
        raise Corrupt(f"{path} is missing", hint=_RESTORE)
    return decode_manifest(path.read_bytes(), str(path))


def version_folders(folder: Path) -> list[Path]:
    """The versions in the folder of a model, by name; what a crash has left of one is none."""
    found = folder.glob(f"*/{MANIFEST}")
    return sorted(path.parent for path in found if not path.parent.name.startswith("."))


def verify(folder: Path) -> Manifest:
    """Check every file of a version against its manifest, and return that.

    Raises:
        NotFound: there is no such version.
        Corrupt: a file is missing, not listed, or not the one that was written.
    """
    manifest = manifest_of(folder)
    for name in sorted({found.name for found in folder.iterdir()} - manifest.files.keys() - {MANIFEST}):
        raise Corrupt(f"{folder / name} is not in the manifest", hint="remove it: an artifact holds only what it lists")
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Corrupt(f"{path} is missing", hint=_RESTORE)
        _check(path, _entry(path), expected)
    return manifest


def read(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file's content, checked as it is read, so that what was verified is what is loaded.

    Raises `NotFound` for a file that the manifest does not list, `Corrupt` where the content is another.
    """
    if name not in manifest.files:
        raise NotFound(f"version {manifest.version} has no {name}")
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise Corrupt(f"{path} is missing", hint=_RESTORE) from error
    found = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    _check(path, found, manifest.files[name])
    return content


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, size=path.stat().st_size)


def _check(path: Path, found: FileEntry, expected: FileEntry) -> None:
    if found != expected:
        raise Corrupt(
            f"{path} is not the file that was written: expected SHA-256 {expected.sha256} ({expected.size} bytes), "
            f"found {found.sha256} ({found.size} bytes)",
            hint=_RESTORE,
        )


def _unchanged(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest that is there, if it says the same as the one that was to be written."""
    known = verify(folder)
    if msgspec.structs.replace(known, created_at=manifest.created_at) != manifest:
        raise Conflict(f"{folder} holds another artifact of version {known.version}: a version never changes")
    return known
