"""A version from elsewhere becomes one of the model's, on the way of every version."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.cli.test_slices import call, stored
from tests.retrain.test_worse import FIRST, trained
from tests.retrain.test_worse import place_of as place_at

from tidemill.artifacts import verify, version_folders
from tidemill.control.protocols import RunSeen
from tidemill.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from tidemill.events.records import Decision, Request
from tidemill.retrain.adopt import adopt
from tidemill.retrain.place import Place
from tidemill.testing.loop import LoopBench
from tidemill.testing.retrain import Site
from tidemill.testing.training import tiny_resource


@pytest.fixture
def made(filled: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a version that another installation made."""
    monkeypatch.syspath_prepend(filled.code)
    trained(filled, FIRST)
    return filled.version().rename(tmp_path / "copied")


@pytest.fixture
def bench(site: Site) -> LoopBench:
    """The loop of a model whose first version comes from elsewhere."""
    model = {"codec": "tiny_model:Codec", "trainer": "tiny_model:Trainer", "initial": "version"}
    return LoopBench(tiny_resource(site.resource.metadata.name, model=model))


@pytest.fixture
def place(site: Site, bench: LoopBench) -> Place:
    def ask(request: Request, deadline_s: float) -> Decision:
        asked = msgspec.structs.replace(request, time=round(bench.clock.now().timestamp() * 1000))
        if all(one.request_id != request.request_id for one in bench.log.asked):
            bench.log.asked.append(asked)
        bench.tick()
        return bench.answer(request.request_id)

    found = place_at(site)
    return Place(
        resource=bench.resource,
        lake=found.lake,
        root=found.root,
        clock=bench.clock,
        ask=ask,
        registry=lambda: bench.registry,
    )


def test_the_first_version_comes_from_elsewhere_and_gets_all_traffic(
    made: Path, bench: LoopBench, place: Place
) -> None:
    bench.labelled = 10_000
    bench.tick(3)
    assert bench.status.run is None, "nothing is trained"
    decision = adopt(place, made, reason="it has served for a year", by="ada")
    assert decision.kind == "start-rollout"
    assert "its gates were skipped, as ada asked" in decision.reason
    bench.until(lambda status: status.phase == "Serving")
    champion = bench.status.champion
    assert champion is not None
    assert champion.version.startswith("adopted-")
    assert [(one.version, one.share) for one in bench.status.traffic.revisions] == [(champion.version, 100)]
    (found,) = bench.registry.versions(bench.resource.id)
    assert found.artifact == champion.artifact
    assert found.tags["tidemill.adopted"].startswith(f"{FIRST.run} of ")
    manifest = verify(Path(champion.artifact))
    assert (manifest.version, manifest.model, manifest.run) == (champion.version, bench.resource.id, champion.version)
    assert manifest.snapshot == verify(made).snapshot


def test_what_was_cut_off_is_ended_by_doing_it_again(
    made: Path, bench: LoopBench, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bench.registry, "register", dies)
        with pytest.raises(KeyboardInterrupt):
            adopt(place, made, reason="why not", by="ada")
    assert adopt(place, made, reason="why not", by="ada").kind == "start-rollout"
    assert len(bench.registry.versions(bench.resource.id)) == 1
    assert len(version_folders(place.version_folder("any").parent)) == 1


def test_while_a_run_is_in_flight_it_is_refused(made: Path, bench: LoopBench, place: Place) -> None:
    run = bench.ask("retrain", reason="a drill").subject
    bench.runner.show(RunSeen(run=run, state="running"))
    with pytest.raises(Conflict, match="control refused adopted-"):
        adopt(place, made, reason="why not", by="ada")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"another"), "is not the file that was written"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    ],
)
def test_damaged_files_are_refused(made: Path, place: Place, change: Callable[[Path], object], problem: str) -> None:
    change(made)
    with pytest.raises(Corrupt, match=problem):
        adopt(place, made, reason="why not", by="ada")


def test_what_the_model_could_not_serve_is_refused_with_every_reason(made: Path, place: Place) -> None:
    other = tiny_resource(
        model={"codec": "another:Codec", "trainer": "tiny_model:Trainer"},
        prediction={"type": "classification", "classes": ["fine", "scratch"]},
    )
    elsewhere = Place(other, place.lake, place.root, place.clock, place.ask, place.registry)
    with pytest.raises(InvalidInput) as refused:
        adopt(elsewhere, made, reason="why not", by="ada")
    assert "its codec is tiny_model:Codec, and spec.model.codec is another:Codec" in refused.value.message
    assert "its first class is ok, that of spec.prediction.classes fine" in refused.value.message
    with pytest.raises(NotFound):
        adopt(place, made.with_name("nothing"), reason="why not", by="ada")


def test_the_command_says_what_control_decided_and_its_json_is_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, monkeypatch, tiny_resource())

    def take(place: Place, source: Path, *, reason: str, by: str) -> Decision:
        print("what a run's log would have")
        said = f"{source.name} of {place.resource.id}: {reason}"
        return Decision(
            decision_id="d", kind="start-rollout", model=place.resource.id, time=0, subject="adopted-1", reason=said
        )

    monkeypatch.setattr("tidemill.retrain.adopt.adopt", take)
    (tmp_path / "v7").mkdir()
    arguments = ("adopt", "phone-inspection", "v7", "--reason", "it served")
    status, out, err = call(capsys, *arguments, "-o", "json")
    assert status == 0
    assert json.loads(out)["reason"] == "v7 of default.phone-inspection: it served"
    assert "what a run's log would have" in err
    assert "it served" in call(capsys, *arguments)[1]
