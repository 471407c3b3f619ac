"""Artifacts: one immutable directory per version, its manifest, and the check that comes before anything is loaded.

    model.onnx            what serves
    weights.safetensors   what the next version's training starts from
    reference.json        what drift is measured against
    card.md               the model card, which comes when the version is registered
    manifest.json         who made it from what, and the SHA-256 of each file above

Nothing in it is ever unpickled.
"""

from tidemill.artifacts.folder import (
    artifact_root,
    artifact_uri,
    local_folder,
    manifest_of,
    read,
    verify,
    version_folders,
    write,
)
from tidemill.artifacts.manifest import FileEntry, Manifest, PredictionShape, TensorSpec

__all__ = [
    "FileEntry",
    "Manifest",
    "PredictionShape",
    "TensorSpec",
    "artifact_root",
    "artifact_uri",
    "local_folder",
    "manifest_of",
    "read",
    "verify",
    "version_folders",
    "write",
]
