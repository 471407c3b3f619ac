"""The steps by themselves, with a control and a registry in memory."""

import json
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tidemill.artifacts import verify
from tidemill.core.clock import SystemClock, from_ms, to_ms
from tidemill.core.errors import Conflict, Corrupt, DeadlineExceeded, InvalidInput, NotFound, UserCodeError
from tidemill.evaluation.gates import GateVerdict, decode_verdicts, encode_verdicts
from tidemill.evaluation.scoring import Evaluation, Scores
from tidemill.events.records import Decision, Request
from tidemill.retrain import data, grant, lineage, steps, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place, here
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.data_verdict import warned
from tidemill.training.snapshot import Snapshot, SnapshotRecord, TableRead, write_snapshot
from tidemill.watch.reference import decode_reference

GRANT = Grant(run=RUN, token="token-1", expires_at=0, cause="initial", reason="enough labels")


class Control:
    """Answers with a kind and figures; keeps what was asked."""

    def __init__(self, kind: str = "grant", reason: str = "a test's", **figures: Any) -> None:
        self.kind, self.reason, self.figures = kind, reason, figures
        self.asked: list[Request] = []

    def __call__(self, request: Request, deadline_s: float) -> Decision:
        self.asked.append(request)
        return Decision(
            decision_id="d1",
            kind=self.kind,
            model=request.model,
            time=0,
            subject=str(request.arguments["run"]),
            reason=self.reason,
            figures=self.figures,
            answers=request.request_id,
        )


@pytest.fixture(autouse=True)
def _code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site.code)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(SystemClock())


@pytest.fixture
def place_of(site: Site, registry: MemoryRegistry) -> Callable[..., Place]:
    def make(control: Control | None = None) -> Place:
        return Place(
            resource=site.resource,
            lake=site.lake,
            root=site.artifacts,
            clock=SystemClock(),
            ask=control or Control(),
            registry=lambda: registry,
        )

    return make


def trained(place: Place, granted: Grant) -> tuple[Snapshot, Path]:
    taken = data.snapshot(place, granted)
    data.validate(place, taken)
    version.train(place, granted, taken)
    return taken, place.version_folder(granted.run)


def claimed(place: Place, **changes: Any) -> Grant | None:
    arguments: dict[str, Any] = {"reason": "enough labels", "force": False, "skip_gates": False}
    return grant.claim(place, RUN, **(arguments | changes))


def test_a_claim_brings_back_what_control_knows(place_of: Callable[..., Place]) -> None:
    control = Control(
        token="t",
        expires_at=9,
        champion="v1",
        champion_artifact="/a/v1",
        since=5,
        cause="drift",
        skip_gates=True,
        by="x",
    )
    found = claimed(place_of(control))
    assert found == Grant(
        run=RUN,
        token="t",
        expires_at=9,
        champion="v1",
        champion_artifact="/a/v1",
        since=5,
        cause="drift",
        reason="enough labels",
        skip_gates=True,
    )
    (request,) = control.asked
    assert (request.kind, request.request_id) == ("claim", f"{RUN}-claim")
    assert request.arguments["requested_by"] == "pipeline"


def test_a_refused_claim_is_no_grant_and_no_failure(
    place_of: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    assert claimed(place_of(Control("refuse", "already running: r1"))) is None
    assert "already running: r1" in capsys.readouterr().out


def test_a_control_that_does_not_answer_fails_the_claim(place_of: Callable[..., Place]) -> None:
    def silent(request: Request, deadline_s: float) -> Decision:
        raise DeadlineExceeded(f"control is not answering within {deadline_s:g} s")

    with pytest.raises(DeadlineExceeded, match="control is not answering"):
        claimed(place_of(silent))


def test_a_grant_that_says_nothing_of_a_token_is_corrupt(place_of: Callable[..., Place]) -> None:
    with pytest.raises(Corrupt, match="token"):
        claimed(place_of(Control()))


def test_a_stale_grant_cannot_propose(place_of: Callable[..., Place]) -> None:
    with pytest.raises(Conflict, match="the token is not the one"):
        grant.propose(place_of(Control("refuse", "the token is not the one")), GRANT, "/a/v2", ())


def test_a_proposal_carries_token_artifact_and_verdicts(place_of: Callable[..., Place]) -> None:
    control = Control("start-rollout")
    verdict = GateVerdict(gate="fresh", passed=True, reason="better")
    grant.propose(place_of(control), GRANT, "/a/v2", (verdict,))
    arguments = control.asked[0].arguments
    assert (arguments["token"], arguments["version"], arguments["artifact"]) == ("token-1", RUN, "/a/v2")
    assert decode_verdicts(str(arguments["gates"])) == (verdict,)


def test_the_first_version_is_made_from_all_that_is_labelled(
    filled: Site, place_of: Callable[..., Place], registry: MemoryRegistry
) -> None:
    place = place_of()
    taken, folder = trained(place, GRANT)
    assert taken.record.rows == {"new": 340, "replay": 0, "fresh": 60}
    assert taken.record.events.offsets == {"c/events/0": 399}
    manifest = verify(folder)
    assert (manifest.version, manifest.run, manifest.snapshot) == (RUN, RUN, taken.digest)
    assert set(manifest.files) == {"model.onnx", "weights.safetensors", "reference.json"}
    evaluation = version.evaluate(place, GRANT, taken)
    assert evaluation.champion is None
    assert evaluation.candidate.mean < 0.1
    artifact = lineage.register(place, GRANT, taken.record, evaluation, ())
    assert artifact == str(folder)
    (found,) = registry.versions(filled.resource.id)
    assert found.tags["tidemill.snapshot"] == taken.digest
    assert found.tags["tidemill.cause"] == "initial"
    assert '"c/events/0": 399' in found.tags["tidemill.offsets"]
    assert registry.metrics[filled.resource.id, RUN]["fresh_error"] == evaluation.candidate.mean
    assert registry.aliases(filled.resource.id) == {}


def test_the_next_version_learns_what_is_new_from_the_champions_weights(
    filled: Site, place_of: Callable[..., Place]
) -> None:
    place = place_of()
    first, champion = trained(place, GRANT)
    filled.fill(events_frame(300, first=400))
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion), cause="volume")
    taken, folder = trained(place, granted)
    assert taken.record.known == first.digest
    assert taken.record.rows == {"new": 240, "replay": 260, "fresh": 60}
    assert verify(folder).warm_from == RUN
    evaluation = version.evaluate(place, granted, taken)
    assert evaluation.champion is not None
    assert evaluation.champion.version == RUN
    assert len(evaluation.champion.losses) == len(evaluation.candidate.losses) == 60


def test_without_a_warm_start_it_learns_from_everything(filled: Site, place_of: Callable[..., Place]) -> None:
    _, champion = trained(place_of(), GRANT)
    model = {"codec": "tiny_model:Codec", "trainer": "tiny_model:Trainer", "warmStart": False}
    filled.put(tiny_resource(filled.resource.metadata.name, model=model))
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion))
    taken, folder = trained(place_of(), granted)
    assert taken.record.rows["new"] == 340
    assert verify(folder).warm_from == ""


def test_a_champion_whose_snapshot_is_gone_makes_all_rows_new(filled: Site, place_of: Callable[..., Place]) -> None:
    place = place_of()
    first, champion = trained(place, GRANT)
    first.folder.rename(first.folder.with_name("elsewhere"))
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion))
    assert data.snapshot(place, granted).record.rows["new"] == 340


def test_after_drift_the_reference_begins_where_the_drift_began(filled: Site, place_of: Callable[..., Place]) -> None:
    since = START + timedelta(seconds=300)
    granted = Grant(run=RUN, token="t", expires_at=0, since=to_ms(since), cause="drift")
    taken, folder = trained(place_of(), granted)
    assert taken.reference()["event_time"].min() == since
    reference = decode_reference((folder / "reference.json").read_bytes(), "reference.json")
    assert from_ms(reference.first_event or 0) == since
    inputs = {feature.name for feature in reference.features if feature.subject == "inputs"}
    assert inputs == {"brightness", "contrast"}


def test_the_reference_has_the_candidates_answers_the_labels_and_its_loss_at_the_gate(
    filled: Site, place_of: Callable[..., Place]
) -> None:
    place = place_of()
    taken, folder = trained(place, GRANT)
    reference = decode_reference((folder / "reference.json").read_bytes(), "reference.json")
    by_subject = {
        subject: {feature.name for feature in reference.features if feature.subject == subject}
        for subject in ("predictions", "labels", "errors")
    }
    assert by_subject == {
        "predictions": {"prediction.class", "prediction.confidence"},
        "labels": {"label.defect"},
        "errors": {"error"},
    }
    loss = reference.feature("error")
    assert loss is not None
    fresh = taken.frame().filter(pl.col("part") == "fresh")
    scored = version.evaluate(place, GRANT, taken).candidate
    newer = sorted(zip(fresh["event_time"], scored.losses, strict=True))[-loss.votes :]
    assert loss.mean == pytest.approx(sum(of for _, of in newer) / len(newer))
    assert loss.missing is None


def test_training_that_is_tried_again_takes_the_version_that_is_there(
    filled: Site, place_of: Callable[..., Place]
) -> None:
    place = place_of()
    taken, folder = trained(place, GRANT)
    before = (folder / "manifest.json").stat().st_mtime_ns
    version.train(place, GRANT, taken)
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_a_champion_with_a_changed_byte_is_not_started_from(filled: Site, place_of: Callable[..., Place]) -> None:
    place = place_of()
    _, champion = trained(place, GRANT)
    (champion / "weights.safetensors").write_bytes(b"other")
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion))
    with pytest.raises(Corrupt, match=r"weights\.safetensors"):
        data.snapshot(place, granted)


def test_a_lake_without_events_is_told(site: Site, place_of: Callable[..., Place]) -> None:
    with pytest.raises(InvalidInput, match="there are no events of default"):
        data.snapshot(place_of(), GRANT)


def test_a_lake_with_too_few_labels_is_told(site: Site, place_of: Callable[..., Place]) -> None:
    events = events_frame(200)
    site.fill(events, labels_frame(events.head(80)))
    place = place_of()
    with pytest.raises(InvalidInput, match="20 rows to train on"):
        data.validate(place, data.snapshot(place, GRANT))


def test_corrupted_labels_make_a_candidate_that_the_gate_sees(filled: Site, place_of: Callable[..., Place]) -> None:
    place = place_of()
    _, champion = trained(place, GRANT)
    events = events_frame(1500, first=400)
    value = (
        pl.when(pl.col("offset") % 2 == 0).then(pl.lit('{"defect": "scratch"}')).otherwise(pl.lit('{"defect": "ok"}'))
    )
    corrupted = labels_frame(events).with_columns(value=pl.when(pl.col("offset") < 1800).then(value).otherwise("value"))
    filled.fill(events, corrupted)
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion))
    taken, _ = trained(place, granted)
    evaluation = version.evaluate(place, granted, taken)
    assert evaluation.champion is not None
    assert evaluation.candidate.mean > evaluation.champion.mean + 0.5


def test_a_trainer_that_raises_is_told_with_its_line(
    filled: Site, place_of: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising.py").write_text(
        "import tiny_model\n\nclass Trainer(tiny_model.Trainer):\n    def loss(self, *_):\n        return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    filled.put(
        tiny_resource(filled.resource.metadata.name, model={"codec": "tiny_model:Codec", "trainer": "raising:Trainer"})
    )
    with pytest.raises(UserCodeError, match=r"raising:Trainer\.loss raised ZeroDivisionError.*line 5 .*return 1 / 0"):
        trained(place_of(), GRANT)


def test_the_place_is_that_of_the_stored_resource_or_of_a_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_STATE", str(site.state))
    stored = here(site.resource.id, {})
    assert stored.resource.spec == site.resource.spec
    assert stored.version_folder(RUN) == site.version()
    file = site.state / "resources" / f"{site.resource.id}.yaml"
    assert here(site.resource.id, {"TIDEMILL_RESOURCE": str(file)}).resource.id == site.resource.id
    with pytest.raises(InvalidInput, match=r"and the run is of default\.other"):
        here("default.other", {"TIDEMILL_RESOURCE": str(file)})
    with pytest.raises(NotFound):
        here("default.other", {})
    with pytest.raises(InvalidInput, match="which model"):
        here("", {})


@pytest.mark.parametrize("skip", [False, True])
def test_a_gate_that_refuses_is_enforced_unless_the_grant_skips_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: bool
) -> None:
    control = Control("run-finished")
    monkeypatch.setenv("TIDEMILL_STATE", str(site.state))
    monkeypatch.setattr(
        "tidemill.wiring.Local.ask", lambda _, resource, request, deadline_s: control(request, deadline_s)
    )
    bad, good = Scores(version=RUN, losses=(1.0,) * 60), Scores(version="v1", losses=(0.0,) * 60)
    files: dict[str, msgspec.Struct] = {
        "granted": Grant(run=RUN, token="t", expires_at=0, skip_gates=skip),
        "evaluation": Evaluation(candidate=bad, champion=good, snapshot=""),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(msgspec.json.encode(content))
    read = TableRead(uri="lake", delta_version=1)
    record = SnapshotRecord(
        model="m", as_of=0, query="q", maturity_ms=0, events=read, labels=read, seed=1, rows={"fresh": 60}
    )
    taken = write_snapshot(
        site.version().with_name("snapshots"), pl.DataFrame(), pl.DataFrame(), record, pl.DataFrame()
    )
    (tmp_path / "taken").write_text(json.dumps({"digest": taken.digest}))
    (tmp_path / "of_data").write_text(encode_verdicts([warned("leakage", ["brightness says < all"])]))
    names = ("granted", "taken", "evaluation", "of_data", "verdicts", "report")
    assert steps.gate(site.resource.id, **{name: str(tmp_path / name) for name in names}) is skip
    page = (tmp_path / "report").read_text()
    assert page.index("data.leakage") < page.index("fresh"), "the gates of the data come first"
    assert "warning: brightness says &lt; all" in page
    _, verdict = decode_verdicts((tmp_path / "verdicts").read_text())
    assert (verdict.passed, verdict.enforced) == (False, not skip)
    assert ("(skipped by force)" in verdict.reason) is skip
    assert [request.kind for request in control.asked] == ([] if skip else ["finished"])


def test_control_is_told_of_a_failure_that_cannot_be_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control("run-failed")
    monkeypatch.setenv("TIDEMILL_STATE", str(site.state))
    monkeypatch.setattr(
        "tidemill.wiring.Local.ask", lambda _, resource, request, deadline_s: control(request, deadline_s)
    )
    (tmp_path / "granted").write_bytes(msgspec.json.encode(GRANT))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(steps, "write_run", full)
    monkeypatch.setenv("TIDEMILL_RUN_FOLDER", str(tmp_path / RUN))
    (tmp_path / "taken").write_bytes(b'{"digest": "gone"}')
    with pytest.raises(NotFound):
        steps.validate(site.resource.id, *(str(tmp_path / name) for name in ("granted", "taken", "verdicts")))
    assert [request.kind for request in control.asked] == ["failed"]


@pytest.mark.parametrize("waits", [True, False])
def test_a_step_whose_time_is_over_ends_even_where_telling_control_of_it_hangs(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    told, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(steps, "TOLD_WITHIN_S", 0.05 if waits else 60.0)
    monkeypatch.setattr(steps, "here", lambda model: ended.wait(30) if waits else None)
    monkeypatch.setattr(steps, "_tell", lambda *_: told.set())
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    steps._run_out("train", site.resource.id, str(tmp_path / "granted"))
    assert ended.is_set()
    assert told.is_set() or waits


def test_a_version_of_another_library_goes_on_from_what_its_champion_kept(
    filled: Site, place_of: Callable[..., Place]
) -> None:
    from safetensors.numpy import load

    model = {"codec": "tiny_model:Codec", "trainer": "centroids:Learner"}
    filled.put(tiny_resource(filled.resource.metadata.name, model=model))
    place = place_of()
    _, champion = trained(place, GRANT)
    filled.fill(events_frame(300, first=400))
    granted = Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(champion), cause="volume")
    taken, folder = trained(place, granted)
    assert verify(folder).warm_from == RUN
    assert load((champion / "weights.safetensors").read_bytes())["counts"].sum() == 340
    assert load((folder / "weights.safetensors").read_bytes())["counts"].sum() == 340 + 240 + 260
    assert version.evaluate(place, granted, taken).candidate.mean < 0.1
