"""The classes of a model as its versions know them."""

from pathlib import Path

from tidemill.artifacts import Manifest, PredictionShape, write
from tidemill.control.known import known_resource
from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus, Version, encode_status
from tidemill.testing.loop import example_resource


def version(folder: Path, name: str, *classes: str) -> Version:
    shape = PredictionShape(type="detection", classes=classes)
    manifest = Manifest(
        version=name,
        model="default.m",
        codec="a:B",
        prediction=shape,
        created_at="",
        run=name,
        snapshot="",
        inputs=(),
        outputs=(),
    )
    write(folder / name, {}, manifest)
    return Version(version=name, artifact=str(folder / name), since=0)


def classes_of(status: LoopStatus | bytes | None) -> tuple[str, ...]:
    data = encode_status(status) if isinstance(status, LoopStatus) else status
    stored = StoredModel(resource=example_resource(), status=data, version="1")
    return known_resource(stored).spec.prediction.classes


def test_what_champion_candidate_and_previous_know_is_known(tmp_path: Path) -> None:
    champion = version(tmp_path, "v2", "ok", "scratch", "dent")
    candidate = version(tmp_path, "v3", "ok", "scratch", "dent", "crack")
    previous = version(tmp_path, "v1", "ok", "scratch")
    status = LoopStatus(created_at=0, champion=champion, candidate=candidate, previous=previous)
    assert classes_of(status) == ("ok", "scratch", "dent", "crack")
    assert classes_of(LoopStatus(created_at=0, champion=champion)) == ("ok", "scratch", "dent")


def test_before_a_status_or_without_one_that_can_be_read_the_declared_classes_are_known(tmp_path: Path) -> None:
    gone = Version(version="v1", artifact=str(tmp_path / "gone"), since=0)
    for status in (None, b"{", LoopStatus(created_at=0), LoopStatus(created_at=0, champion=gone)):
        assert classes_of(status) == ("ok", "scratch")
