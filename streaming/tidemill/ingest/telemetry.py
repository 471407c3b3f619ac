"""What ingest counts, in the process's Prometheus registry."""

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY

__all__ = ["EVENTS", "LAG", "LOST", "QUARANTINED", "REBUILDS", "REFUSALS", "REPEATED", "STOPPED"]

EVENTS = Counter("tidemill_ingest_events", "Events added to the lake by this process.", ["model"], registry=REGISTRY)
QUARANTINED = Counter(
    "tidemill_ingest_quarantined", "Records that could not be taken in.", ["model", "field"], registry=REGISTRY
)
REPEATED = Counter(
    "tidemill_ingest_repeated",
    "Replays from quarantine that were dropped because their event was in the lake already.",
    ["model"],
    registry=REGISTRY,
)
STOPPED = Gauge(
    "tidemill_ingest_stopped",
    "1 while a partition is not read because most of its newest records are bad (events.quarantine.stopAbove).",
    ["model", "partition"],
    registry=REGISTRY,
)
LAG = Gauge(
    "tidemill_ingest_lag_records",
    "Records in the log that have not had their effects yet, by partition read here; an autoscaler takes the sum.",
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
