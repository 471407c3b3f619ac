"""How many records lie before each partition's reader, measured beside it: also while it waits, or has stopped."""

from collections.abc import Callable, Mapping
from threading import Event, Thread
from types import TracebackType

from tidemill.core.errors import TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import Cluster
from tidemill.ingest.telemetry import LAG, LAG_MEASURED

__all__ = ["LagMeter"]

_log = get_logger(__name__)

_EVERY_S = 5.0
"""An autoscaler asks every 30 s; each measurement is one request to the brokers."""


class LagMeter:
    """Sets the gauge of each partition that is read here, on a thread of its own. A context.

    Args:
        cluster: whom to ask for the ends of the logs.
        model: id of the model, a label of the gauge.
        topic: the events' topic.
        positions: next offset to read by partition; partitions that another worker reads are that one's to measure.
    """

    def __init__(self, cluster: Cluster, model: str, topic: str, positions: Callable[[], Mapping[int, int]]) -> None:
        self._cluster = cluster
        self._model = model
        self._topic = topic
        self._positions = positions
        self._shown: set[int] = set()
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"{model}.lag", daemon=True)

    def __enter__(self) -> "LagMeter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show({})

    def measure(self) -> None:
        """Ask for the ends and set the gauges; raises `Unavailable` where the brokers do not answer."""
        positions = self._positions()
        ends = self._cluster.ends(self._topic, positions)
        self._show({number: max(0, ends[number] - at) for number, at in positions.items() if number in ends})
        LAG_MEASURED.labels(self._model).set_to_current_time()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.measure()
            except TidemillError as error:  # the last figures stand until the brokers are back
                _log.debug("the lag could not be measured", topic=self._topic, reason=str(error))
            self._stop.wait(_EVERY_S)

    def _show(self, lags: Mapping[int, int]) -> None:
        for number in self._shown - lags.keys():
            LAG.remove(self._model, str(number))
        for number, lag in lags.items():
            LAG.labels(self._model, str(number)).set(lag)
        self._shown = set(lags)
