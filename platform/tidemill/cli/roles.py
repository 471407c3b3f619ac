"""The roles: the processes of the loop, as the supervisor, or a chart, starts them. Each ends on SIGTERM or SIGINT."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from tidemill.core.exposition import note_metrics, serve_metrics
from tidemill.core.settings import load_settings
from tidemill.core.telemetry import REGISTRY, setup_logging
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.wiring import Local, cluster, local

__all__ = ["alerts", "register"]

ResourceFile = Annotated[Path, typer.Option("--resource", help="YAML file of the ContinualModel.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module. The role `alerts` is `tidemill alerts run` (`tidemill.cli.alerts`)."""
    for command in (ingest, outcomes, watch, serve, feedback, control, operator):
        app.command()(command)


def ingest(resource: ResourceFile) -> None:
    """Role: take in events; validate, keep in the lake, update online rows, sketch."""
    machine, model = _begin("ingest", resource)
    machine.ingest(model, _stop_event())


def outcomes(resource: ResourceFile) -> None:
    """Role: resolve labels, join them with predictions."""
    machine, model = _begin("outcomes", resource)
    machine.outcomes(model, _stop_event())


def watch(resource: ResourceFile) -> None:
    """Role: watch inputs, answers, labels and losses for drift."""
    machine, model = _begin("watch", resource)
    machine.watch(model, _stop_event())


def alerts(resource: ResourceFile) -> None:
    """Role: tell people what the watch signals and control decides."""
    machine, model = _begin("alerts", resource)
    machine.alerts(model, _stop_event())


def serve(
    resource: ResourceFile,
    version: Annotated[str, typer.Option(help="The version's id.")],
    artifact: Annotated[str, typer.Option(help="Folder of the version's files.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the interface of the setting serve_host.")],
) -> None:
    """Role: serve one version of a model."""
    machine, model = _begin("serve", resource)
    # KServe tells them with its own, where it answers requests.
    process = f"{model.id}-serve-{version}"
    note_metrics(machine.settings.state, process, f"127.0.0.1:{port}", role="serve", model=model.id)
    machine.serve(model, version=version, artifact=artifact, port=port)


def feedback(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the interface of the setting feedback_host.")],
) -> None:
    """Role: take in labels of every model over HTTP."""
    settings, _ = load_settings()
    setup_logging(settings, "feedback")
    serve_metrics(settings, "feedback", REGISTRY)
    local(settings).feedback(port)


def control() -> None:
    """Role: run the loop of every model: decide, and make it so."""
    settings, _ = load_settings()
    setup_logging(settings, "control")
    serve_metrics(settings, "control", REGISTRY)
    local(settings).control(_stop_event())


def operator() -> None:
    """Role: run the loop of every model of a cluster, or of one namespace, over its API server."""
    settings, _ = load_settings()
    setup_logging(settings, "operator")
    serve_metrics(settings, "operator", REGISTRY)
    cluster(settings).operator(_stop_event())


def _begin(role: str, file: Path) -> tuple[Local, ContinualModel]:
    settings, _ = load_settings()
    setup_logging(settings, role)
    model = load(file)
    if role != "serve":
        serve_metrics(settings, f"{model.id}-{role}", REGISTRY, role=role, model=model.id)
    return local(settings), model


def _stop_event() -> threading.Event:
    """An event that is set by SIGTERM and SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
