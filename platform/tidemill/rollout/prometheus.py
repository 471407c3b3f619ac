"""Requests, errors and latency of versions on a cluster, as a Prometheus has scraped them from their pods.

Only what a server has counted itself is seen: a request that no server answered is the gateway's to tell, and shows
here as a version that is not ready.
"""

import math
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from tidemill.core.clock import Clock
from tidemill.core.errors import Unavailable
from tidemill.core.settings import masked

__all__ = ["Counted", "RevisionMetrics", "counts_of"]

_PAUSE_S = 30.0
_WINDOW = "1m"
"""Of the latency; at least two scrapes lie in it."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the pods of one version have counted since they started. `p99_ms` is over the last minute."""

    requests: int = 0
    errors: int = 0
    p99_ms: float | None = None


class RevisionMetrics:
    """Asks one Prometheus (or whatever answers its HTTP API), for all models.

    After it has not answered, it is not asked for half a minute: every model's turn would else wait for it.
    """

    def __init__(self, url: str, *, clock: Clock, timeout_s: float = 2.0) -> None:
        self._url, self._clock, self._silent_until = url, clock, 0.0
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout_s)

    def counted(self, namespace: str, pods: Mapping[str, str]) -> dict[str, Counted]:
        """What is counted, by version; `pods` is a pattern (RE2) of the names of those that serve it.

        Raises `Unavailable` where Prometheus does not answer.
        """
        return {version: self._counted(f'namespace="{namespace}",pod=~"{name}"') for version, name in pods.items()}

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def _counted(self, pods: str) -> Counted:
        # Of a pod that has ended nothing is counted: a sum that falls is a new start to whoever reads it.
        results = self._ask(f"sum by (result) (tidemill_predict_requests_total{{{pods}}})")
        by_result = {one["metric"].get("result", ""): round(float(one["value"][1])) for one in results}
        bucket = f"rate(tidemill_predict_seconds_bucket{{{pods}}}[{_WINDOW}])"
        p99 = self._ask(f"histogram_quantile(0.99, sum by (le) ({bucket}))")
        seconds = float(p99[0]["value"][1]) if p99 else math.nan
        return Counted(
            requests=sum(by_result.values()),
            errors=by_result.get("failed", 0),
            p99_ms=seconds * 1000 if math.isfinite(seconds) else None,
        )

    def _ask(self, query: str) -> list[dict[str, Any]]:
        if self._clock.monotonic() < self._silent_until:
            raise Unavailable(masked(f"Prometheus did not answer at {self._url} a moment ago"))
        try:
            answer = self._http.get("/api/v1/query", params={"query": query}).raise_for_status().json()
            found: list[dict[str, Any]] = answer["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._silent_until = self._clock.monotonic() + _PAUSE_S
            raise Unavailable(masked(f"Prometheus does not answer at {self._url}: {error}")) from error
        return found


def counts_of(
    metrics: RevisionMetrics | None, namespace: str, pods: Mapping[str, str]
) -> tuple[dict[str, Counted], str | None]:
    """What is counted by version, and why it is not, where it is not: traffic can be moved without."""
    if metrics is None:
        return {}, "no Prometheus is known (setting prometheus): errors and latency are not observed"
    try:
        return metrics.counted(namespace, pods), None
    except Unavailable as error:
        return {}, f"errors and latency are not observed: {error.message}"
