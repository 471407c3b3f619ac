"""The skew check of a model over its lake: measured on demand, and by ingest each hour as a metric."""

from prometheus_client import Gauge

from tidemill.core.errors import NotFound
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.lake import LakeTable, table_uri
from tidemill.features.skew import Skew, compare, events_for, labels_for, newest_served
from tidemill.ingest.tables import events_table
from tidemill.spec.model import ContinualModel

__all__ = ["SkewCheck"]

_log = get_logger(__name__)

_SAMPLE = 500
"""Predictions that are looked at each hour."""

_PREDICTIONS = Gauge(
    "tidemill_feature_skew_predictions",
    "Of the newest predictions at the last check: equal to the lake, differing from it, or not comparable.",
    ["model", "result"],
    registry=REGISTRY,
)

_CHECKED = Gauge(
    "tidemill_feature_skew_timestamp_seconds",
    "When served features were last compared with the lake, in seconds since 1970.",
    ["model"],
    registry=REGISTRY,
)


class SkewCheck:
    """Compares what was served with the lake (`tidemill.features.skew`).

    Args:
        lake: folder or URI of the lake.
        resource: the model.
    """

    def __init__(self, lake: str, resource: ContinualModel) -> None:
        self._lake = lake
        self._resource = resource

    def measure(self, sample: int) -> Skew:
        """Of the newest `sample` predictions. Raises `NotFound` before there are any, or `Unavailable`."""
        predictions = LakeTable(table_uri(self._lake, self._resource.id, "predictions"))
        served = newest_served(predictions.scan(), sample)
        # Read after the predictions, so that it is as far as their fences.
        events = events_table(self._lake, self._resource).snapshot()
        seen, upto = events_for(events.rows, served, self._resource), dict(events.upto)
        said = None
        if self._resource.spec.features.label_windows:
            labels = LakeTable(table_uri(self._lake, self._resource.id, "labels")).snapshot()
            said = labels_for(labels.rows, served, self._resource)
            upto |= labels.upto
        return compare(served, seen, upto, self._resource, labels=said)

    def check(self) -> None:
        """Measure, and tell the metric; an error in the log names the first value that differs."""
        try:
            found = self.measure(_SAMPLE)
        except NotFound:
            return
        left = sum(count for why, count in found.not_comparable.items() if not why.startswith("feature "))
        for result, count in (("equal", found.equal), ("differing", found.differing), ("not comparable", left)):
            _PREDICTIONS.labels(self._resource.id, result).set(count)
        _CHECKED.labels(self._resource.id).set_to_current_time()
        if found.differing:
            first = found.differences[0]
            _log.error(
                "features that were served differ from the lake",
                model=self._resource.id,
                differing=found.differing,
                compared=found.compared,
                prediction=first.prediction_id,
                feature=first.feature,
                served=first.served,
                computed=first.computed,
            )
