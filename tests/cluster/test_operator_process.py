"""`tidemill operator` as its own process with the chart's rights: real Kafka, MLflow and KServe; people use the CLI.

A gateway is played, and so are KFP's API and the steps of its pipeline.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.control.ask import ask
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.provision import topics_of
from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.records import Decision, Request
from tidemill.registry.mlflow import MlflowRegistry
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing import eventually
from tidemill.testing.control_plane import NAMESPACE, ControlPlane
from tidemill.testing.kfp import KfpApi
from tidemill.testing.kserve import PlayedGateway
from tidemill.testing.loop import example_resource
from tidemill.testing.operator_plane import in_namespace, operator_rights
from tidemill.testing.process import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # MLflow's own
]

SOON_S = 90
"""What takes some seconds on a machine that has nothing else to do."""


class Site:
    """One namespace with one model, and all who take part."""

    def __init__(self, plane: ControlPlane, kafka: str, kfp: KfpApi, folder: Path) -> None:
        self.plane, self.kafka, self.kfp, self.folder = plane, kafka, kfp, folder
        self.namespace, self.clock = plane.namespace("whole"), SystemClock()
        self.gateway = PlayedGateway(plane.admin.as_manager("played"), self.namespace)
        spec = {"rollout": {"approval": "required", "steps": [{"weight": 5}, {"weight": 100}]}}
        self.resource = in_namespace(example_resource("phones", **spec), self.namespace)
        self.mlflow = f"sqlite:///{folder / 'mlflow.db'}"
        self.registry = MlflowRegistry(self.mlflow)

    def operator(self) -> ProcessWanted:
        (metrics,) = free_ports(1)
        env = {
            "KUBECONFIG": str(operator_rights(self.plane, self.namespace).kubeconfig),
            "TIDEMILL_NAMESPACE": self.namespace,
            "TIDEMILL_KAFKA": self.kafka,
            "TIDEMILL_REDIS": "redis://redis.example:6379/0",
            "TIDEMILL_KFP": self.kfp.url,
            "TIDEMILL_MLFLOW": self.mlflow,
            "TIDEMILL_GATEWAY": "gateways/public",
            "TIDEMILL_STATE": str(self.folder / "state"),
            "TIDEMILL_METRICS_PORT": str(metrics),
        }
        argv = (sys.executable, "-m", "tidemill.cli", "operator")
        return ProcessWanted(name="operator", argv=argv, env=env, ready=f"http://{HOST}:{metrics}/metrics")

    def cli(self, *arguments: str) -> Any:
        """What `tidemill --context plane ARGUMENTS phones` prints as JSON."""
        named = [*arguments, f"{self.namespace}.phones", "--output", "json"]
        command = [sys.executable, "-m", "tidemill.cli", "--context", "plane", *named]
        env = os.environ | {"KUBECONFIG": str(self.plane.kubeconfig)}
        run = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=SOON_S)
        assert run.returncode == 0, f"{arguments}: {run.stderr[-2000:]}"
        return json.loads(run.stdout)

    def status(self) -> dict[str, Any]:
        self.gateway.play()
        found = self.plane.admin.get(MODEL, self.namespace, "phones") or {}
        status: dict[str, Any] = found.get("status", {})
        return status

    def until(self, **wanted: str) -> None:
        eventually(lambda: wanted.items() <= self.status().items(), SOON_S, every_s=0.1)

    def pipeline(self, known: int) -> str:
        """The steps of the run after `known` others: it claims, registers its version, and proposes it."""
        eventually(lambda: len(self.kfp.runs) > known, SOON_S)
        run = str(list(self.kfp.runs.values())[-1]["display_name"])
        self.kfp.show(run, "RUNNING", step="claim")
        grant = self.says("claim", run, reason="a person's")
        self.registry.register(self.resource.id, run, f"s3://models/{run}")
        given = {"token": grant.figures["token"], "version": run, "artifact": f"s3://models/{run}"}
        assert self.says("propose", run, **given).kind == "start-rollout"
        self.kfp.show(run, "SUCCEEDED")
        return run

    def says(self, kind: Any, run: str, **arguments: Any) -> Decision:
        request = Request(
            request_id=f"{run}-{kind}",
            kind=kind,
            model=self.resource.id,
            time=to_ms(self.clock.now()),
            by="pipeline",
            arguments={"run": run, **arguments},
        )
        return ask(self.kafka, topics_of(self.resource), request, clock=self.clock, deadline_s=SOON_S)


@pytest.fixture
def site(kserve: ControlPlane, kafka: str, tmp_path: Path) -> Iterator[Site]:
    kfp = KfpApi()
    found = Site(kserve, kafka, kfp, tmp_path)
    with running(found.operator(), tmp_path):
        said = found.resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
        kserve.admin.as_manager("kubectl").apply(said, MODEL)
        yield found
    kserve.admin.delete(NAMESPACE, None, found.namespace)
    kfp.close()


def test_people_take_a_model_through_its_versions_with_the_cli_alone(site: Site) -> None:
    site.until(phase="Bootstrapping")
    assert site.cli("retrain", "--reason", "a first version")["kind"] == "start-run"
    first = site.pipeline(0)
    site.until(phase="Serving", traffic=f"{first} 100 %")
    assert site.cli("get")["status"]["champion"]["version"] == first
    assert first in site.plane.kubectl("get", "events", "--namespace", site.namespace)

    site.cli("retrain", "--reason", "a better one", "--force")
    second = site.pipeline(1)
    site.until(phase="AwaitingApproval")
    assert site.cli("rollout", "approve", "--reason", "looks good")["kind"] == "approve"
    site.until(traffic=f"{first} 95 %, {second} 5 %")
    assert site.cli("rollout", "pause")["kind"] == "pause"
    assert site.cli("rollout", "abort", "--reason", "after all not")["kind"]
    site.until(traffic=f"{first} 100 %")
    assert site.cli("describe")
