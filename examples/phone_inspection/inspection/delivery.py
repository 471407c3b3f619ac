"""Sending to Kafka until it is acknowledged: failures are counted and tried again, and memory stays bounded."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tidemill.core.clock import Clock
from tidemill.core.errors import DeadlineExceeded, Transient
from tidemill.events.kafka import RecordWriter

__all__ = ["Delivery"]

_MOST_UNDELIVERED = 3000
"""Messages on their way; beyond that `send` waits, so that an outage stops the line instead of filling memory."""
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    key: str
    value: bytes
    delivered: Callable[[], None]


@dataclass
class Delivery:
    """Delivers each message at least once, as long as the broker comes back. Thread-safe."""

    kafka: str
    clock: Clock
    failures: int = 0
    """Tries that failed."""
    _again: deque[_Message] = field(default_factory=deque)
    _undelivered: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._writer = RecordWriter(self.kafka, client_id="phone-factory")
        self._given_up = threading.Event()

    def send(self, topic: str, key: str, value: bytes, delivered: Callable[[], None] = lambda: None) -> None:
        """Send; `delivered` is called once the broker has it. Returns early only if `close` gives up."""
        while self._undelivered >= _MOST_UNDELIVERED and not self._given_up.is_set():
            self._pause()
        with self._lock:
            self._undelivered += 1
        self._try(_Message(topic, key, value, delivered))
        self._try_again()

    def flush(self, deadline_s: float) -> None:
        """Return when everything is delivered; raises `DeadlineExceeded` with how much is not."""
        end = self.clock.monotonic() + deadline_s
        while self._undelivered:
            self._try_again()
            if self.clock.monotonic() > end:
                raise DeadlineExceeded(f"{self._undelivered} messages were not taken by Kafka in {deadline_s:g} s")
            self._pause(0.02)

    def close(self) -> None:
        """Give up what is not delivered."""
        self._given_up.set()
        self._writer.close()

    def _try(self, message: _Message) -> None:
        def done(error: BaseException | None) -> None:
            if error is not None:
                self._failed(message)
                return
            with self._lock:
                self._undelivered -= 1
            message.delivered()

        try:
            self._writer.send(message.topic, message.value, key=message.key, on_done=done)
        except Transient:
            self._failed(message)

    def _failed(self, message: _Message) -> None:
        with self._lock:
            self.failures += 1
            self._again.append(message)

    def _try_again(self) -> None:
        """One failed message in its turn; after a failure there is a pause, so that an outage costs nothing."""
        with self._lock:
            message = self._again.popleft() if self._again else None
        if message is not None:
            self._pause()
            self._try(message)

    def _pause(self, seconds: float = _PAUSE_S) -> None:
        self._given_up.wait(seconds)
