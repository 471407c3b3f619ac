"""The features of the user's own FeatureService for a prediction, or plainly absent: an answer never waits for them.

Feast's stores have no deadline of their own, so all that Feast does here it does in one thread, which an answer
leaves behind when its time is up. Until that thread is done, and for a moment after a failure, none is asked.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from prometheus_client import Counter

from tidemill.core.clock import Clock
from tidemill.core.errors import TidemillError
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.features.service import PRESENT, ServiceRow
from tidemill.serving.features import UNAVAILABLE, FeatureRow
from tidemill.serving.rows import RequestRow
from tidemill.spec.model import Entity

__all__ = ["ServiceFeatures", "ServiceSource"]

TIMEOUT_S = 0.5
"""Feast's own read takes about 10 ms; beyond this the answer goes without."""
_FIRST_S = 30.0
"""The first read opens connections and loads what is loaded late."""
_PAUSE_S = 1.0

_READS = Counter(
    "tidemill_service_features_total", "A FeatureService's values, by status.", ["status"], registry=REGISTRY
)

_log = get_logger(__name__)


class ServiceSource(Protocol):
    """An open FeatureService; `tidemill.features.service.RepositoryService` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features."""
        ...

    def online(self, rows: Sequence[Mapping[str, Any]], now: Any) -> list[ServiceRow]:
        """A row of features for each row of events' fields; raises a `TidemillError` where it cannot."""
        ...


class ServiceFeatures:
    """Reads a service. Used by one thread; the service by another one, which also opens it.

    Args:
        connect: opens the service; what it raises is raised here.
        entity: of the resource.
        clock: the time, for ttl and pauses.
        timeout_s: longest time that an answer waits.
    """

    def __init__(
        self, connect: Callable[[], ServiceSource], entity: Entity, *, clock: Clock, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._entity, self._clock, self._timeout_s = entity, clock, timeout_s
        self._thread = ThreadPoolExecutor(1, "feast")
        self._service = self._thread.submit(connect).result()
        self._reading: Future[list[ServiceRow]] | None = None
        self._patience_s = _FIRST_S
        self._not_before = 0.0

    def of(self, rows: Sequence[RequestRow]) -> list[FeatureRow]:
        """One row of features per row, in order. Never raises for a store that does not answer."""
        if self._clock.monotonic() < self._not_before or (self._reading and not self._reading.done()):
            return self._absent(rows)
        wanted = [{**row.values, self._entity.name: self._key(row.entity)} for row in rows]
        self._reading = self._thread.submit(self._service.online, wanted, self._clock.now())
        patience_s, self._patience_s = self._patience_s, self._timeout_s
        try:
            found = self._reading.result(patience_s)
        except (TidemillError, TimeoutError) as error:
            reason = error.message if isinstance(error, TidemillError) else f"no answer within {patience_s:g} s"
            if not self._not_before:  # an outage is told once
                _log.warning("answering without the FeatureService's features", reason=reason)
            self._not_before = self._clock.monotonic() + _PAUSE_S
            return self._absent(rows)
        self._not_before = 0.0
        return [_row(one) for one in found]

    def _key(self, entity: str) -> str | int:
        return int(entity) if self._entity.type == "int" else entity

    def _absent(self, rows: Sequence[RequestRow]) -> list[FeatureRow]:
        names = self._service.names
        _READS.labels(UNAVAILABLE).inc(len(rows) * len(names))
        statuses = dict.fromkeys(names, UNAVAILABLE)
        return [FeatureRow(dict.fromkeys(names), statuses=statuses) for _ in rows]


def _row(found: ServiceRow) -> FeatureRow:
    for status in found.statuses.values():
        _READS.labels(status).inc()
    absent = {name: status for name, status in found.statuses.items() if status != PRESENT}
    return FeatureRow(found.values, statuses=absent)
