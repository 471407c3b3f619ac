"""The prediction log: every answered row, written behind the answer's back.

It never makes an answer wait. What the broker cannot take in time is dropped, and because each row has its number
in the process (`boot`, `seq`), a reader counts exactly how many are missing. After a hard kill what was queued is
missing too: at most the capacity, and as many as the numbers say.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter, Gauge

from tidemill.core.clock import Clock
from tidemill.core.errors import TidemillError
from tidemill.core.ids import new_id
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.records import Prediction

__all__ = ["PredictionLog", "PredictionWriter"]

_DROPPED = Counter("tidemill_predictions_dropped_total", "Predictions missing from the log.", registry=REGISTRY)
_QUEUED = Gauge("tidemill_predictions_queued", "Predictions waiting for the log.", registry=REGISTRY)
_RETRY_S = 1.0
_POLL_S = 0.1

_log = get_logger(__name__)


class PredictionWriter(Protocol):
    """Writes records; `tidemill.events.kafka.RecordWriter` is one."""

    def send(
        self,
        topic: str,
        record: Prediction,
        *,
        key: str | None = None,
        on_done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        """Hand over a record; raises a `TidemillError` where that is not possible now."""
        ...

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when all is written."""
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


class PredictionLog:
    """A bounded queue and one thread that writes it.

    Args:
        connect: makes the writer; tried again while it raises, so that a server answers without a broker.
        topic: where predictions go.
        clock: for the process's id, and the pause between two attempts.
        capacity: rows that may wait.
    """

    def __init__(
        self, connect: Callable[[], PredictionWriter], topic: str, *, clock: Clock, capacity: int = 10_000
    ) -> None:
        self.boot = new_id(clock.now())
        self._connect, self._topic, self._clock = connect, topic, clock
        self._queue: queue.Queue[Prediction] = queue.Queue(capacity)
        self._numbering = threading.Lock()
        self._next = 0
        self._closing = threading.Event()
        self._waits = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Number the rows and queue them; returns at once. What does not fit is dropped and counted."""
        with self._numbering:
            for prediction in predictions:
                numbered = msgspec.structs.replace(prediction, boot=self.boot, seq=self._next)
                self._next += 1
                try:
                    self._queue.put_nowait(numbered)
                except queue.Full:
                    self._lost("the queue is full", warn=self._next % 1000 == 1)
        _QUEUED.set(self._queue.qsize())

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, as far as the broker takes it within the time. Nothing may be put afterwards."""
        self._closing.set()
        self._thread.join(timeout_s)
        left = self._queue.qsize()
        if left:
            _log.error("predictions are missing from the log", count=left)

    def _run(self) -> None:
        writer = self._connected()
        while writer is not None:
            try:
                prediction = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if self._closing.is_set():
                    break
                continue
            self._write(writer, prediction)
            _QUEUED.set(self._queue.qsize())
        if writer is not None:
            self._end(writer)

    def _connected(self) -> PredictionWriter | None:
        while not self._closing.is_set():
            try:
                return self._connect()
            except TidemillError as error:
                self._wait(error)
        return None

    def _write(self, writer: PredictionWriter, prediction: Prediction) -> None:
        """Hand one row to the writer, again and again while the broker is away."""
        while True:
            try:
                # By the prediction's id: labels of predictions are partitioned in the same way.
                writer.send(self._topic, prediction, key=prediction.prediction_id, on_done=self._done)
            except TidemillError as error:
                if self._closing.is_set():
                    self._lost(error.message)
                    return
                self._wait(error)
            else:
                self._waits = False
                return

    def _wait(self, error: TidemillError) -> None:
        """Pause before the next attempt; an outage is told once."""
        if not self._waits:
            _log.warning("the prediction log waits for the broker", reason=error.message)
        self._waits = True
        self._closing.wait(_RETRY_S)

    def _done(self, error: BaseException | None) -> None:
        if error is not None:
            self._lost(str(error))

    def _lost(self, reason: str, *, warn: bool = True) -> None:
        _DROPPED.inc()
        if warn:
            _log.error("a prediction is missing from the log", reason=reason)

    def _end(self, writer: Any) -> None:
        try:
            writer.flush(3.0)
            writer.close()
        except TidemillError as error:
            _log.error("predictions may be missing from the log", reason=error.message)
