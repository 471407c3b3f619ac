"""Outcomes from memory: each record once, whether it was read or written by this worker."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.outcomes.log import Raw
from tidemill.outcomes.own import OwnOutcomes


class Log:
    """A partition and a consumer of it; of every transaction one offset is its marker."""

    def __init__(self, before: int) -> None:
        self.records: dict[int, bytes] = {}
        self.end, self.at, self.paused = 0, 0, False
        self.append(before)

    def append(self, count: int) -> "Sent":
        sent = Sent(self.end, [(b"k", b"%d" % n) for n in range(self.end, self.end + count)])
        self.records |= {self.end + n: value for n, (_, value) in enumerate(sent.records)}
        self.end += count + 1
        return sent

    def read(self, most: int) -> list[int]:
        if self.paused:
            return []
        found = [at for at in self.records if at >= self.at][:most]
        self.at = found[-1] + 1 if len(found) == most else self.end
        return found

    def position(self, _: Any) -> int:
        return self.at

    def seek(self, _: Any, offset: int) -> None:
        self.at = offset

    def pause(self, _: Any) -> None:
        self.paused = True

    def resume(self, _: Any) -> None:
        self.paused = False


class Sent:
    """A batch, as `tidemill.events.pack.Sent`."""

    def __init__(self, offset: int, records: list[tuple[bytes, bytes]]) -> None:
        self.offset: int | None = offset
        self.records = records

    def placed(self) -> tuple[int, int] | None:
        return None if self.offset is None else (self.offset, 7)


def offsets(kept: Sequence[Sequence[Raw]]) -> list[int]:
    return [raw.offset for records in kept for raw in records]


def of(log: Log) -> OwnOutcomes:
    own = OwnOutcomes(log, {0: "place"})
    own.begin({0: log.end})
    return own


def test_what_an_earlier_life_wrote_is_read_and_the_rest_is_not() -> None:
    log = Log(before=3)
    own = of(log)
    assert own.take() == []
    assert log.read(10) == [0, 1, 2]
    assert own.take() == []
    own.wrote({0: [log.append(2)]})
    assert log.read(10) == []
    assert own.take() == [[Raw(0, 4, 7, b"k", b"4"), Raw(0, 5, 7, b"k", b"5")]]
    assert own.take() == []


@pytest.mark.parametrize("told", [True, False])
def test_where_the_brokers_do_not_say_where_records_stand_they_are_read(told: bool) -> None:
    log = Log(before=1)
    own = of(log)
    log.read(10)
    own.take()
    own.wrote({0: [log.append(2)]})
    lost = log.append(2)
    lost.offset = None
    own.wrote({0: [lost] if told else None})
    assert offsets(own.take()) == [2, 3]
    own.wrote({0: [log.append(1)]})
    assert own.take() == []
    assert log.read(10) == [5, 6, 8]


@given(st.integers(0, 5), st.lists(st.sampled_from(["append", "settle", "settle", "read", "read", "take", "lost"])))
def test_each_record_is_there_once_and_in_order(before: int, steps: list[str]) -> None:
    log = Log(before)
    own, found = of(log), list[int]()
    under_way: list[Sent] = []
    for step in [*steps, "settle", "take", "read", "read", "read", "read", "take"]:
        if step == "append" and not under_way:  # committed, and the worker does not know yet
            under_way = [log.append(2), log.append(1)]
        elif step == "lost" and under_way:
            under_way[-1].offset = None
        elif step == "settle" and under_way:
            own.wrote({0: under_way})
            under_way = []
        elif step == "read":
            found += offsets(own.take()) + log.read(3 if len(steps) % 2 else 100)
        elif step == "take":
            found += offsets(own.take())
    while more := offsets(own.take()) + log.read(100):
        found += more
    assert found == sorted(log.records)
