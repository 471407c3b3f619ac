"""Logs for people and programs, and the process's Prometheus registry: told over HTTP, and where."""

import logging
import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.files import write_atomically
from tidemill.core.settings import Settings

__all__ = ["REGISTRY", "Metrics", "get_logger", "metrics_addresses", "read_metrics", "serve_metrics", "setup_logging"]

REGISTRY = CollectorRegistry()
"""Metrics of this process; names start with `tidemill_`."""

Metrics = Mapping[str, list[tuple[Mapping[str, str], float]]]
"""By the sample's name, each with its labels and value."""

_HOST = "127.0.0.1"
_READ_S = 2.0


def setup_logging(settings: Settings, role: str) -> None:
    """Send structured logs to stderr, each line with its role. Library logs below warning are dropped."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s", force=True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `name` as their `source`."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(source=name))


def serve_metrics(settings: Settings, process: str) -> str | None:
    """Tell this process's metrics to Prometheus from now on, by the setting `metrics_port`; returns the address.

    A port that was chosen freely is noted in `<state>/metrics/<process>`, for `tidemill status`. Raises
    `InvalidInput` where the port is taken.
    """
    if settings.metrics_port == "off":
        return None
    try:
        server, _ = start_http_server(settings.metrics_port, addr=_HOST, registry=REGISTRY)
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
