"""The prediction log: numbered, bounded, never in the way; what is missing can be counted."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.events.records import Prediction, ServingCount
from tidemill.serving.count_file import CountFile, Counts, left_behind
from tidemill.serving.log import PredictionLog
from tidemill.testing import eventually


class Broker:
    """Takes records while it is up. `gate` holds the writer's thread inside `send`, once rows come.

    Where it is not `prompt`, records are acknowledged by `acknowledge` alone.
    """

    def __init__(self, *, up: bool = True, prompt: bool = True) -> None:
        self.up, self.records, self.keys = up, list[Prediction](), list[str | None]()
        self.words, self.prompt, self.waiting = list[ServingCount](), prompt, list[Callable[[Any], None]]()
        self.gate, self.inside, self.closed, self.attempts = threading.Event(), threading.Event(), False, 0
        self.gate.set()

    def connect(self) -> "Broker":
        self.attempts += 1
        self._check()
        return self

    def send(
        self,
        topic: str,
        record: Prediction | ServingCount,
        *,
        key: str | None = None,
        on_done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        if isinstance(record, ServingCount):
            self._check()
            assert key is None
            self.words.append(record)
        else:
            self.inside.set()
            self.gate.wait(10)
            self._check()
            if record.entity == "too large":
                raise InvalidInput("too large")
            self.records.append(record)
            self.keys.append(key)
            if not self.prompt and on_done:
                self.waiting.append(on_done)
                return
        if on_done:
            on_done(None)

    def acknowledge(self, error: BaseException | None = None) -> None:
        self.waiting.pop(0)(error)

    def flush(self, timeout_s: float = 30.0) -> None:
        self._check()

    def close(self, timeout_s: float = 5.0) -> None:
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


def log_to(broker: Broker, capacity: int = 100, **more: Any) -> PredictionLog:
    return PredictionLog(broker.connect, "m.predictions", clock=QuickClock(), capacity=capacity, **more)


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
    assert broker.inside.wait(5)  # the writer holds the first; three more may wait
    log.put(predictions(7))
    broker.gate.set()
    eventually(lambda: len(broker.records) == 4)
    log.put(predictions(1))
    log.close()
    assert [one.seq for one in broker.records] == [0, 1, 2, 3, 8]
    assert [one.answered for one in broker.records] == [1, 2, 3, 4, 9]


def test_a_row_holds_its_slot_until_the_broker_has_acknowledged_it() -> None:
    broker = Broker(prompt=False)
    log = log_to(broker, capacity=2)
    log.put(predictions(3))
    eventually(lambda: len(broker.waiting) == 2)  # sent, and nobody knows whether they are there
    log.put(predictions(1))
    broker.acknowledge()
    broker.acknowledge(Unavailable("given up"))
    log.put(predictions(1))
    log.close()
    assert [one.seq for one in broker.records] == [0, 1, 4]


def test_a_few_large_rows_fill_it_as_many_small_ones_do() -> None:
    broker = Broker(prompt=False)
    log = log_to(broker, max_bytes=10_000)
    (small,) = predictions(1)
    large = Prediction(
        prediction_id="x", version="v1", entity="A", time=0, output={}, boot="", seq=0, features={"text": "t" * 9_000}
    )
    log.put([large, large, small])
    log.close()
    assert [one.seq for one in broker.records] == [0]


def test_a_row_that_kafka_never_takes_is_given_up() -> None:
    broker = Broker()
    log = log_to(broker)
    (good,) = predictions(1)
    bad = Prediction(prediction_id="x", version="v1", entity="too large", time=0, output={}, boot="", seq=0)
    log.put([bad, good])
    eventually(lambda: broker.records)
    log.close()
    assert [one.seq for one in broker.records] == [1]


def test_a_sample_is_numbered_without_gaps_and_says_how_many_were_answered() -> None:
    broker = Broker()
    log = log_to(broker, capacity=10_000, sample=0.3)
    for _ in range(20):
        log.put(predictions(100))
    log.close()
    assert [one.seq for one in broker.records] == list(range(len(broker.records)))
    assert 480 < len(broker.records) < 720  # 5.9 standard deviations
    assert {one.sample for one in broker.records} == {0.3}
    assert all(later.answered > one.answered for one, later in zip(broker.records, broker.records[1:], strict=False))
    assert (broker.words[-1].answered, broker.words[-1].logged) == (2000, len(broker.records))


def test_a_process_says_how_far_it_is_at_its_start_and_at_its_end() -> None:
    broker = Broker()
    log = log_to(broker, capacity=7)
    log.put(predictions(3))
    log.close()
    first, last = broker.words[0], broker.words[-1]
    assert (first.boot, first.capacity, first.every_ms, first.ended) == (log.boot, 7, 5000, False)
    assert (last.answered, last.logged, last.settled, last.ended) == (3, 3, 3, True)


def test_a_process_speaks_while_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.serving.log.EVERY_S", 0.05)
    broker = Broker(prompt=False)
    log = log_to(broker)
    log.put(predictions(3))
    eventually(lambda: broker.words[-1:] and broker.words[-1].logged == 3)
    eventually(lambda: len(broker.waiting) == 3)
    assert broker.words[-1].settled == 0
    broker.acknowledge()
    eventually(lambda: broker.words[-1].settled == 1)
    log.close()


def test_the_end_of_a_killed_process_is_told_by_the_next(tmp_path: Path) -> None:
    CountFile(tmp_path, "dead", 50).close(told=False)
    killed = CountFile(tmp_path, "killed", 50)
    killed.write(12, 9)
    living = CountFile(tmp_path, "living", 50)
    living.write(4, 4)
    killed.close(told=False)  # as its end does: the lock is gone, the file is not
    broker = Broker()
    log = log_to(broker, folder=tmp_path)
    eventually(lambda: len(broker.words) == 3)
    told = {one.boot: one for one in broker.words}
    assert set(told) == {log.boot, "dead", "killed"}
    word = told["killed"]
    assert (word.answered, word.logged, word.settled, word.capacity, word.ended) == (12, 9, 9, 50, True)
    eventually(lambda: sorted(file.stem for file in tmp_path.iterdir()) == sorted([log.boot, "living"]))
    log.close()
    assert [file.stem for file in tmp_path.iterdir()] == ["living"]  # its own end was told
    living.close(told=True)


def test_an_end_that_could_not_be_told_is_left_for_the_next(tmp_path: Path) -> None:
    log = log_to(Broker(up=False), folder=tmp_path)
    log.put(predictions(5))
    log.close()
    with left_behind(tmp_path) as found:
        assert found == {log.boot: Counts(answered=5, logged=5, capacity=100)}
        del found[log.boot]  # not told either
    broker = Broker()
    log_to(broker, folder=tmp_path).close()
    assert [(one.boot, one.logged) for one in broker.words if one.boot == log.boot] == [(log.boot, 5)]


def test_without_a_folder_to_write_in_a_server_answers_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broker = Broker()
    log = log_to(broker, folder=tmp_path / "file" / "counts")
    log.put(predictions(1))
    log.close()
    assert len(broker.records) == 1


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
