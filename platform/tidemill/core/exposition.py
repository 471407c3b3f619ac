"""Metrics over HTTP: told to Prometheus by each role, found and read by commands. Commands load no vendor for it."""

import os
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.files import write_atomically
from tidemill.core.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Metrics", "metrics_addresses", "read_metrics", "serve_metrics"]

Metrics = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""By the sample's name, each with its labels and value."""

_HOST = "127.0.0.1"
_READ_S = 2.0


def serve_metrics(settings: Settings, process: str, registry: "CollectorRegistry") -> str | None:
    """Tell Prometheus this process's metrics from now on, by the setting `metrics_port`; returns the address.

    A port that was chosen freely is noted in `<state>/metrics/<process>`, for `tidemill status`. Raises
    `InvalidInput` where the port is taken.
    """
    if settings.metrics_port == "off":
        return None
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(settings.metrics_port, addr=_HOST, registry=registry)
    except OSError as error:
        raise InvalidInput(
            f"metrics cannot be told at port {settings.metrics_port}: {error.strerror}",
            hint="set metrics_port to 0, and a free one is chosen",
        ) from error
    address = f"{_HOST}:{server.server_port}"
    folder = _folder(settings.state)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / process, f"{os.getpid()} {address}")
    return address


def metrics_addresses(state: Path) -> dict[tuple[str, int], str]:
    """Where processes tell their metrics, by name and process id; some may have ended since."""
    found = {}
    for file in _folder(state).glob("[!.]*"):
        pid, _, address = file.read_text().partition(" ")
        found[file.name, int(pid)] = address
    return found


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


def _folder(state: Path) -> Path:
    return state / "metrics"
