"""What alerts count, in the process's Prometheus registry. Labels are kinds, severities, routes: all of them few."""

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY

__all__ = ["DELIVERED", "FAILED", "MUTED", "OPEN", "UNHELD", "WAITING"]

OPEN = Gauge(
    "tidemill_alerts_open", "Alerts that are open, muted ones too.", ["model", "kind", "severity"], registry=REGISTRY
)
MUTED = Gauge("tidemill_alerts_muted", "Open alerts that are muted now.", ["model"], registry=REGISTRY)
UNHELD = Gauge(
    "tidemill_alerts_unheld", "Alerts that there was no room for since the process began.", ["model"], registry=REGISTRY
)
DELIVERED = Counter("tidemill_alerts_delivered", "Messages that a route took.", ["model", "route"], registry=REGISTRY)
FAILED = Counter(
    "tidemill_alerts_failed", "Attempts that failed, by why.", ["model", "route", "reason"], registry=REGISTRY
)
WAITING = Gauge(
    "tidemill_alerts_waiting_seconds",
    "How long the oldest message has waited that a route has not taken; 0 where none waits.",
    ["model", "route"],
    registry=REGISTRY,
)
