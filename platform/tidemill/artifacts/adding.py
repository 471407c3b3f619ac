"""A file that joins a version's directory after it was written, and before anybody serves it: the model card."""

import hashlib
from pathlib import Path

import msgspec

from tidemill.artifacts.folder import verify
from tidemill.artifacts.manifest import MANIFEST, FileEntry, Manifest, decode_manifest, encode_manifest

__all__ = ["add"]


def add(folder: Path, name: str, content: bytes) -> Manifest:
    """Add a file to a version that nobody serves yet, and return its manifest; one that is there already stays.

    A crash between the file and the manifest leaves a version that `verify` refuses; calling again ends it.

    Raises:
        NotFound: there is no such version.
        Corrupt: its other files are not the ones that were written.
    """
    if not (folder / MANIFEST).is_file():
        return verify(folder)
    manifest = decode_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    if name in manifest.files:
        return verify(folder)
    (folder / name).unlink(missing_ok=True)  # of a try that was cut off
    verify(folder)
    entry = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    manifest = msgspec.structs.replace(manifest, files={**manifest.files, name: entry})
    encoded = encode_manifest(manifest)
    decode_manifest(encoded, str(folder))
    # Beside the folder until they are whole: what a crash leaves must not lie in it.
    for file, data in ((name, content), (MANIFEST, encoded)):
        partial = folder.parent / f".{folder.name}.{file}.partial"
        partial.write_bytes(data)
        partial.replace(folder / file)
    return manifest
