"""What the outcomes worker tells of itself besides what it counts at its places: delays, and what waits."""

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import REGISTRY, Spread
from tidemill.spec.model import Labels

__all__ = ["DELAYS", "LABELLED", "LABELS_SEARCHED", "LABEL_DELAY", "LAG", "WAITING", "begin"]

_DAY = 86_400
DELAYS = (10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 14 * _DAY, 28 * _DAY)
"""Bounds of the buckets of label delays, in seconds."""

LABEL_DELAY = Spread(
    "tidemill_label_delay_seconds",
    "From a prediction to the arrival of the label that its outcome carries; corrections count again.",
    DELAYS,
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
_MATURITY = Gauge(
    "tidemill_labels_maturity_seconds", "What the resource says: labels.maturity.after.", registry=REGISTRY
)
_CONTROL = Gauge("tidemill_labels_control_ratio", "What the resource says: labels.control.", registry=REGISTRY)


def begin(labels: Labels) -> None:
    """Tell zeros from the start, and what is asked of labels: alerts hold figures against it."""
    for kind in ("first", "correction"):
        LABELLED.labels(kind)
    _MATURITY.set(labels.maturity.after.total_seconds())
    _CONTROL.set(labels.control)
