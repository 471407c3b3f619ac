"""What is promised of a version's directory."""

import hashlib
import json
from pathlib import Path

import pytest

from tidemill.artifacts import (
    Manifest,
    PredictionShape,
    TensorSpec,
    artifact_root,
    artifact_uri,
    local_folder,
    read,
    verify,
    write,
)
from tidemill.core.errors import Conflict, Corrupt, InvalidInput, NotFound, Unsupported
from tidemill.core.settings import Settings
from tidemill.testing.loop import example_resource

FILES = {"model.onnx": b"onnx", "weights.safetensors": b"weights", "reference.json": b"{}"}


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "version": "r20260101-000000",
        "model": "default.phone-inspection",
        "codec": "inspection.model:Codec",
        "prediction": PredictionShape(type="classification", classes=("ok", "scratch")),
        "created_at": "2026-01-01T00:00:00+00:00",
        "run": "r20260101-000000",
        "snapshot": "0" * 64,
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(None, 3)),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=(None, 2)),),
    }
    return Manifest(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "artifacts" / "v1"
    write(place, FILES, manifest())
    return place


def test_what_was_written_is_verified_and_read(folder: Path) -> None:
    found = verify(folder)
    assert found.files["model.onnx"].sha256 == hashlib.sha256(b"onnx").hexdigest()
    assert found.files["model.onnx"].size == 4
    assert {name: read(folder, found, name) for name in FILES} == FILES


def test_files_are_copied_too(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    written = write(tmp_path / "v1", {"model.onnx": source}, manifest())
    assert read(tmp_path / "v1", written, "model.onnx") == b"content"


def test_a_changed_byte_is_refused_with_the_file_and_both_digests(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(b"onny")
    with pytest.raises(Corrupt) as caught:
        verify(folder)
    for part in (str(path), hashlib.sha256(b"onnx").hexdigest(), hashlib.sha256(b"onny").hexdigest()):
        assert part in caught.value.message


def test_a_byte_that_changes_after_the_verification_is_refused_when_it_is_read(folder: Path) -> None:
    found = verify(folder)
    (folder / "model.onnx").write_bytes(b"onny")
    with pytest.raises(Corrupt, match=r"model\.onnx"):
        read(folder, found, "model.onnx")


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Corrupt, match=f"{name} is missing"):
        verify(folder)


def test_a_file_that_is_not_listed_is_refused_by_name(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"?")
    with pytest.raises(Corrupt, match=r"extra\.bin is not in the manifest"):
        verify(folder)


def test_reading_what_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    with pytest.raises(NotFound):
        read(folder, verify(folder), "other")


def test_a_place_without_an_artifact_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path / "none")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "..", "manifest.json", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["files"][name] = {"sha256": "0" * 64, "size": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(Corrupt, match="in its own folder"):
        verify(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(Corrupt, match="is no manifest"):
        verify(folder)


def test_writing_the_same_again_changes_nothing(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    again = write(folder, FILES, manifest(created_at="2026-01-02T00:00:00+00:00"))
    assert again == verify(folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]


def test_a_version_is_never_written_over(folder: Path) -> None:
    with pytest.raises(Conflict, match="never changes"):
        write(folder, FILES | {"model.onnx": b"other"}, manifest())
    assert read(folder, verify(folder), "model.onnx") == b"onnx"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "v1", {"model.onnx": tmp_path / "none"}, manifest())
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_a_version_is_its_root_namespace_name_and_version() -> None:
    uri = artifact_uri("s3://models/", example_resource(), "r20260101-000000")
    assert uri == "s3://models/default/phone-inspection/r20260101-000000"


@pytest.mark.parametrize("version", ["", "../v1", "a/b", "V1", ".hidden"])
def test_a_version_that_is_no_name_has_no_place(version: str) -> None:
    with pytest.raises(InvalidInput):
        artifact_uri("/models", example_resource(), version)


def test_the_root_is_the_models_own_or_the_installations(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / ".tidemill")
    assert artifact_root(example_resource(), settings) == str(tmp_path / ".tidemill" / "artifacts")
    assert artifact_root(example_resource(artifactRoot="models"), settings) == str(tmp_path / "models")
    assert artifact_root(example_resource(artifactRoot="/models"), settings) == "/models"
    assert artifact_root(example_resource(artifactRoot="s3://models"), settings) == "s3://models"


def test_only_folders_are_supported_so_far() -> None:
    assert local_folder("/models/v1") == Path("/models/v1")
    assert local_folder("file:///models/v%201") == Path("/models/v 1")
    for uri in ("s3://models/v1", "file://host/models"):
        with pytest.raises(Unsupported):
            local_folder(uri)
