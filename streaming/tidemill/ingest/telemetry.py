"""What ingest counts, in the process's Prometheus registry."""

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY

__all__ = ["EVENTS", "LAG", "LOST", "QUARANTINED", "REBUILDS", "REFUSALS"]

EVENTS = Counter("tidemill_ingest_events", "Events added to the lake by this process.", ["model"], registry=REGISTRY)
QUARANTINED = Counter(
    "tidemill_ingest_quarantined", "Records that could not be taken in.", ["model", "field"], registry=REGISTRY
)
LAG = Gauge(
    "tidemill_ingest_lag_records",
    "Records in the log that were not read yet.",
    ["model", "partition"],
    registry=REGISTRY,
)
LOST = Counter(
    "tidemill_ingest_lost_offsets", "Offsets the log dropped before they were read.", ["model"], registry=REGISTRY
)
REFUSALS = Counter(
    "tidemill_online_refusals",
    "Row writes done again because another worker had moved the fence; many: records are not keyed by entity.",
    ["model"],
    registry=REGISTRY,
)
REBUILDS = Counter(
    "tidemill_online_rebuilds", "Times the rows were filled from the lake.", ["model"], registry=REGISTRY
)
