"""Metrics over HTTP: told to Prometheus by each role, found and read by commands. Commands load no vendor for it.

<state>/metrics/<process>            where a process tells its metrics, written by itself
<state>/prometheus/targets.json      all of them, for Prometheus (`file_sd_configs`), kept by `tidemill up`
"""

import json
import os
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.files import write_atomically
from tidemill.core.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = [
    "Metrics",
    "Told",
    "forget_metrics",
    "metrics_addresses",
    "metrics_told",
    "note_metrics",
    "read_metrics",
    "serve_metrics",
    "write_targets",
]

Metrics = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""By the sample's name, each with its labels and value."""

_READ_S = 2.0


class Told(NamedTuple):
    """Where a process tells its metrics, and who it is."""

    process: str
    pid: int
    address: str
    role: str
    model: str = ""
    """Id of the model that it works for; none for those that work for all."""


def serve_metrics(
    settings: Settings, process: str, registry: "CollectorRegistry", *, role: str = "", model: str = ""
) -> str | None:
    """Tell Prometheus this process's metrics from now on, by the setting `metrics_port`; returns the address.

    The address is noted (`note_metrics`). Raises `InvalidInput` where the port is taken.
    """
    if settings.metrics_port == "off":
        return None
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=registry)
    except OSError as error:
        raise InvalidInput(
            f"metrics cannot be told at port {settings.metrics_port}: {error.strerror}",
            hint="set metrics_port to 0, and a free one is chosen",
        ) from error
    address = f"{settings.metrics_host}:{server.server_port}"
    note_metrics(settings.state, process, address, role=role or process, model=model)
    return address


def note_metrics(state: Path, process: str, address: str, *, role: str, model: str = "") -> None:
    """Note where this process tells its metrics, for whoever wants to read them."""
    folder = _folder(state)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / process, f"{os.getpid()} {address} {role} {model}")


def forget_metrics(state: Path, process: str) -> None:
    """Forget a process that is not to run any more."""
    (_folder(state) / process).unlink(missing_ok=True)


def metrics_told(state: Path) -> list[Told]:
    """Where processes tell their metrics, by name; some may have ended since."""
    found = []
    for file in sorted(_folder(state).glob("[!.]*")):
        try:
            pid, address, role, model = (*file.read_text().split(), "", "")[:4]
        except FileNotFoundError:  # forgotten just now
            continue
        found.append(Told(file.name, int(pid), address, role, model))
    return found


def metrics_addresses(state: Path) -> dict[tuple[str, int], str]:
    """Where processes tell their metrics, by name and process id; some may have ended since."""
    return {(one.process, one.pid): one.address for one in metrics_told(state)}


def read_metrics(address: str) -> Metrics:
    """What a process tells; raises `Unavailable` where it does not answer."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_READ_S) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise Unavailable(f"the metrics at {address} do not answer: {error}") from error
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def write_targets(state: Path, processes: Collection[str]) -> None:
    """Tell Prometheus where those of these processes are that told an address, in one atomic write.

    One that has died stays, at its last address, for as long as it is wanted: a target that vanished would let the
    alert on its death fall silent.
    """
    targets = [
        {"targets": [one.address], "labels": {"process": one.process, "role": one.role, "model": one.model}}
        for one in metrics_told(state)
        if one.process in processes
    ]
    file = state / "prometheus" / "targets.json"
    text = json.dumps(targets, indent=1)
    if not file.is_file() or file.read_text() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)


def _folder(state: Path) -> Path:
    return state / "metrics"
