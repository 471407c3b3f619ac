"""Records packed together are those that kafka-python would have packed one by one."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from tidemill.events import pack
from tidemill.events.cluster import ensure_topics
from tidemill.events.pack import _batches, send_together
from tidemill.events.unpack import TESTED
from tidemill.testing import eventually

PLACE = TopicPartition("t", 0)
BYTES = st.binary(max_size=300) | st.just(b"x" * 20_000)
RECORDS = st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=20)


def packed(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, int]]:
    """Bytes and number of records of each batch."""
    made = []
    for batch in _batches(PLACE, records):
        batch.records.close()
        made.append((bytes(batch.records.buffer()), batch.record_count))
    return made


@given(RECORDS)
@settings(deadline=None)
def test_a_batch_is_the_one_that_kafka_python_makes(records: list[tuple[bytes, bytes]]) -> None:
    ((made, count),) = packed(records)
    (read,) = list(MemoryRecords(made))
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for number, (key, value) in enumerate(records):
        builder.append(number, read.first_timestamp, key, value, [])
    assert made == bytes(builder.build())
    assert count == len(records)


@given(st.lists(st.tuples(st.just(b"k"), st.just(b"x" * 300_000) | st.just(b"x" * 950_000)), max_size=8))
@settings(max_examples=20, deadline=None)
def test_batches_are_below_a_megabyte_where_records_are_and_hold_all_in_order(
    records: list[tuple[bytes, bytes]],
) -> None:
    made = packed(records)
    found = [(one.key, one.value) for data, _ in made for batch in MemoryRecords(data) for one in batch]
    assert found == records
    assert all(len(data) < 1_000_000 or count == 1 for data, count in made)


@pytest.fixture
def writer(kafka: str, topic_prefix: str) -> Iterator[Any]:
    """A producer with transactions; its topic has one partition."""
    ensure_topics(kafka, {topic_prefix: 1})
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=topic_prefix, acks="all")
    producer.init_transactions()
    yield producer
    producer.close(timeout=5)


def read(kafka: str, topic: str) -> list[tuple[int, bytes, bytes]]:
    """All that is committed."""
    consumer: Any = KafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek(place, 0)
    found: list[tuple[int, bytes, bytes]] = []
    while consumer.position(place) < consumer.end_offsets([place])[place]:
        for record in consumer.poll(timeout_ms=200).get(place, []):
            found.append((record.offset, record.key, record.value))
    consumer.close()
    return found


@pytest.mark.kafka
@pytest.mark.parametrize("tested", [TESTED, "another version"])
def test_what_a_transaction_commits_is_there_once_and_what_it_aborts_is_not(
    kafka: str, topic_prefix: str, writer: Any, tested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "kafka_version", tested)
    first = [(b"k%d" % n, b"v" * (n % 900)) for n in range(5_000)]
    writer.begin_transaction()
    send_together(writer, topic_prefix, 0, first)
    writer.commit_transaction()
    writer.begin_transaction()
    send_together(writer, topic_prefix, 0, [(b"k", b"aborted")] * 3)
    writer.abort_transaction()
    writer.begin_transaction()
    writer.send(topic_prefix, b"by itself", key=b"a", partition=0)
    send_together(writer, topic_prefix, 0, [(b"b", b"after it")])
    writer.commit_transaction()
    found = read(kafka, topic_prefix)
    assert [(key, value) for _, key, value in found] == [*first, (b"a", b"by itself"), (b"b", b"after it")]
    assert [offset for offset, _, _ in found[:5_000]] == [*range(5_000)]


@pytest.mark.kafka
def test_a_writer_that_was_fenced_commits_nothing(kafka: str, topic_prefix: str, writer: Any) -> None:
    writer.begin_transaction()
    other = KafkaProducer(bootstrap_servers=kafka, transactional_id=topic_prefix, acks="all")
    other.init_transactions()
    send_together(writer, topic_prefix, 0, [(b"k", b"too late")])
    with pytest.raises(KafkaError):
        writer.commit_transaction()
    other.close(timeout=5)
    assert read(kafka, topic_prefix) == []


@pytest.mark.kafka
def test_what_was_sent_together_knows_where_it_stands(kafka: str, topic_prefix: str, writer: Any) -> None:
    records = [(b"k%d" % n, b"v" * 900) for n in range(2_500)]
    writer.begin_transaction()
    sent = send_together(writer, topic_prefix, 0, records)
    assert sent is not None
    assert [batch.placed() for batch in sent] == [None] * len(sent)
    writer.commit_transaction()
    writer.begin_transaction()
    sent += send_together(writer, topic_prefix, 0, records[:1]) or []
    writer.commit_transaction()
    placed = []
    for batch in sent:
        place = batch.placed()
        assert place is not None
        placed += [(at, *record) for at, record in enumerate(batch.records, place[0])]
    assert len(sent) > 3
    assert placed == read(kafka, topic_prefix)


@pytest.mark.kafka
@pytest.mark.parametrize("log_append_time", [True, False])
def test_what_was_sent_together_knows_when_it_arrived(kafka: str, topic_prefix: str, log_append_time: bool) -> None:
    topic = f"{topic_prefix}.timed"
    ensure_topics(kafka, {topic: 1}, log_append_time=log_append_time)
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=topic, acks="all")
    producer.init_transactions()
    producer.begin_transaction()
    (sent,) = send_together(producer, topic, 0, [(b"k", b"v")]) or []
    producer.commit_transaction()
    producer.close(timeout=5)
    consumer: Any = KafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek(place, 0)
    found = eventually(lambda: consumer.poll(timeout_ms=200).get(place))
    consumer.close()
    assert sent.placed() == (0, found[0].timestamp)
