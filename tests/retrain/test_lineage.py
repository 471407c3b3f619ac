"""What the step register writes: the model card, its place in the artifact, and what the registry is told."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidemill.artifacts import verify
from tidemill.artifacts.adding import add
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.evaluation.gates import GateVerdict
from tidemill.evaluation.scoring import Evaluation
from tidemill.retrain import data, lineage, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import tiny_resource
from tidemill.training.code_digest import code_of
from tidemill.training.snapshot import SnapshotRecord

GRANT = Grant(run=RUN, token="t", expires_at=0, cause="drift", reason="brightness fell | [here](http://x)\n# by 0.2")
VERDICTS = (
    GateVerdict(gate="fresh", passed=None, reason="no champion: not applicable"),
    GateVerdict(gate="fresh.atMost", passed=False, enforced=False, reason="error 0.4 (skipped by force)"),
)


class Made:
    """A version that was trained and judged, before it is registered."""

    def __init__(self, site: Site) -> None:
        self.registry = MemoryRegistry(SystemClock())
        self.place = Place(
            resource=site.resource,
            lake=site.lake,
            root=site.artifacts,
            clock=SystemClock(),
            ask=lambda request, deadline_s: pytest.fail("register asks nothing of control"),
            registry=lambda: self.registry,
        )
        taken = data.snapshot(self.place, GRANT)
        version.train(self.place, GRANT, taken)
        self.record: SnapshotRecord = taken.record
        self.evaluation: Evaluation = version.evaluate(self.place, GRANT, taken)
        self.folder = site.version()

    def register(self) -> str:
        return lineage.register(self.place, GRANT, self.record, self.evaluation, VERDICTS)

    def card(self) -> str:
        return (self.folder / "card.md").read_text()

    def known(self) -> Any:
        (found,) = self.registry.versions(self.place.resource.id)
        return found


@pytest.fixture
def made(filled: Site, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.syspath_prepend(filled.code)
    filled.put(
        tiny_resource(filled.resource.metadata.name, gates={"fresh": {"rows": 60}, "slices": [{"by": "station"}]})
    )
    return Made(filled)


def test_the_card_is_in_the_manifest_and_with_the_registered_version(made: Made) -> None:
    made.register()
    assert "card.md" in verify(made.folder).files
    found = made.known()
    assert found.description == made.card()
    assert found.tags["tidemill.code.digest"] == code_of(("tiny_model:Codec",)).digest
    assert "tiny_model.py" in found.tags["tidemill.code.files"]
    parameters = made.registry.parameters[made.place.resource.id, RUN]
    assert parameters["model.trainer"] == "tiny_model:Trainer"
    assert parameters["trainer.epochs"].isdigit()
    assert parameters["warm_from"] == "scratch"


def test_the_card_says_what_on_what_how_good_how_it_came_about_and_its_limits(made: Made) -> None:
    made.register()
    card = made.card()
    assert card.startswith(f"# {made.place.resource.id} {RUN}\n")
    assert "| label | new | fresh |" in card
    assert "| all | 340 | 60 |" in card
    assert "2026-01-01 00:00 to 2026-01-01 00:06 UTC" in card
    assert f"Error on the 60 fresh rows: {made.evaluation.candidate.mean:.4f}." in card
    assert "| station | rows | error |" in card
    assert "| station-0 | 20 |" in card
    assert "Of station `station-0`, `station-1`, `station-2` there were fewer than 30 fresh rows" in card
    assert "does not ask for it: frozen, calibration, latency, size, robustness." in card
    assert "- fresh was not judged: no champion: not applicable." in card
    assert "- fresh.atMost was judged and not enforced" in card
    assert "- Training began from scratch" in card


def test_words_from_outside_stay_words_in_the_card(made: Made) -> None:
    made.register()
    assert r"- Cause: drift: brightness fell \| \[here\](http://x) # by 0.2" in made.card()


def test_a_registry_that_fails_leaves_a_version_that_the_next_try_registers(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(made.registry, "register", _fail)
        with pytest.raises(Unavailable):
            made.register()
    before = made.card()
    assert list(made.registry.versions(made.place.resource.id)) == []
    made.register()
    assert made.known().description == made.card() == before


@pytest.mark.parametrize("left", ["card.md", ".card.partial", ".manifest.partial"])
def test_a_card_that_was_cut_off_is_written_by_the_next_try(made: Made, left: str) -> None:
    beside = {".card.partial": f".{RUN}.card.md.partial", ".manifest.partial": f".{RUN}.manifest.json.partial"}
    (made.folder.parent / beside[left] if left in beside else made.folder / left).write_bytes(b"half a ca")
    made.register()
    assert "card.md" in verify(made.folder).files
    assert made.card().startswith("# ")


def test_what_is_added_once_stays(made: Made) -> None:
    first = add(made.folder, "card.md", b"one")
    assert add(made.folder, "card.md", b"two") == first == verify(made.folder)
    assert (made.folder / "card.md").read_bytes() == b"one"


def test_the_same_facts_give_the_same_card(made: Made) -> None:
    made.register()
    first = made.card()
    manifest = made.folder / "manifest.json"
    content = msgspec.json.decode(manifest.read_bytes())
    del content["files"]["card.md"]
    manifest.write_bytes(msgspec.json.encode(content))
    (made.folder / "card.md").unlink()
    made.register()
    assert made.card() == first


def test_the_digest_is_of_the_class_module_and_of_what_it_imports_from_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("import json\nimport beside\n")
    (tmp_path / "beside.py").write_text("from pack import part\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "part.py").write_text("raise RuntimeError('nothing is imported')\n")
    (tmp_path / "other.py").write_text("")
    first = code_of(("mine:Codec", "mine:Trainer"))
    assert list(first.files) == ["beside.py", "mine.py", "pack/__init__.py", "pack/part.py"]
    assert (first.commit, first.tidemill != "") == ("", True)
    assert code_of(("mine:Codec",)).digest == first.digest
    (tmp_path / "pack" / "part.py").write_text("x = 1\n")
    assert code_of(("mine:Codec",)).digest != first.digest


def test_the_commit_of_a_repository_is_told_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ours.py").write_text("x = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "ours.py"], ["-c", "commit.gpgsign=false", "commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    clean = code_of(("ours:Codec",)).commit
    assert len(clean) == 40
    (tmp_path / "ours.py").write_text("x = 2\n")
    assert code_of(("ours:Codec",)).commit == f"{clean}-dirty"


def test_code_that_is_not_there_has_no_digest() -> None:
    assert code_of(("no_such_module:Codec",)).digest == ""


def _fail(*_: object, **__: object) -> None:
    raise Unavailable("the registry does not answer")
