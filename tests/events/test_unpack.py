"""Unpacked by the batch, records are what kafka-python reads one by one."""

from typing import Any

import kafka as kafka_python
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from tidemill.events import unpack
from tidemill.events.cluster import ensure_topics
from tidemill.events.unpack import TESTED, Unpacked, _PartitionRecords, _unpack, unpack_by_batch

NOW = 1_790_000_000_000
BYTES = st.none() | st.binary(max_size=300) | st.just(b"x" * 20_000)
RECORDS = st.lists(
    st.tuples(
        st.integers(-(2**31), 2**31),
        BYTES,
        BYTES,
        st.lists(st.tuples(st.text(max_size=100), st.none() | st.binary(max_size=100)), max_size=3),
    ),
    min_size=1,
    max_size=80,
)


def built(records: list[Any], compression: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for number, (delta, key, value, headers) in enumerate(records):
        builder.append(number, NOW + delta, key, value, headers)
    return bytes(builder.build())


def seen(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


@given(RECORDS, st.sampled_from([0, 1]))
def test_a_batch_holds_what_kafka_python_finds_in_it(records: list[Any], compression: int) -> None:
    data = built(records, compression)
    assert [seen(one) for one in _unpack(DefaultRecordBatch(data))] == [seen(one) for one in DefaultRecordBatch(data)]


@given(RECORDS, st.data())
def test_what_is_no_batch_is_corrupt_and_nothing_else(records: list[Any], data: Any) -> None:
    content = bytearray(built(records, 0))
    place = data.draw(st.integers(DefaultRecordBatch.HEADER_STRUCT.size, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    try:
        found = [seen(one) for one in _unpack(DefaultRecordBatch(bytes(content)))]
    except CorruptRecordError:
        return
    assert len(found) == len(records)


def read(bootstrap: str, topic: str, isolation: str, count: int, *, by_batch: bool, at_once: int) -> list[Any]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none", isolation_level=isolation
    )
    if by_batch:
        assert unpack_by_batch(consumer)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek(place, 3)  # in the middle of a batch
    found: list[Any] = []
    while len(found) < count:
        found += consumer.poll(timeout_ms=500, max_records=at_once).get(place, [])
        if found:
            assert consumer.position(place) > found[-1].offset
    end = consumer.end_offsets([place])[place]
    while consumer.position(place) < end:  # markers and what was aborted lie behind the last record
        assert not consumer.poll(timeout_ms=500)
    consumer.close()
    assert {type(one) for one in found} == {Unpacked} if by_batch else {type(one) for one in found} != {Unpacked}
    return [seen(one) for one in found]


@pytest.mark.kafka
@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
@pytest.mark.parametrize("append_time", [True, False])
def test_a_topic_with_transactions_reads_the_same_both_ways(
    kafka: str, topic_prefix: str, isolation: str, append_time: bool
) -> None:
    ensure_topics(kafka, {topic_prefix: 1}, log_append_time=append_time)
    plain = KafkaProducer(bootstrap_servers=kafka, acks="all", compression_type="gzip", linger_ms=50)
    for number in range(20):
        plain.send(topic_prefix, key=None if number % 3 else b"k", value=b"v" * number, headers=[("h", b"%d" % number)])
    plain.flush()
    plain.close()
    writer = KafkaProducer(bootstrap_servers=kafka, acks="all", transactional_id=topic_prefix, linger_ms=50)
    writer.init_transactions()
    for aborted in (True, False, True):
        writer.begin_transaction()
        for number in range(10):
            writer.send(topic_prefix, value=b"aborted" if aborted else b"kept %d" % number)
        writer.flush()
        if aborted:
            writer.abort_transaction()
        else:
            writer.commit_transaction()
    writer.close()
    count = 27 if isolation == "read_committed" else 47
    expected = read(kafka, topic_prefix, isolation, count, by_batch=False, at_once=500)
    assert len(expected) == count
    for at_once in (7, 500):
        assert read(kafka, topic_prefix, isolation, count, by_batch=True, at_once=at_once) == expected


class Name(str):
    """A header's name that goes out as bytes that are no text."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff" + super().encode()


def test_a_header_name_that_is_no_text_harms_nothing() -> None:
    data = built([(0, b"k", b"v", [(Name("a"), b"1"), ("b", b"2")])], 0)
    with pytest.raises(
        CorruptRecordError, match="UnicodeDecodeError"
    ):  # else this way of reading has lost one of its reasons
        list(DefaultRecordBatch(data))
    (record,) = _unpack(DefaultRecordBatch(data))
    assert (record.value, list(record.headers)) == (b"v", [("\ufffda", b"1"), ("b", b"2")])


def test_what_was_fetched_and_is_damaged_is_dropped_so_that_it_is_fetched_again() -> None:
    good, damaged = built([(0, None, b"v" * 99, [])], 0), bytearray(built([(0, None, b"v" * 99, [])], 0))
    damaged[-20] ^= 1
    part = _PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(good + bytes(damaged)))
    assert [one.value for one in part.take(10)] == [b"v" * 99]
    assert not part  # the next poll fetches from `next_fetch_offset`
    assert part.next_fetch_offset == 1
    part = _PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(bytes(damaged)))
    with pytest.raises(CorruptRecordError):
        part.take(10)
    assert not part


def test_the_installed_kafka_python_is_the_one_whose_insides_are_known() -> None:
    assert kafka_python.__version__ == TESTED, "compare Fetcher.PartitionRecords with events/unpack.py, then set TESTED"


def test_a_consumer_of_another_version_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "kafka_version", TESTED + "1")
    assert not unpack_by_batch(KafkaConsumer.__new__(KafkaConsumer))
