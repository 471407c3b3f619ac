"""Records of several topics in the order in which they came, as far as that can be known."""

from collections.abc import Collection, Mapping
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.kafka import RecordReader, Stamped
from tidemill.events.sources import Source
from tidemill.watch.inputs import MOST, Inputs


class Topic:
    """A topic of one or more partitions, each with records (arrival, name); a poll gives so many of one partition."""

    def __init__(self, name: str, *partitions: list[int], at_once: int = 3) -> None:
        self.sources = {number: Source("c", name, number) for number in range(len(partitions))}
        self._records = [
            [Stamped(self.sources[number], offset, at, cast("Any", at)) for offset, at in enumerate(times)]
            for number, times in enumerate(partitions)
        ]
        self._at_once, self._next, self._turn = at_once, [0] * len(partitions), 0
        self._paused: Collection[int] = ()
        self.asked = 0

    def add(self, *times: int) -> None:
        first = len(self._records[0])
        self._records[0] += [
            Stamped(self.sources[0], first + number, at, cast("Any", at)) for number, at in enumerate(times)
        ]

    def poll(self, max_records: int, timeout_s: float) -> list[Stamped[Any]]:
        for _ in self._records:
            self._turn = (self._turn + 1) % len(self._records)
            if self._turn in self._paused:
                continue
            start = self._next[self._turn]
            found = self._records[self._turn][start : start + min(self._at_once, max_records)]
            if found:
                self._next[self._turn] += len(found)
                return found
        return []

    def pause(self, partitions: Collection[int]) -> None:
        self._paused = partitions

    def offsets(self) -> Mapping[int, int]:
        return dict(enumerate(self._next))

    def ends(self) -> Mapping[int, int]:
        self.asked += 1
        return {number: len(records) for number, records in enumerate(self._records)}


def inputs_of(*topics: Topic) -> Inputs:
    return Inputs([cast("RecordReader[Any]", topic) for topic in topics])


def taken(inputs: Inputs, polls: int = 60) -> list[int]:
    return [stamped.timestamp_ms for _ in range(polls) for stamped in inputs.poll(0.0)]


def test_what_was_there_at_the_start_comes_in_the_order_of_arrival() -> None:
    inputs = inputs_of(Topic("sketches", [1, 4, 9, 30]), Topic("outcomes", [2, 3, 5, 6, 7, 8], [0, 40]))
    assert taken(inputs) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 40]


def test_a_topic_without_records_holds_up_nothing() -> None:
    quiet, busy = Topic("outcomes", []), Topic("sketches", [1, 2])
    inputs = inputs_of(quiet, busy)
    assert taken(inputs) == [1, 2]
    busy.add(3)
    assert taken(inputs) == [3]
    assert quiet.asked == 1  # the brokers are not asked again and again


def test_after_much_at_once_it_is_asked_again_how_much_there_is() -> None:
    topic = Topic("outcomes", [], at_once=MOST)
    inputs = inputs_of(topic, Topic("sketches", []))
    topic.add(*range(2 * MOST + 1))
    assert taken(inputs) == list(range(2 * MOST + 1))
    assert topic.asked == 3


def test_positions_are_after_what_was_given_not_after_what_was_read() -> None:
    outcomes, sketches = Topic("outcomes", [5, 6, 7], at_once=3), Topic("sketches", [1, 2, 3, 9], at_once=1)
    inputs = inputs_of(outcomes, sketches)
    assert [stamped.timestamp_ms for stamped in inputs.poll(0.0)] == [1]
    assert inputs.positions() == {str(outcomes.sources[0]): 0, str(sketches.sources[0]): 1}
    taken(inputs)
    assert inputs.positions() == {str(outcomes.sources[0]): 3, str(sketches.sources[0]): 4}


def test_a_partition_with_much_does_not_keep_another_one_from_being_read() -> None:
    first, second = list(range(0, 3 * MOST, 2)), list(range(1, 3 * MOST, 2))
    assert taken(inputs_of(Topic("outcomes", first, second, at_once=MOST))) == list(range(3 * MOST))


@given(st.lists(st.lists(st.integers(0, 50), max_size=20).map(sorted), min_size=1, max_size=4), st.integers(1, 5))
def test_however_little_a_poll_gives_the_order_is_the_same(partitions: list[list[int]], at_once: int) -> None:
    topics = [Topic(f"t{number}", times, at_once=at_once) for number, times in enumerate(partitions)]
    assert taken(inputs_of(*topics), 120) == sorted(at for times in partitions for at in times)
