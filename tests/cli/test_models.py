"""The commands about models, as people and programs meet them."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pytest
import yaml

from tidemill.cli import main
from tidemill.control.state import LoopStatus, encode_status
from tidemill.control.store import LocalResourceStore, resource_yaml
from tidemill.control.words import age, figures_text
from tidemill.core.clock import from_ms
from tidemill.core.errors import DeadlineExceeded
from tidemill.events.records import Decision, Request
from tidemill.features import layout
from tidemill.features.layout import layout_of, row_bytes
from tidemill.testing.loop import LoopBench, example_resource
from tidemill.wiring import Local

MODEL = "default.phone-inspection"
EVENT = '{"station": "A", "image": "x"}'


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: the resource's file, and beside it the user's module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEMILL_STATE", raising=False)
    (tmp_path / "inspection").mkdir()
    (tmp_path / "inspection" / "model.py").write_text("raise RuntimeError('validate imports nothing')")
    (tmp_path / "model.yaml").write_text(resource_yaml(example_resource()))
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(*arguments)
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return call


GROWING = "class Codec:\n    classes: tuple[str, ...] = ()\n\nclass Trainer(Base):\n    pass\n"


@pytest.mark.parametrize(
    ("source", "who"),
    [
        ("class Codec:\n    def decode(self): ...\n\nclass Trainer: ...\n", "inspection.model:Codec"),
        ("class Codec:\n    classes = ()\n\nclass Trainer: ...\n", "inspection.model:Trainer"),
        (GROWING, None),
        ("class Codec:\n    def __init__(self):\n        self.classes = ()\n\nfrom other import Trainer\n", None),
        ("no python", None),
    ],
)
def test_code_that_cannot_be_told_its_classes_is_refused_with_a_trigger_for_new_ones(
    folder: Path, run: Run, source: str, who: str | None
) -> None:
    (folder / "inspection" / "model.py").write_text(source)
    assert run("validate", "model.yaml").status == 0
    (folder / "model.yaml").write_text(resource_yaml(example_resource(triggers={"newClass": {"minExamples": 50}})))
    for command in (("validate", "model.yaml"), ("apply", "-f", "model.yaml")):
        said = run(*command)
        assert said.status == (2 if who else 0), said.err
        assert f"{who} has no attribute classes" in said.err or who is None


def stored(folder: Path) -> LocalResourceStore:
    return LocalResourceStore(folder / ".tidemill" / "resources")


@pytest.fixture
def canary(folder: Path) -> LoopBench:
    """A stored model in the middle of a rollout, with outcomes of both versions."""
    bench = LoopBench()
    first = bench.bootstrap()
    bench.clock.advance(400)
    bench.tick()
    bench.signal()
    bench.tick()
    second = bench.started()
    bench.propose(bench.claim(second))
    bench.tick(2)
    bench.judge({first: 0.3, second: 0.2}, seconds=40)
    keep(folder, bench.status)
    return bench


def keep(folder: Path, status: LoopStatus) -> None:
    store = stored(folder)
    version = store.put(example_resource(), code=str(folder)).version
    store.put_status(MODEL, encode_status(status), version=version)


# validate and apply


def test_a_valid_file_is_said_to_be_valid_without_running_the_users_code(run: Run) -> None:
    said = run("validate", "model.yaml")
    power = "a candidate as good as the champion needs about 108 outcomes at 50 % (error 0.1)"
    told, *words = said.out.splitlines()
    assert (said.status, told, words[0]) == (0, f"model.yaml is valid: it declares {MODEL}", power)
    assert "with rollout.shadow: true the candidate would be judged first on copies" in words[1]


def test_an_invalid_file_is_refused_with_file_line_and_path(run: Run, folder: Path) -> None:
    file = folder / "model.yaml"
    file.write_text(file.read_text().replace("cooldown: 5m", "cooldwn: 5m"))
    for command in (("validate", "model.yaml"), ("apply", "-f", "model.yaml")):
        said = run(*command)
        assert said.status == 2
        assert "model.yaml:" in said.err
        assert "spec.triggers.cooldwn" in said.err
        assert "did you mean cooldown?" in said.err
    assert stored(folder).ids() == set()


def windowed(folder: Path, *over: str) -> int:
    """Declare a window over these spans; returns what a row takes."""
    made = example_resource(features={"windows": [{"name": "seen", "agg": "count", "over": list(over)}]}, triggers={})
    (folder / "model.yaml").write_text(resource_yaml(made))
    return row_bytes(layout_of(made))


def test_validate_says_what_online_rows_take(run: Run, folder: Path) -> None:
    expected = windowed(folder, "1m", "1h")
    said = run("validate", "model.yaml")
    assert f"{expected:,} bytes, {expected / 1000:.1f} GB for a million entities" in said.out
    assert run("validate", "model.yaml", "-o", "json").data["online_row_bytes"] == expected


def test_rows_that_are_too_large_are_refused_with_the_window(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_ROW_BYTES", windowed(folder, "1m", "1h") - 1)
    for command in (("validate", "model.yaml"), ("apply", "-f", "model.yaml")):
        said = run(*command)
        assert (said.status, said.out) == (2, "")
        assert "an online row may take" in said.err
        assert "seen" in said.err
    assert stored(folder).ids() == set()


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    said = run("validate", "nowhere.yaml")
    assert (said.status, "nowhere.yaml" in said.err) == (3, True)


def test_a_class_whose_module_is_nowhere_is_refused(run: Run, folder: Path) -> None:
    file = folder / "model.yaml"
    file.write_text(file.read_text().replace("inspection.model:", "elsewhere.model:"))
    said = run("apply", "-f", "model.yaml")
    assert said.status == 2
    assert "no module elsewhere" in said.err


def test_apply_says_what_it_did_and_remembers_the_folder(run: Run, folder: Path) -> None:
    results = [run("apply", "-f", "model.yaml", "-o", "json").data["result"] for _ in range(2)]
    file = folder / "model.yaml"
    file.write_text(file.read_text().replace("cooldown: 5m", "cooldown: 6m"))
    results.append(run("apply", "-f", "model.yaml", "-o", "json").data["result"])
    assert results == ["created", "unchanged", "changed"]
    assert stored(folder).get(MODEL).code == str(folder)


def test_apply_without_a_stack_says_how_to_start_one(run: Run) -> None:
    said = run("apply", "-f", "model.yaml")
    assert (said.status, said.out) == (0, f"{MODEL} created\n")
    assert "tidemill up" in said.err


# get


def test_without_models_get_says_how_to_declare_one(run: Run) -> None:
    said = run("get")
    assert (said.status, "tidemill apply" in said.out) == (0, True)
    assert run("get", "-o", "json").data == []


def test_get_reads_like_a_sentence(run: Run, canary: LoopBench) -> None:
    champion, candidate = canary.status.champion, canary.status.candidate
    assert champion is not None
    assert candidate is not None
    head, row = run("get").out.splitlines()
    assert head.split() == ["name", "champion", "candidate", "traffic", "phase", "drift", "age"]
    cells = [cell.strip() for cell in row.split("  ") if cell.strip()]
    shares = [cell for cell in cells if "%" in cell]
    assert cells[:3] == ["phone-inspection", champion.version, candidate.version]
    assert shares in (["95 % / 5 %"], ["75 % / 25 %"])
    assert "Canary" in cells
    assert "brightness" in cells


def test_get_shows_a_resource_with_its_status(run: Run, canary: LoopBench) -> None:
    (item,) = run("get", "-o", "json").data
    assert item == run("get", "phone-inspection", "-o", "json").data
    assert yaml.safe_load(run("get", "phone-inspection", "-o", "yaml").out) == item
    assert (item["kind"], item["status"]["phase"]) == ("ContinualModel", "Canary")
    assert "annotations" not in item["metadata"]


def test_before_control_has_seen_it_a_model_is_pending(run: Run) -> None:
    run("apply", "-f", "model.yaml")
    assert "Pending" in run("get").out
    assert run("get", MODEL, "-o", "json").data["status"] is None
    assert "waits for control" in run("describe", "phone-inspection").out


@pytest.mark.parametrize("command", ["get", "describe", "delete", "predict"])
def test_an_unknown_model_is_named_with_those_that_there_are(run: Run, command: str) -> None:
    run("apply", "-f", "model.yaml")
    said = run(command, "phone-inspektion")
    assert said.status == 3
    assert "phone-inspektion" in said.err
    assert MODEL in said.err


def test_get_loads_no_vendor(folder: Path, canary: LoopBench) -> None:
    program = (
        "import sys; from tidemill.cli import main\ntry: main('get')\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=True)
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert "Canary" in ended.stdout
    assert not loaded & {"kafka", "redis", "polars", "deltalake", "mlflow", "feast", "numpy", "structlog"}


# describe and rollout status


def test_describe_tells_why(run: Run, canary: LoopBench) -> None:
    said = run("describe", "phone-inspection").out
    assert "brightness fell from 0.62 to 0.41" in said
    assert "evidence 1.5" in said
    for decision in canary.status.decisions:
        assert f"{decision.kind} {decision.subject}: {decision.reason}" in said
    assert "candidate_outcomes=" in said
    assert "e_promote=" in said
    assert "token" not in said


def test_describe_tells_why_no_run_starts_now(run: Run, folder: Path) -> None:
    bench = LoopBench()
    bench.labelled = 412
    keep(folder, bench.tick(10))
    said = run("describe", "phone-inspection")
    assert "the first run needs 1,000 labelled events; there are 412" in said.out
    reasons = run("describe", "phone-inspection", "-o", "json").data["why_not_retraining"]
    assert reasons == ["the first run needs 1,000 labelled events; there are 412"]


def test_describe_shows_the_run_with_its_step(run: Run, folder: Path) -> None:
    bench = LoopBench()
    bench.bootstrap()
    name = bench.ask("retrain", by="ada", reason="a drill", skip_gates=True).subject
    bench.claim(name)
    keep(folder, bench.tick())
    said = run("describe", "phone-inspection").out
    assert f"{name} (manual, by ada)" in said
    assert "at step claim, granted, its gates are skipped" in said


def test_describe_shows_what_could_not_be_done(run: Run, folder: Path) -> None:
    bench = LoopBench()
    bench.bootstrap()
    bench.driver.unavailable = True
    keep(folder, bench.tick(12))
    assert "traffic: the proxy does not answer" in run("describe", "phone-inspection").out


def test_a_rollouts_status_has_its_figures(run: Run, canary: LoopBench) -> None:
    said = run("rollout", "status", "phone-inspection")
    assert "steps 5 → 25 → 50 → 100 %" in said.out
    data = run("rollout", "status", "phone-inspection", "-o", "json").data
    assert data["progress"]["candidate_outcomes"] > 0
    assert data["rollout"]["plan"]["margin"] == 0.1


def test_a_report_says_how_much_the_versions_differ(run: Run, canary: LoopBench, folder: Path) -> None:
    plan = canary.status.rollout.plan if canary.status.rollout else None
    assert plan is not None
    assert plan.champion is not None
    rows = [
        {
            "prediction_id": f"p{number}",
            "revision": 0,
            "version": plan.candidate.name if number % 2 else plan.champion.name,
            "entity": "AB"[number // 2 % 2],
            "request_id": f"r{number}",
            "predicted_at": canary.clock.now(),
            "available_at": canary.clock.now(),
            "event_date": canary.clock.now().date(),
            "loss": float(number % 2 and number % 5 == 0),
        }
        for number in range(400)
    ]
    pl.DataFrame(rows).write_delta(str(folder / ".tidemill" / "lake" / f"{MODEL}.outcomes"))
    said = run("rollout", "report", "phone-inspection", "--by", "entity")
    assert said.status == 0, said.err
    assert "+0.2000" in said.out
    found = run("rollout", "report", "phone-inspection", "-o", "json").data
    (line,) = found["lifts"]
    assert line["lift"] == pytest.approx(0.2)
    assert line["interval"][0] < 0.2 < line["interval"][1]


def test_a_report_of_nothing_says_so(run: Run, folder: Path) -> None:
    bench = LoopBench()
    bench.bootstrap()
    keep(folder, bench.status)
    said = run("rollout", "report", "phone-inspection")
    assert said.status != 0
    assert "no rollout of phone-inspection is known that compared two versions" in said.err


def test_without_a_rollout_the_last_one_is_told(run: Run, folder: Path) -> None:
    bench = LoopBench()
    first = bench.bootstrap()
    keep(folder, bench.status)
    said = run("rollout", "status", "phone-inspection").out
    assert said.startswith("no rollout of phone-inspection is under way; the last one: promote " + first)


# Asking control


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, run: Run) -> list[Request]:
    """Control grants everything but an abort, and keeps what it was asked."""
    run("apply", "-f", "model.yaml")
    asked: list[Request] = []

    def answer(self: Local, resource: object, request: Request, *, deadline_s: float) -> Decision:
        asked.append(request)
        kind = "refuse" if request.kind == "abort" else "start-run"
        return Decision(
            decision_id="d",
            kind=kind,
            model=request.model,
            time=request.time,
            subject="r1",
            reason="no rollout is under way" if kind == "refuse" else "asked for by ada: a drill",
            answers=request.request_id,
        )

    monkeypatch.setattr(Local, "ask", answer)
    return asked


def test_retrain_asks_control_and_prints_the_answer(run: Run, control: list[Request]) -> None:
    said = run("retrain", "phone-inspection", "--reason", "a drill", "--skip-gates")
    assert (said.status, said.out) == (0, "start-run r1: asked for by ada: a drill\n")
    (request,) = control
    assert (request.kind, request.model) == ("retrain", MODEL)
    assert request.arguments == {"reason": "a drill", "force": False, "skip_gates": True}
    assert request.by
    assert run("retrain", "phone-inspection", "--reason", "x", "-o", "json").data["kind"] == "start-run"


def test_a_retrain_needs_a_reason(run: Run, control: list[Request]) -> None:
    assert run("retrain", "phone-inspection").status == 2
    assert control == []


def test_a_refusal_is_an_error_with_its_reason(run: Run, control: list[Request]) -> None:
    said = run("rollout", "abort", "phone-inspection", "--reason", "enough")
    assert (said.status, said.out) == (4, "")
    assert "control refused: no rollout is under way" in said.err


@pytest.mark.parametrize("kind", ["pause", "resume", "promote"])
def test_a_rollout_is_taken_into_ones_own_hands(run: Run, control: list[Request], kind: str) -> None:
    assert run("rollout", kind, "phone-inspection", "--reason", "so").status == 0
    assert [(request.kind, request.arguments["reason"]) for request in control] == [(kind, "so")]


def test_a_silent_control_is_told_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("apply", "-f", "model.yaml")
    assert "tidemill up" in run("retrain", "phone-inspection", "--reason", "x").err

    def silent(*_: object, **__: object) -> Decision:
        raise DeadlineExceeded("control is not answering")

    monkeypatch.setattr(Local, "ask", silent)
    said = run("retrain", "phone-inspection", "--reason", "x")
    assert (said.status, "control is not answering" in said.err) == (5, True)


def test_delete_forgets_the_model(run: Run, folder: Path) -> None:
    run("apply", "-f", "model.yaml")
    assert run("delete", "phone-inspection", "-o", "json").data == {"model": MODEL, "result": "deleted"}
    assert stored(folder).ids() == set()


# predict


class Endpoint(HTTPServer):
    """Answers predict requests with what it was asked, or with the status that a test sets."""

    asked: list[tuple[str, Any]]
    answer: tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        status, content = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    run("apply", "-f", "model.yaml")
    server = Endpoint(("127.0.0.1", 0), Handler)
    server.asked, server.answer = [], (200, {"predictions": [{"class": "scratch", "confidence": 0.93}]})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TIDEMILL_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_picture_is_sent_as_the_events_image(run: Run, endpoint: Endpoint, folder: Path) -> None:
    (folder / "phone.png").write_bytes(b"\x89PNG")
    said = run("predict", "phone-inspection", "--file", "phone.png", "--event", '{"station": "A"}')
    assert (said.status, json.loads(said.out)) == (0, {"class": "scratch", "confidence": 0.93})
    ((path, body),) = endpoint.asked
    assert path == "/v1/models/phone-inspection:predict"
    assert body == {"instances": [{"station": "A", "image": "iVBORw=="}]}


def test_an_event_is_read_from_a_json_file(run: Run, endpoint: Endpoint, folder: Path) -> None:
    (folder / "event.json").write_text('{"station": "A", "image": "iVBORw=="}')
    said = run("predict", "phone-inspection", "--file", "event.json", "-o", "json")
    assert said.data["class"] == "scratch"


@pytest.mark.parametrize(
    ("arguments", "said_by"),
    [
        ((), "nothing to predict"),
        (("--event", "{"), "not JSON"),
        (("--event", "[1]"), "must be a JSON object"),
        (("--event", '{"imgae": "x"}'), "has no field imgae"),
        (("--event", '{"station": "A"}'), "lacks image"),
        (("--event", '{"image": "x"}'), "lacks station"),
        (("--file", "nowhere.png"), "cannot be read"),
    ],
)
def test_what_is_no_event_is_refused_before_it_is_sent(
    run: Run, endpoint: Endpoint, arguments: tuple[str, ...], said_by: str
) -> None:
    said = run("predict", "phone-inspection", *arguments)
    assert said.status == 2
    assert said_by in said.err
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("answer", "status", "said_by"),
    [
        ((400, {"error": "image is no picture"}), 2, "image is no picture"),
        ((503, {"error": "no healthy upstream"}), 5, "no version serves yet"),
        ((404, "none"), 5, "no version serves yet"),
        ((500, {"error": "broken"}), 5, "answered 500"),
    ],
)
def test_an_answer_that_is_none_is_told(
    run: Run, endpoint: Endpoint, answer: tuple[int, Any], status: int, said_by: str
) -> None:
    endpoint.answer = answer
    said = run("predict", "phone-inspection", "--event", EVENT)
    assert (said.status, said_by in said.err) == (status, True)


def test_predict_without_a_stack_says_how_to_start_one(run: Run) -> None:
    run("apply", "-f", "model.yaml")
    said = run("predict", "phone-inspection", "--event", EVENT)
    assert (said.status, "tidemill up" in said.err) == (5, True)


# Words


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_ages_are_told_in_the_largest_unit(seconds: int, text: str) -> None:
    assert age(1_000_000, from_ms(1_000_000 + seconds * 1000)) == text


def test_figures_are_short_and_hold_no_token() -> None:
    figures = {"token": "secret", "weight": 25, "e": 37.123456, "skip": True, "long": "x" * 100, "none": None}
    assert figures_text(figures) == "weight=25  e=37.12  skip=true"


def test_a_status_survives_json(canary: LoopBench) -> None:
    status = canary.status
    assert msgspec.json.decode(encode_status(status), type=LoopStatus) == status
