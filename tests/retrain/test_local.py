"""The pipeline, end to end: the compiled YAML on KFP's local runner, real Kafka, a scripted control."""

import json
import signal
from pathlib import Path

import pytest

from tidemill.artifacts import verify
from tidemill.registry.mlflow import MlflowRegistry
from tidemill.retrain.steps import STEPS
from tidemill.testing import eventually
from tidemill.testing.control import ScriptedControl, granted, refused
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import events_frame, labels_frame, tiny_resource

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def own_group(process_group: int) -> list[str]:
    """Command lines of the processes in a group that are still alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process_group and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_run_makes_a_version_registers_it_and_proposes_it(filled: Site, kafka: str) -> None:
    filled.kafka = kafka
    with ScriptedControl(kafka, filled.topics, granted(cause="initial")) as control:
        process = filled.start(parameters={"reason": "400 labelled events", "force": False, "skip_gates": False})
        finished = filled.finish(process)
        assert finished.status == 0, finished.output
    assert (finished.seen.state, finished.seen.error) == ("succeeded", None)
    assert [request.kind for request in control.requests] == ["claim", "propose"]
    claim, proposal = control.requests
    assert claim.arguments["reason"] == "400 labelled events"
    assert proposal.arguments["artifact"] == str(filled.version())
    reasons = {gate["gate"]: gate["reason"] for gate in json.loads(str(proposal.arguments["gates"]))}
    assert reasons["fresh"] == "no champion: not applicable"
    verify(filled.version())
    (version,) = MlflowRegistry(f"sqlite:///{filled.state / 'mlflow.db'}").versions(filled.resource.id)
    assert (version.version, version.artifact) == (RUN, str(filled.version()))
    times = [json.loads(line)["step"] for line in (filled.folder() / "steps.jsonl").read_text().splitlines()]
    assert times == list(STEPS)
    assert own_group(process.pid) == []


def test_a_refused_claim_ends_green_and_does_nothing_else(filled: Site, kafka: str) -> None:
    filled.kafka = kafka
    with ScriptedControl(kafka, filled.topics, refused("already running: r1")) as control:
        finished = filled.finish(filled.start())
    assert finished.status == 0, finished.output
    assert (finished.seen.state, finished.seen.step) == ("succeeded", "claim")
    assert "already running: r1" in finished.output
    assert [request.kind for request in control.requests] == ["claim"]
    assert not filled.version().exists()


def test_gates_that_refuse_end_green_with_the_verdict_and_register_nothing(site: Site, kafka: str) -> None:
    site.kafka = kafka
    # Labels at random cannot be predicted.
    events = events_frame(400)
    values = ['{"defect": "scratch"}' if number % 5 < 2 else '{"defect": "ok"}' for number in range(400)]
    site.fill(events, labels_frame(events, value=values))
    site.put(tiny_resource(site.resource.metadata.name, gates={"fresh": {"rows": 60, "atMost": 0.1}}))
    with ScriptedControl(kafka, site.topics, granted()) as control:
        finished = site.finish(site.start())
    assert finished.status == 0, finished.output
    assert (finished.seen.state, finished.seen.step) == ("succeeded", "gate")
    (said,) = control.asked("finished")
    assert said.arguments["passed"] is False
    verdicts = json.loads(str(said.arguments["gates"]))
    assert [(verdict["gate"], verdict.get("passed")) for verdict in verdicts] == [
        ("answers", True),
        ("fresh", None),
        ("fresh.atMost", False),
    ]
    assert control.asked("propose") == []


@pytest.mark.slow
def test_a_step_that_fails_tells_control_which_and_why(filled: Site, kafka: str, tmp_path: Path) -> None:
    filled.kafka = kafka
    code = tmp_path / "code"
    code.mkdir()
    (code / "raising.py").write_text("class Codec:\n    def encode(self, rows): ...\n    decode = targets = encode\n")
    filled.code = code
    model = {"codec": "raising:Codec", "trainer": "raising:Codec"}
    filled.put(tiny_resource(filled.resource.metadata.name, model=model))
    with ScriptedControl(kafka, filled.topics, granted(token="mine")) as control:
        finished = filled.finish(filled.start())
    assert finished.status == 1
    assert (finished.seen.state, finished.seen.step) == ("failed", "train")
    assert "raising:Codec has no module" in str(finished.seen.error)
    (said,) = control.asked("failed")
    assert (said.arguments["run"], said.arguments["token"], said.arguments["step"]) == (RUN, "mine", "train")
    assert "raising:Codec has no module" in str(said.arguments["error"])


def test_a_run_that_is_stopped_ends_its_steps_and_gives_the_grant_back(filled: Site, kafka: str) -> None:
    filled.kafka = kafka
    code = filled.state.parent / "slow"
    code.mkdir()
    (code / "slow.py").write_text(
        "import pathlib, time\nfrom tiny_model import Codec, Trainer as Tiny\n\n"
        "class Trainer(Tiny):\n    def module(self):\n"
        f"        pathlib.Path({str(code / 'begun')!r}).touch()\n        time.sleep(600)\n"
    )
    (code / "tiny_model.py").write_text((filled.code / "tiny_model.py").read_text())
    filled.code = code
    model = {"codec": "slow:Codec", "trainer": "slow:Trainer"}
    filled.put(tiny_resource(filled.resource.metadata.name, model=model))
    with ScriptedControl(kafka, filled.topics, granted()) as control:
        process = filled.start()
        eventually((code / "begun").exists, deadline_s=120)
        process.send_signal(signal.SIGTERM)
        finished = filled.finish(process)
    assert finished.status == 128 + signal.SIGTERM
    assert (finished.seen.state, finished.seen.step) == ("failed", "train")
    assert finished.seen.error == "stopped before it was done"
    assert [request.arguments["step"] for request in control.asked("failed")] == ["train"]
    assert own_group(process.pid) == []


@pytest.mark.slow
def test_a_broker_that_is_not_there_fails_the_claim_in_words(filled: Site) -> None:
    finished = filled.finish(filled.start())
    assert finished.status == 1
    assert (finished.seen.state, finished.seen.step) == ("failed", "claim")
    assert "Kafka at 127.0.0.1:1" in str(finished.seen.error)


@pytest.mark.slow
def test_steps_run_where_they_are_called_without_the_warm_processes(site: Site, kafka: str) -> None:
    site.kafka = kafka

    with ScriptedControl(kafka, site.topics, granted()) as control:
        finished = site.finish(site.start(TIDEMILL_WARM_START="never"))
    assert finished.status == 1
    assert (finished.seen.state, finished.seen.step) == ("failed", "snapshot")
    assert "there are no events" in str(finished.seen.error)
    assert len(control.asked("failed")) == 1
