"""The manifest: what a version is, what it was made from, and the digest of each of its files."""

import re
from typing import Literal

import msgspec

from tidemill.core.errors import Corrupt

__all__ = ["MANIFEST", "FileEntry", "Manifest", "PredictionShape", "TensorSpec", "decode_manifest", "encode_manifest"]

MANIFEST = "manifest.json"

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was written."""

    sha256: str
    size: int
    """Bytes."""


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of the ONNX model. The first dimension is the batch and has no fixed size."""

    name: str
    dtype: str
    """NumPy's name: `float32`."""
    shape: tuple[int | None, ...]
    """Sizes, batch first; None where any size will do."""


class PredictionShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the version answers, as the spec said when it was trained."""

    type: Literal["classification", "detection", "regression"]
    classes: tuple[str, ...]
    """None of a regression."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `manifest.json`."""

    format: Literal[1] = 1
    version: str
    model: str
    """`<namespace>.<name>`."""
    codec: str
    """`module:Class` that turns rows into the model's inputs and its outputs into answers."""
    prediction: PredictionShape
    created_at: str
    """ISO 8601, UTC."""
    run: str
    snapshot: str
    """Digest of the snapshot that it was trained on."""
    warm_from: str = ""
    """Version whose weights the training started from."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, FileEntry] = {}
    """By name: every file of the directory but the manifest itself."""


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`; raises `Corrupt` naming `where` for anything else, names that leave the folder too."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"{where} is no manifest: {error}") from error
    for name, entry in manifest.files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise Corrupt(f"{where} names {name!r}: an artifact's files lie in its own folder")
        if not _SHA256.fullmatch(entry.sha256):
            raise Corrupt(f"{where}: {entry.sha256!r} of {name} is no SHA-256")
    return manifest
