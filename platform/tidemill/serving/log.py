"""The prediction log: every answered row, or a random share of them, written behind the answer's back.

It never makes an answer wait. What the brokers cannot take in time is dropped, and because each row has its number
in the process (`boot`, `seq`), a reader counts exactly how many are missing. How far the numbers go, the process says
on the log every few seconds and at its end (`ServingCount`); of one that was killed, the next one that starts on the
same folder says it. `tidemill.outcomes.gaps` is the reader.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from prometheus_client import Counter, Gauge

from tidemill.core.clock import Clock
from tidemill.core.errors import TidemillError, Transient, Unavailable
from tidemill.core.ids import new_id
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.events.records import Prediction, ServingCount
from tidemill.serving.count_file import CountFile, Counts, left_behind
from tidemill.serving.tally import MAX_BYTES, Tally

__all__ = ["CAPACITY", "EVERY_S", "PredictionLog", "PredictionWriter"]

CAPACITY = 10_000
"""Rows that may wait: a minute and a half of the brokers' absence at a hundred rows a second."""

EVERY_S = 5.0
"""How often the process says how far it is, also when nobody asks it anything: silence means that it is gone."""


class _Metrics(NamedTuple):
    dropped: Counter
    queued: Gauge


_OF_USERS = _Metrics(
    Counter("tidemill_predictions_dropped_total", "Predictions missing from the log.", registry=REGISTRY),
    Gauge("tidemill_predictions_queued", "Predictions that are not known to be on the log.", registry=REGISTRY),
)
_OF_COPIES = _Metrics(
    Counter("tidemill_copies_dropped_total", "Answers to copies missing from their log.", registry=REGISTRY),
    Gauge("tidemill_copies_queued", "Answers to copies that are not known to be on their log.", registry=REGISTRY),
)
_RETRY_S = 1.0
_LOOK_S = 30.0
_LINGER_S = 0.1
"""Rows gather so long before they are encoded and sent: many at once, between answers rather than during each."""
_FLUSH_S, _LAST_WORD_S, _CLOSE_S = 2.0, 1.0, 0.5

_log = get_logger(__name__)


class PredictionWriter(Protocol):
    """Writes records; `tidemill.events.kafka.RecordWriter` is one."""

    def send(
        self,
        topic: str,
        record: Prediction | ServingCount,
        *,
        key: str | None = None,
        on_done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        """Hand over a record; raises a `TidemillError` where that is not possible now, or at all.

        `on_done` is called once it is acknowledged (None) or given up.
        """
        ...

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when all is written; raises a `TidemillError` where it is not."""
        ...

    def close(self, timeout_s: float = 5.0) -> None:
        """Drop the connection."""
        ...


class PredictionLog:
    """Numbers rows on the answer's thread, and writes them from another.

    Args:
        connect: makes the writer; tried again while it raises, so that a server answers without a broker.
        topic: where predictions go.
        clock: for the process's id, and pauses.
        sample: probability with which a row is logged.
        capacity: rows that may wait for their acknowledgement.
        max_bytes: of these together.
        folder: where this process's counts outlive it; None: nowhere, and a hard kill may cost `capacity` rows.
        copies: whether these are answers to copies of requests, which count for no metric of predictions.
    """

    def __init__(
        self,
        connect: Callable[[], PredictionWriter],
        topic: str,
        *,
        clock: Clock,
        sample: float = 1.0,
        capacity: int = CAPACITY,
        max_bytes: int = MAX_BYTES,
        folder: Path | None = None,
        copies: bool = False,
    ) -> None:
        self._metrics = _OF_COPIES if copies else _OF_USERS
        self.boot = new_id(clock.now())
        self._connect, self._topic, self._clock, self._folder = connect, topic, clock, folder
        file = self._counted_in(folder, capacity)
        self._tally = Tally(self.boot, sample=sample, capacity=capacity, max_bytes=max_bytes, file=file)
        self._queue: deque[Prediction] = deque()
        self._closing = threading.Event()
        self._waits = self._told = False
        self._said_at = self._looked_at = 0.0
        self._counted = self._dropped_said = 0
        self._dropped_said_at, self._reason = -EVERY_S, "too many wait"
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Number answered rows and queue them; returns at once. What does not fit is dropped and counted."""
        self._queue.extend(self._tally.admit(predictions))

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, as far as the broker takes it within the time. Nothing may be put afterwards."""
        self._closing.set()
        self._thread.join(timeout_s)
        self._count_dropped(self._tally.held, said_every_s=0.0)
        if not self._thread.is_alive():
            self._tally.close(told=self._told)

    def _counted_in(self, folder: Path | None, capacity: int) -> CountFile | None:
        if folder is None:
            return None
        try:
            return CountFile(folder, self.boot, capacity)
        except Unavailable as error:
            _log.warning("a hard kill would leave no count", reason=error.message)
            return None

    def _run(self) -> None:
        writer = self._connected()
        if writer is None:
            return
        self._say(writer)
        self._tell_of_the_dead(writer)
        while not self._closing.wait(_LINGER_S):
            self._drain(writer)
            now = self._clock.monotonic()
            if now - self._said_at >= EVERY_S:
                self._say(writer)
            if now - self._looked_at >= _LOOK_S:
                self._tell_of_the_dead(writer)
        self._drain(writer)
        self._end(writer)

    def _connected(self) -> PredictionWriter | None:
        while not self._closing.is_set():
            try:
                return self._connect()
            except TidemillError as error:
                self._wait(error)
        return None

    def _drain(self, writer: PredictionWriter) -> None:
        """Hand over what is queued by now; what comes meanwhile must not keep the process from saying how far it is."""
        for _ in range(len(self._queue)):
            self._write(writer, self._queue.popleft())
        self._metrics.queued.set(self._tally.held)
        self._count_dropped()

    def _write(self, writer: PredictionWriter, prediction: Prediction) -> None:
        """Hand one row to the writer, again and again while the broker is away."""
        done = partial(self._done, prediction.seq)
        while True:
            try:
                # By the prediction's id: labels of predictions are partitioned in the same way.
                writer.send(self._topic, prediction, key=prediction.prediction_id, on_done=done)
            except TidemillError as error:
                if self._closing.is_set() or not isinstance(error, Transient):
                    done(error)
                    return
                self._wait(error)
            else:
                self._waits = False
                return

    def _done(self, seq: int, error: BaseException | None) -> None:
        self._tally.settle(seq, is_written=error is None)
        self._reason = "too many wait" if error is None else str(error)

    def _count_dropped(self, left: int = 0, *, said_every_s: float = EVERY_S) -> None:
        """Tell of rows that are missing since the last time, however many, in one line now and then."""
        dropped = self._tally.dropped + left
        self._metrics.dropped.inc(dropped - self._counted)
        self._counted = dropped
        now = self._clock.monotonic()
        if dropped > self._dropped_said and now - self._dropped_said_at >= said_every_s:
            _log.error("predictions are missing from the log", count=dropped, reason=self._reason)
            self._dropped_said, self._dropped_said_at = dropped, now

    def _say(self, writer: PredictionWriter) -> None:
        """How far this process is."""
        counts, settled = self._tally.counts()
        self._said_at = self._clock.monotonic()
        try:
            writer.send(self._topic, _word(self.boot, counts, settled), on_done=_ignore)
        except TidemillError as error:
            self._wait(error)

    def _tell_of_the_dead(self, writer: PredictionWriter) -> None:
        """How far those were that were killed on this folder, in their name."""
        self._looked_at = self._clock.monotonic()
        if self._folder is None:
            return
        with left_behind(self._folder) as found:
            written = {boot: self._has_ended(writer, boot, counts) for boot, counts in found.items()}
            for boot in [boot for boot, is_written in written.items() if not is_written]:
                del found[boot]  # the next one tells

    def _end(self, writer: PredictionWriter) -> None:
        try:
            writer.flush(_FLUSH_S)
        except TidemillError as error:
            _log.error("predictions may be missing from the log", reason=error.message)
        self._told = self._has_ended(writer, self.boot, self._tally.counts()[0], _LAST_WORD_S)
        writer.close(_CLOSE_S)

    def _has_ended(self, writer: PredictionWriter, boot: str, counts: Counts, timeout_s: float = 5.0) -> bool:
        """Say that a process numbers no more; whether that is on the log."""
        said: list[BaseException | None] = []
        try:
            writer.send(self._topic, _word(boot, counts, counts.logged, ended=True), on_done=said.append)
            writer.flush(timeout_s)
        except TidemillError:
            return False
        return said == [None]

    def _wait(self, error: TidemillError) -> None:
        """Pause before the next attempt; an outage is told once."""
        if not self._waits:
            _log.warning("the prediction log waits for the broker", reason=error.message)
        self._waits = True
        self._closing.wait(_RETRY_S)


def _word(boot: str, counts: Counts, settled: int, *, ended: bool = False) -> ServingCount:
    return ServingCount(
        boot=boot,
        answered=counts.answered,
        logged=counts.logged,
        settled=settled,
        capacity=counts.capacity,
        every_ms=round(EVERY_S * 1000),
        ended=ended,
    )


def _ignore(error: BaseException | None) -> None:
    """What is not said now is said later."""
