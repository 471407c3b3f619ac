"""A training that is killed in the middle of an epoch, and the retry of its step."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.artifacts import verify
from tidemill.retrain import data, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import here
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import events_frame, tiny_resource

PROGRAM = """
import sys
from tidemill.retrain import data, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import here

place, grant = here(sys.argv[1]), Grant(run=sys.argv[2], token="t", expires_at=0)
digest = sys.argv[3] if len(sys.argv) > 3 else data.snapshot(place, grant).digest
snapshot = data.open_from(place, grant, digest)
version.train(place, grant, snapshot, checkpoint_s=0, tell=lambda words: print("told:", words))
print("snapshot:", digest)
"""


@pytest.fixture
def restless(site: Site) -> Site:
    model = {"codec": "tiny_model:Codec", "trainer": "restless_model:Trainer"}
    site.put(tiny_resource(site.resource.metadata.name, model=model))
    site.fill(events_frame(400))
    return site


def step(site: Site, *arguments: str, kill: int = 0) -> "subprocess.CompletedProcess[str]":
    """The step in a process of its own, which kills itself in batch `kill`."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, site.resource.id, *arguments],
        env={**os.environ, "TIDEMILL_STATE": str(site.state), "RESTLESS_KILL": str(kill)}
        | {"PYTHONPATH": f"{site.code}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def kept(site: Site) -> list[Path]:
    return list(site.version().parent.glob(".*.checkpoint.safetensors"))


@pytest.mark.slow
def test_a_retry_of_a_killed_step_makes_the_version_that_it_would_have_made(restless: Site) -> None:
    whole = step(restless, "whole")
    assert whole.returncode == 0, whole.stderr
    assert "told: epoch 4/4: loss" in whole.stdout
    digest = whole.stdout.split()[-1]
    killed = step(restless, RUN, digest, kill=2 * 11 + 6)  # 340 rows are 11 batches an epoch
    assert killed.returncode == -signal.SIGKILL
    assert not restless.version().exists()
    assert len(kept(restless)) == 1
    retried = step(restless, RUN, digest)
    assert retried.returncode == 0, retried.stderr
    assert "going on in epoch 3 after batch 5" in retried.stdout
    assert "epoch 2/4" not in retried.stdout
    files = [verify(restless.version(run)).files for run in ("whole", RUN)]
    assert files[0]["weights.safetensors"] == files[1]["weights.safetensors"]
    assert files[0]["model.onnx"] == files[1]["model.onnx"]
    assert kept(restless) == []


def test_a_checkpoint_of_a_run_that_was_given_up_goes_with_the_next_training(
    restless: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_STATE", str(restless.state))
    monkeypatch.syspath_prepend(restless.code)
    left = restless.version("given-up").with_name(".given-up.checkpoint.safetensors")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"weights")
    place, grant = here(restless.resource.id), Grant(run=RUN, token="t", expires_at=0)
    version.train(place, grant, data.snapshot(place, grant))
    assert kept(restless) == []
