"""The role as the supervisor starts it: killed while a service hangs, it tells the next time, and says no secret."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.alerts.receiver import receiver
from tests.alerts.test_worker import SECRET, World

from tidemill.control.store import resource_yaml
from tidemill.core.exposition import metrics_addresses, read_metrics
from tidemill.testing import eventually

pytestmark = pytest.mark.kafka


@contextmanager
def role(folder: Path, kafka: str, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`tidemill alerts run`, with its most talkative log in `folder`."""
    settings = {"TIDEMILL_KAFKA": kafka, "TIDEMILL_LOG_LEVEL": "debug", "TIDEMILL_STATE": str(folder)}
    argv = (sys.executable, "-m", "tidemill.cli", "alerts", "run", "--resource", "model.yaml")
    with (folder / "log").open("ab") as log:
        env = {**os.environ, **settings, **environ}
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # as the supervisor does: what it started does not outlive it
        process.wait(20)


@pytest.mark.slow
def test_a_role_that_is_killed_while_a_service_hangs_tells_the_next_time(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    world = World(kafka, topic_prefix)
    (tmp_path / "model.yaml").write_text(resource_yaml(world.resource))
    world.decide("promote", "r1")
    world.signal("brightness")
    world.writer.close()
    with receiver() as service:
        service.hangs = True
        with role(tmp_path, kafka, ONCALL_URL=service.url(SECRET)):
            eventually(lambda: service.requests, 60)
        service.hangs = False
        with role(tmp_path, kafka, ONCALL_URL=service.url(SECRET)) as process:
            eventually(lambda: service.messages, 60)
            metrics = read_metrics(metrics_addresses(tmp_path)[f"{world.resource.id}-alerts", process.pid])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    assert [one["title"] for one in service.messages] == [f"{world.resource.id}: brightness drifted, r1 serves"]
    opened = {labels["kind"]: value for labels, value in metrics["tidemill_alerts_open"]}
    assert opened["drift"] == 1
    assert SECRET not in str(metrics)
    assert SECRET not in (tmp_path / "log").read_text()
