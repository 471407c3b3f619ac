"""Logs for people and programs, and the process's Prometheus registry.

A metric's name starts with `tidemill_` and ends with its unit, and it says what it is. A label's values are few and
known beforehand: models, versions, partitions, names that a resource declares (`bounded`), kinds and states. An
entity, the id of a prediction, a label's value or any free text is never one.
"""

import logging
import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import cast

import structlog
from prometheus_client import CollectorRegistry, Gauge, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from tidemill.core.settings import Settings

__all__ = ["MOST", "REGISTRY", "REST", "Spread", "bounded", "get_logger", "set_all", "setup_logging"]

MOST = 50
"""Names of a resource that have a series of their own, in one metric."""
REST = "(rest)"
"""The label's value of all others."""


class _Build(Collector):
    """`tidemill_build_info`: which version runs. Looked up when it is first read: few processes are ever asked."""

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("tidemill_build", "Which version of Tidemill runs, and on which Python.", value=_build())


@cache
def _build() -> dict[str, str]:
    try:
        ours = version("tidemill")
    except PackageNotFoundError:  # run from its sources
        ours = "unknown"
    return {"version": ours, "python": platform.python_version()}


disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a second series for nobody
REGISTRY = CollectorRegistry()
"""Metrics of this process; names start with `tidemill_`. On Linux its processor time and memory are among them."""
ProcessCollector(namespace="tidemill", registry=REGISTRY)
REGISTRY.register(_Build())


class Spread(Collector):
    """A histogram that takes many values at once, at a fifth of what one after another costs. Used by one thread.

    Args:
        name: of the metric.
        documentation: what it is.
        bounds: upper bounds of its buckets, rising.
        registry: where it is told.
    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name, self._documentation, self._bounds = name, documentation, tuple(bounds)
        self._counts, self._sum = [0] * (len(self._bounds) + 1), 0.0
        registry.register(self)

    def add(self, values: Iterable[float]) -> None:
        """Count values; a bucket holds what is at most its bound."""
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def collect(self) -> Iterator[Metric]:
        """The histogram as it stands."""
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


def bounded(names: Iterable[str], most: int = MOST) -> Callable[[str], str]:
    """A label's value for each name: itself for the first `most` of the names, `REST` for all others."""
    own = frozenset(list(dict.fromkeys(names))[:most])
    return lambda name: name if name in own else REST


def set_all(gauge: Gauge, model: str, label: str, values: Mapping[str, float]) -> None:
    """Set a gauge of the labels `model` and `label`: these series of the model, and no others any more."""
    for sample in next(iter(gauge.collect())).samples:
        if sample.labels["model"] == model and sample.labels[label] not in values:
            gauge.remove_by_labels({"model": model, label: sample.labels[label]})
    for name, value in values.items():
        gauge.labels(**{"model": model, label: name}).set(value)


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
