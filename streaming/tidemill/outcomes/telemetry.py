"""What the outcomes worker tells of itself besides what it counts at its places: delays, and what waits."""

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY, Spread

__all__ = ["LABELLED", "LABELS_SEARCHED", "LABEL_DELAY", "LAG", "WAITING"]

LABEL_DELAY = Spread(
    "tidemill_label_delay_seconds",
    "From a prediction to the arrival of the label that its outcome carries; corrections count again.",
    (10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 2 * 86400, 4 * 86400, 7 * 86400, 14 * 86400),
)
LABELLED = Counter(
    "tidemill_outcomes_labelled_total",
    "Of the outcomes written, those with a label that somebody gave.",
    ["kind"],
    registry=REGISTRY,
)
WAITING = Gauge(
    "tidemill_outcomes_waiting_predictions",
    "Predictions taken in that are not old enough to be judged, or whose turn has not come.",
    registry=REGISTRY,
)
LABELS_SEARCHED = Gauge(
    "tidemill_labels_searched",
    "Labels by event whose predictions are still searched for in the lake.",
    registry=REGISTRY,
)
LAG = Gauge(
    "tidemill_outcomes_lag_records",
    "Predictions or labels in the log that were not taken in yet.",
    ["topic"],
    registry=REGISTRY,
)
for _kind in ("first", "correction"):
    LABELLED.labels(_kind)
