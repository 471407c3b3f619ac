"""feature_store/ under Feast's own commands: definitions, UI and Python server, over rows of ingest's code."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.features.test_feast import REPOSITORY, VALUES, Installation

from tidemill.features.online import OnlineReader
from tidemill.features.project import project_name
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing import eventually

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

FEAST = ["-m", "feast.cli.cli", "-c", str(REPOSITORY)]


def ours(redis_url: str, model: str, entity: str) -> dict[str, Any]:
    """The entity's values as our own reader has them."""
    reader = OnlineReader(redis_url, model)
    try:
        return reader.read([entity])[0].values
    finally:
        reader.close()


@pytest.fixture
def site(tmp_path: Path, redis_url: str, topic_prefix: str) -> Installation:
    made = Installation(tmp_path, redis_url, topic_prefix)
    made.fill({"A": VALUES})
    made.run(*FEAST, "apply")
    return made


@contextmanager
def running(site: Installation, *arguments: str, folder: Path, path: str) -> Iterator[httpx.Client]:
    """Run a command of Feast's until the block ends, from when it answers at `path` on loopback."""
    (port,) = free_ports(1)
    log = folder / f"{arguments[0]}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *FEAST, *arguments, "--host", HOST, "--port", str(port)],
            env={**os.environ, **site.environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    client = httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=30)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers, 180)
        yield client
    finally:
        client.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait(10)


def test_feasts_commands_show_what_the_resource_declares(site: Installation) -> None:
    shown = {kind: site.run(*FEAST, kind, "list") for kind in ("feature-views", "entities", "feature-services")}
    assert "events" in shown["feature-views"]
    assert "station" in shown["entities"]
    assert project_name(site.id) in shown["feature-services"]


def test_feasts_python_server_answers_with_the_rows_that_our_reader_has(
    site: Installation, tmp_path: Path, redis_url: str
) -> None:
    body = {"feature_service": project_name(site.id), "entities": {"station": ["A", "nobody"]}}
    # Without it the worker is started anew every 1,000 requests, and requests wait for its import.
    with running(site, "serve", "--max-requests", "0", folder=tmp_path, path="/health") as server:
        answer = server.post("/get-online-features", json=body)
        assert answer.status_code == 200, answer.text
        found = dict(zip(answer.json()["metadata"]["feature_names"], answer.json()["results"], strict=True))
        site.fill({"A": VALUES | {"shift": 3}})
        again = server.post("/get-online-features", json=body).json()
    have = ours(redis_url, site.id, "A")
    assert {name: found[name]["values"][0] for name in VALUES} == VALUES == have | {"shift": 2}
    assert found["shift"]["statuses"] == ["PRESENT", "NOT_FOUND"]
    names = again["metadata"]["feature_names"]
    assert again["results"][names.index("shift")]["values"] == [3, None], "an answer came from a cache"


def test_feasts_ui_shows_the_features_on_loopback(site: Installation, tmp_path: Path) -> None:
    if find_spec("grpc_health") is None:
        pytest.skip("pip install 'feast[grpcio]==0.67.0': `feast ui` does not start without it")
    project = project_name(site.id)
    with running(site, "ui", folder=tmp_path, path="/") as page:
        assert 'id="root"' in page.get("/").text
        assert [one["id"] for one in page.get("/projects-list.json").json()["projects"]] == [project]
        views = page.get("/api/v1/feature_views", params={"project": project}).json()["featureViews"]
    (view,) = [one["spec"] for one in views if one["spec"]["name"] == "events"]
    assert set(VALUES) <= {feature["name"] for feature in view["features"]}
