"""The prediction log: numbered, bounded, never in the way; what is missing can be counted."""

import threading
from collections.abc import Callable

import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.events.records import Prediction
from tidemill.serving.log import PredictionLog
from tidemill.testing import eventually


class Broker:
    """Takes records while it is up. `gate` holds the writer's thread inside `send`."""

    def __init__(self, *, up: bool = True) -> None:
        self.up, self.records, self.keys = up, list[Prediction](), list[str | None]()
        self.gate, self.inside, self.closed, self.attempts = threading.Event(), threading.Event(), False, 0
        self.gate.set()

    def connect(self) -> "Broker":
        self.attempts += 1
        self._check()
        return self

    def send(
        self,
        topic: str,
        record: Prediction,
        *,
        key: str | None = None,
        on_done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.inside.set()
        self.gate.wait(10)
        self._check()
        self.records.append(record)
        self.keys.append(key)
        if on_done:
            on_done(None)

    def flush(self, timeout_s: float = 30.0) -> None:
        self._check()

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if not self.up:
            raise Unavailable("no broker")


class QuickClock(SystemClock):
    """The machine's clock; nothing here depends on it."""


def predictions(count: int) -> list[Prediction]:
    return [
        Prediction(prediction_id=f"p{number}", version="v1", entity="A", time=0, output={}, boot="", seq=0)
        for number in range(count)
    ]


def log_to(broker: Broker, capacity: int = 100) -> PredictionLog:
    return PredictionLog(broker.connect, "m.predictions", clock=QuickClock(), capacity=capacity)


def test_rows_are_numbered_in_the_order_of_their_answers() -> None:
    broker = Broker()
    log = log_to(broker)
    log.put(predictions(3))
    log.put(predictions(2))
    log.close()
    assert [(one.boot, one.seq) for one in broker.records] == [(log.boot, number) for number in range(5)]
    assert broker.keys == ["p0", "p1", "p2", "p0", "p1"]
    assert broker.closed


def test_two_processes_never_share_their_numbers() -> None:
    first, second = log_to(Broker()), log_to(Broker())
    assert first.boot != second.boot
    first.close()
    second.close()


def test_what_does_not_fit_is_missing_by_its_number() -> None:
    broker = Broker()
    log = log_to(broker, capacity=4)
    broker.gate.clear()
    log.put(predictions(1))
    assert broker.inside.wait(5)  # the writer holds the first; four more may wait
    log.put(predictions(7))
    broker.gate.set()
    eventually(lambda: len(broker.records) == 5)
    log.put(predictions(1))
    log.close()
    assert [one.seq for one in broker.records] == [0, 1, 2, 3, 4, 8]


def test_an_answer_does_not_wait_for_a_broker() -> None:
    broker = Broker(up=False)
    log = log_to(broker)
    eventually(lambda: broker.attempts)
    log.put(predictions(10))
    broker.up = True
    eventually(lambda: len(broker.records) == 10)
    log.close()


def test_a_broker_that_goes_away_for_a_while_loses_nothing() -> None:
    broker = Broker()
    log = log_to(broker)
    log.put(predictions(1))
    eventually(lambda: broker.records)
    broker.up = False
    log.put(predictions(3))
    broker.inside.clear()
    assert broker.inside.wait(5)
    broker.up = True
    eventually(lambda: len(broker.records) == 4)
    log.close()


@pytest.mark.parametrize("up", [True, False])
def test_closing_ends_in_time_with_or_without_a_broker(up: bool) -> None:
    broker = Broker(up=up)
    log = log_to(broker)
    log.put(predictions(50))
    clock = SystemClock()
    before = clock.monotonic()
    log.close(5.0)
    assert clock.monotonic() - before < 4
    assert len(broker.records) == (50 if up else 0)


def test_many_threads_get_each_number_once() -> None:
    broker = Broker()
    log = log_to(broker, capacity=10_000)

    def put() -> None:
        for _ in range(50):
            log.put(predictions(3))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(one.seq for one in broker.records) == list(range(600))
