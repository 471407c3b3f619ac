"""Logs for people and programs, and the process's Prometheus registry."""

import logging
import sys
from typing import cast

import structlog
from prometheus_client import CollectorRegistry

from tidemill.core.settings import Settings

__all__ = ["REGISTRY", "get_logger", "setup_logging"]

REGISTRY = CollectorRegistry()
"""Metrics of this process; names start with `tidemill_`."""


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
