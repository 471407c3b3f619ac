"""How fresh a view's online rows are, as Prometheus metrics: `features.freshness` is an SLO on the first of them.

    tidemill_feature_freshness_seconds{model, view}   now - the newest event time in the rows
    tidemill_feature_freshness_slo_ok{model, view}    1 where that is within features.freshness (with an SLO only)
    tidemill_online_delay_seconds{model, view}        from an event's arrival to its row: the slowest of each batch

The gauges are worked out when they are read, so that a worker that stands still is seen to. Of several workers of a
view each tells of what it wrote itself: take the minimum of the first, the maximum of the second.
"""

from datetime import datetime, timedelta

from prometheus_client import Gauge, Histogram

from tidemill.core.clock import Clock
from tidemill.core.telemetry import REGISTRY

__all__ = ["Freshness"]

_LABELS = ["model", "view"]

_AGE = Gauge(
    "tidemill_feature_freshness_seconds",
    "Age of the newest event in the online rows.",
    _LABELS,
    registry=REGISTRY,
)
_HOLDS = Gauge("tidemill_feature_freshness_slo_ok", "1 while features.freshness is kept.", _LABELS, registry=REGISTRY)
_DELAY = Histogram(
    "tidemill_online_delay_seconds",
    "From arrival to the online row: the slowest event of each batch.",
    _LABELS,
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
    registry=REGISTRY,
)


class Freshness:
    """What one writer knows of one view. Nothing is told before its first row.

    Args:
        model: `<namespace>.<name>`.
        view: name of the view.
        slo: the age that is allowed; None: there is no SLO.
        clock: the time.
    """

    def __init__(self, model: str, view: str, slo: timedelta | None, clock: Clock) -> None:
        self._labels = (model, view)
        self._slo = slo
        self._clock = clock
        self._newest: datetime | None = None

    def wrote(self, *, newest: datetime, arrived: datetime) -> None:
        """Rows were written: of events up to `newest` (event time), the first of which had `arrived` (both aware)."""
        if self._newest is None:
            self._newest = newest
            _AGE.labels(*self._labels).set_function(self.age_s)
            if self._slo is not None:
                _HOLDS.labels(*self._labels).set_function(self._holds)
        self._newest = max(self._newest, newest)
        _DELAY.labels(*self._labels).observe(max(0.0, (self._clock.now() - arrived).total_seconds()))

    def age_s(self) -> float:
        """Age of the newest event in the rows, in seconds; not a number before there is one."""
        return float("nan") if self._newest is None else (self._clock.now() - self._newest).total_seconds()

    def _holds(self) -> float:
        return float(self._slo is not None and self.age_s() <= self._slo.total_seconds())
