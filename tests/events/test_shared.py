"""Many topics over one connection: what is read, when, and what is nobody else's trouble."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from tidemill.core.errors import Conflict, NotFound, Unavailable
from tidemill.events.cluster import Cluster, ensure_topics
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Signal, encode
from tidemill.events.replay import Outgoing, TransactionWriter
from tidemill.events.shared import FollowedTopic, SharedKafka
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock

pytestmark = pytest.mark.kafka


def signal(name: str) -> Signal:
    return Signal(signal_id=name, kind="drift", feature="x", time=0, version="v", evidence=1.0, message="moved")


@pytest.fixture
def topics(kafka: str, topic_prefix: str) -> list[str]:
    names = [f"{topic_prefix}.{number}.signals" for number in range(5)]
    ensure_topics(kafka, dict.fromkeys(names, 2))
    return names


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shared(kafka: str, clock: ManualClock) -> Iterator[SharedKafka]:
    with closing(SharedKafka(kafka, clock=clock)) as opened:
        yield opened


def write(kafka: str, topic: str, *names: str) -> None:
    with RecordWriter(kafka) as writer:
        for name in names:
            writer.send(topic, signal(name), key=name)
        writer.flush()


def read(clock: ManualClock, followed: FollowedTopic[Signal]) -> list[str]:
    """What is there once the last answer to where the logs end has grown old."""
    clock.advance(60)
    return sorted(one.record.signal_id for one in followed.poll())


def test_each_topic_is_read_from_its_own_offsets_on(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock
) -> None:
    for topic in topics:
        write(kafka, topic, f"{topic}-a", f"{topic}-b")
    followed = [shared.follow(topic, Signal) for topic in topics]
    assert [read(clock, one) for one in followed] == [[f"{topic}-a", f"{topic}-b"] for topic in topics]
    assert [read(clock, one) for one in followed] == [[]] * 5
    write(kafka, topics[3], "late")
    assert [read(clock, one) for one in followed] == [[], [], [], ["late"], []]
    again = shared.follow(topics[1], Signal, followed[1].offsets())
    assert read(clock, again) == []


def test_the_number_of_topics_costs_no_threads(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock
) -> None:
    write(kafka, topics[0], "a")
    read(clock, shared.follow(topics[0], Signal))
    before = threading.active_count()
    for topic in topics:
        write(kafka, topic, "b")
        assert "b" in read(clock, shared.follow(topic, Signal))
    assert threading.active_count() == before


def test_what_this_process_wrote_is_there_at_once(topics: list[str], shared: SharedKafka) -> None:
    followed = shared.follow(topics[0], Signal)
    assert followed.poll() == []
    shared.write(topics[0], [("k", signal("mine"))])
    assert [one.record.signal_id for one in followed.poll()] == ["mine"]  # though the clock stands still


def test_a_topic_that_is_deleted_is_found_missing_and_the_others_are_read_on(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock
) -> None:
    followed = [shared.follow(topic, Signal) for topic in topics]
    assert [read(clock, one) for one in followed] == [[]] * len(topics)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_topics([topics[0]])
    eventually(lambda: topics[0] not in admin.list_topics())
    admin.close()
    for topic in topics[1:]:
        write(kafka, topic, "on")
    assert [read(clock, one) for one in followed[1:]] == [["on"]] * 4
    with pytest.raises((NotFound, Unavailable)):
        read(clock, followed[0])


def test_a_topic_that_is_gone_costs_the_others_no_further_question(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, *others = [shared.follow(topic, Signal) for topic in topics]
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_topics([topics[0]])
    eventually(lambda: topics[0] not in admin.list_topics())
    admin.close()
    for _ in range(2):  # the first round finds it missing
        read(clock, others[0])
    asked, ask = [], shared.ask

    def counted(question: Callable[[Cluster], Any]) -> Any:
        asked.append(question)
        return ask(question)

    monkeypatch.setattr(shared, "ask", counted)
    clock.advance(60)
    assert [one.poll() for one in others] == [[]] * 4
    assert len(asked) == 2  # whether the topics are the same, and where they end
    with pytest.raises(NotFound):
        gone.poll()


def test_a_topic_that_was_made_anew_is_told_even_if_nothing_is_written(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock
) -> None:
    followed = shared.follow(topics[0], Signal)
    assert read(clock, followed) == []
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_topics([topics[0]])
    eventually(lambda: topics[0] not in admin.list_topics())
    admin.close()
    ensure_topics(kafka, {topics[0]: 2})
    with pytest.raises(Conflict, match="made anew"):
        read(clock, followed)


def test_what_the_log_no_longer_holds_is_counted_and_reading_goes_on(
    kafka: str, topics: list[str], shared: SharedKafka, clock: ManualClock
) -> None:
    with RecordWriter(kafka) as writer:
        for number in range(4):
            writer.send(topics[0], signal(str(number)), key="k")
        writer.flush()
    followed = shared.follow(topics[0], Signal)
    with Cluster(kafka) as cluster:
        ends = cluster.ends(topics[0], [0, 1])
    partition = max(ends, key=lambda number: ends[number])
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({TopicPartition(topics[0], partition): 3})
    admin.close()
    assert eventually(lambda: read(clock, followed)) == ["3"]
    assert followed.lost == 3


def test_the_rest_holds_what_a_transaction_has_just_committed(
    kafka: str, topics: list[str], shared: SharedKafka
) -> None:
    followed = shared.follow(topics[0], Signal)
    with TransactionWriter(kafka, f"{topics[0]}-rest", timeout_s=20) as writer:
        for number in range(10):
            writer.write_within([Outgoing(topics[0], encode(signal(str(number))), b"k")], 20)
            assert [one.record.signal_id for one in followed.rest()] == [str(number)]
    assert list(followed.rest()) == []


def test_brokers_that_are_not_there_are_unavailable_and_asked_anew() -> None:
    (port,) = free_ports(1)
    shared = SharedKafka(f"127.0.0.1:{port}")
    for _ in range(2):
        with pytest.raises(Unavailable):
            shared.follow("t", Signal)
