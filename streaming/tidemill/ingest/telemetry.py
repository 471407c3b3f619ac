"""What ingest counts, in the process's Prometheus registry."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY, bounded
from tidemill.spec.model import ContinualModel

__all__ = [
    "EVENTS",
    "LAG",
    "LAG_MEASURED",
    "LOST",
    "QUARANTINED",
    "REBUILDS",
    "REFUSALS",
    "REPEATED",
    "STOPPED",
    "begin",
]

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
LAG_MEASURED = Gauge(
    "tidemill_ingest_lag_timestamp_seconds",
    "When the lag was last measured, in seconds since 1970: while brokers do not answer, the last figures stand.",
    ["model"],
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


def begin(resource: ContinualModel) -> Callable[[str | None], str]:
    """Tell zeros from the start, so that a missing series means a missing worker; the label of a quarantined field.

    A record that is bad as a whole has no field: "".
    """
    for counter in (EVENTS, REPEATED, LOST, REFUSALS, REBUILDS):
        counter.labels(resource.id)
    events = resource.spec.events
    own = [name for name in (events.entity.name, events.timestamp, events.id) if name is not None]
    names = [*own, *(field.name for field in events.fields)]
    label = bounded(names)
    for value in ("", *map(label, names)):
        QUARANTINED.labels(resource.id, value)
    return lambda field: label(field) if field else ""
