"""A producer under load: numbered events of some stations, some of them bad, whatever happens to the broker."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tidemill.core.clock import Clock, to_ms

__all__ = ["NUMBER", "STATIONS", "Load"]

NUMBER = "number"
"""Header with the event's number: it can be read even where the value is no JSON."""
STATIONS = 40
_SLICE_S = 0.05


class Load:
    """Sends events until it is closed. `acknowledged` are the numbers that the broker said it has."""

    def __init__(self, bootstrap: str, topic: str, *, per_second: int, seed: int, clock: Clock) -> None:
        self._bootstrap, self._topic, self._clock = bootstrap, topic, clock
        self._each = max(1, round(per_second * _SLICE_S))
        self._rng = random.Random(seed)
        self.acknowledged: set[int] = set()
        self.failed = 0
        self._number = 0
        self._lock = Lock()
        self._stopped = Event()
        self._thread: Thread

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send until the block ends; then all that was sent is written or has failed."""
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing until the block ends, and then with a client of its own."""
        self._stop()
        yield
        self._start()

    def _start(self) -> None:
        self._stopped.clear()
        self._thread = Thread(target=self._send_until_stopped, daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _send_until_stopped(self) -> None:
        producer = self._producer()
        try:
            due = self._clock.monotonic()
            while not self._stopped.wait(max(0.0, due - self._clock.monotonic())):
                for _ in range(self._each):
                    self._send(producer)
                due += _SLICE_S
            producer.flush(timeout=30)
        finally:
            producer.close(timeout=5)

    def _producer(self) -> Any:
        return KafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_block_ms=2000,
            metadata_max_age_ms=2000,
            reconnect_backoff_max_ms=500,
        )

    def _send(self, producer: Any) -> None:
        number = self._number
        self._number += 1
        station = f"s{self._rng.randrange(STATIONS)}"
        value = self._value(number, station)
        # One in ten lies in another partition than its station's others, as where the key is not the entity.
        key = station if self._rng.random() < 0.9 else f"k{number}"
        try:
            future = producer.send(self._topic, value, key=key.encode(), headers=[(NUMBER, str(number).encode())])
        except KafkaError:
            self.failed += 1
            return
        future.add_callback(lambda _: self._acknowledge(number))
        future.add_errback(lambda _: self._fail())

    def _acknowledge(self, number: int) -> None:
        with self._lock:
            self.acknowledged.add(number)

    def _fail(self) -> None:
        with self._lock:
            self.failed += 1

    def _value(self, number: int, station: str) -> bytes:
        """One in ten is bad; event times lie up to 30 s back, in any order."""
        captured = to_ms(self._clock.now()) - self._rng.randrange(30_000)
        event = {"station": station, "event_id": f"e{number}", "captured_at": captured, "exposure_ms": number % 1000}
        good = msgspec.json.encode(event)
        if number % 10 != 3:
            return good
        bad = (good[:-9], good.replace(b"exposure", b"exp\xffsure"), b'{"station": 3}', b"[[[[", good + b"}", b"")
        return bad[self._rng.randrange(len(bad))]
