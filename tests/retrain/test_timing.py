"""Versions are timed in the real server, which is over afterwards; and one that is too slow is stopped by that gate."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.retrain.test_worse import FIRST, next_grant, place_of, trained, verdicts

from tidemill.evaluation.scoring import Timing
from tidemill.retrain import timing
from tidemill.retrain.timing import requests_of, time_server
from tidemill.testing.retrain import Site
from tidemill.testing.training import tiny_resource

GATES = {"fresh": {"rows": 60, "margin": 0.05}, "latency": {"p99": "100ms"}}
CODECS = """
import os, time, tiny_model

class Slow(tiny_model.Codec):
    def decode(self, outputs):
        time.sleep(0.11)
        return super().decode(outputs)

class Dying(tiny_model.Codec):
    def decode(self, outputs):
        if "serve" in __import__("sys").argv and len(outputs["logits"]) == 1:
            Dying.seen = getattr(Dying, "seen", 0) + 1
            if Dying.seen == 5:
                print("error: it cannot go on", flush=True)
                os._exit(9)
        return super().decode(outputs)

class Hanging(tiny_model.Codec):
    def decode(self, outputs):
        if len(outputs["logits"]) == 1:
            time.sleep(600)
        return super().decode(outputs)
"""


@pytest.fixture(autouse=True)
def _code(filled: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's code, for this process and for the servers that it starts."""
    (tmp_path / "codecs_of_test.py").write_text(CODECS)
    for folder in (filled.code, tmp_path):
        monkeypatch.syspath_prepend(folder)
    known = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(filled.code), *known]))


def with_codec(site: Site, codec: str) -> None:
    model = {"codec": codec, "trainer": "tiny_model:Trainer"}
    site.put(tiny_resource(site.resource.metadata.name, model=model, gates=GATES))


def timed(site: Site) -> Timing:
    taken = trained(site, FIRST)
    return time_server(place_of(site), FIRST.run, site.version(), requests_of(taken.frame(), site.resource))


@pytest.mark.slow
def test_a_model_that_became_far_slower_is_refused_by_the_gate_of_latency_and_no_other(filled: Site) -> None:
    with_codec(filled, "tiny_model:Codec")
    first = verdicts(filled, FIRST, trained(filled, FIRST))["latency"]
    assert first.passed is True, first.reason
    assert first.figures["requests"] == 1000

    with_codec(filled, "codecs_of_test:Slow")
    granted = next_grant(filled)
    found = verdicts(filled, granted, trained(filled, granted))
    assert found["answers"].passed is True
    assert found["latency"].passed is False
    assert "(the champion's " in found["latency"].reason
    assert "above the limit of 100 ms" in found["latency"].reason
    assert not (filled.state / "serving").exists()


def test_a_server_that_dies_says_at_which_request_and_its_last_words(filled: Site) -> None:
    with_codec(filled, "codecs_of_test:Dying")
    found = timed(filled)
    assert found.ready_after_s is not None
    assert found.problem == "request 5 had no answer: the server ended: it cannot go on"


def test_a_server_that_hangs_is_not_waited_for_and_is_ended_all_the_same(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_ANSWER_S", 0.5)
    monkeypatch.setattr(timing, "_END_S", 0.5)
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with_codec(filled, "codecs_of_test:Hanging")
    assert timed(filled).problem == "request 1 had no answer within 0.5 s"
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_a_server_that_cannot_start_says_why(filled: Site) -> None:
    with_codec(filled, "tiny_model:Codec")
    taken = trained(filled, FIRST)
    found = time_server(place_of(filled), "r9", filled.version(), requests_of(taken.frame(), filled.resource))
    assert found.ready_after_s is None
    assert found.problem.startswith("the server ended before it was ready: ")
    assert "holds version r20260101-120000, not r9" in found.problem
