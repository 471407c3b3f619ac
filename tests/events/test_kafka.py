from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from tidemill.events.cluster import MAX_MESSAGE_BYTES, Cluster
from tidemill.events.kafka import RecordReader, RecordWriter, Stamped, ensure_topics
from tidemill.events.records import Signal, encode
from tidemill.events.replay import Outgoing, TransactionWriter
from tidemill.events.sources import Source
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually

pytestmark = pytest.mark.kafka


def signal(number: int) -> Signal:
    return Signal(
        signal_id=str(number), kind="drift", feature="x", time=number, version="v", evidence=1.0, message="moved"
    )


@pytest.fixture
def topic(kafka: str, topic_prefix: str) -> str:
    name = f"{topic_prefix}.signals"
    ensure_topics(kafka, {name: 2})
    return name


@pytest.fixture
def writer(kafka: str) -> Iterator[RecordWriter]:
    with RecordWriter(kafka) as opened:
        yield opened


def read_all(reader: RecordReader[Signal]) -> list[Stamped[Signal]]:
    found: list[Stamped[Signal]] = []

    def finished() -> bool:
        found.extend(reader.poll(timeout_s=0.1))
        return reader.at_end()

    eventually(finished, 20)
    return found


def test_a_record_is_read_with_its_source_offset_and_arrival(kafka: str, topic: str, writer: RecordWriter) -> None:
    before = to_ms(SystemClock().now())
    for number in range(20):
        writer.send(topic, signal(number), key=f"k{number}")
    writer.flush()
    with RecordReader(kafka, topic, Signal) as reader, Cluster(kafka) as cluster:
        found = read_all(reader)
        sources = cluster.sources(topic)
    assert sorted(int(stamped.record.signal_id) for stamped in found) == list(range(20))
    for partition, source in sources.items():
        mine = [stamped for stamped in found if stamped.source == source]
        assert [stamped.offset for stamped in mine] == list(range(len(mine)))
        assert source.partition == partition
    assert all(before - 1000 <= stamped.timestamp_ms <= to_ms(SystemClock().now()) for stamped in found)


def test_a_reader_goes_on_from_the_offsets_of_another(kafka: str, topic: str, writer: RecordWriter) -> None:
    for number in range(10):
        writer.send(topic, signal(number), key=f"k{number}")
    writer.flush()
    with RecordReader(kafka, topic, Signal) as first:
        read_all(first)
        offsets = first.offsets()
    writer.send(topic, signal(10), key="k")
    writer.flush()
    with RecordReader(kafka, topic, Signal, offsets) as second:
        assert not second.at_end()
        assert [stamped.record.signal_id for stamped in read_all(second)] == ["10"]


def test_offsets_below_the_start_of_the_log_are_counted_as_lost(kafka: str, topic: str, writer: RecordWriter) -> None:
    for number in range(10):
        writer.send(topic, signal(number), key="k")
    writer.flush()
    with RecordReader(kafka, topic, Signal) as reader:
        last = read_all(reader)[-1]
    partition, end = last.source.partition, last.offset
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({TopicPartition(topic, partition): end})
    admin.close()
    with RecordReader(kafka, topic, Signal, {partition: 2}) as reader:
        assert reader.lost == end - 2
        assert [stamped.offset for stamped in read_all(reader)] == [end]


def test_what_is_no_record_is_skipped_and_told(kafka: str, topic: str, writer: RecordWriter) -> None:
    bad: list[tuple[Source, int, bytes]] = []
    values = [b"\xff", b"{}", b'{"signal_id": 3}', b"[" * 100_000, b""]
    for value in values:
        writer.send(topic, value, key="k")
    writer.send(topic, signal(1), key="k")
    writer.flush()
    with RecordReader(kafka, topic, Signal, on_bad=lambda *told: bad.append(told)) as reader:
        assert [stamped.record.signal_id for stamped in read_all(reader)] == ["1"]
    assert [value for _, _, value in bad] == values


def test_records_of_an_aborted_transaction_are_not_read(kafka: str, topic: str, writer: RecordWriter) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=f"{topic}.tx", acks="all")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value=b"{}", key=b"k")
    producer.flush()
    producer.abort_transaction()
    producer.close()
    writer.send(topic, signal(1), key="k")
    writer.flush()
    with RecordReader(kafka, topic, Signal) as reader:
        assert [stamped.record.signal_id for stamped in read_all(reader)] == ["1"]


def test_a_topic_made_anew_is_another_source_and_ends_its_readers(kafka: str, topic: str, writer: RecordWriter) -> None:
    writer.send(topic, signal(1), key="k")
    writer.flush()
    with RecordReader(kafka, topic, Signal) as reader:
        read_all(reader)
        old = reader.sources
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.delete_topics([topic])
        admin.close()
        eventually(lambda: made_anew(kafka, topic, old))
        with RecordWriter(kafka) as fresh:
            for number in range(5):  # more than the old one had, so that no offset is out of range
                fresh.send(topic, signal(number), key="k")
            fresh.flush()
        with pytest.raises(Conflict, match="made anew"):
            eventually(lambda: reader.poll(timeout_s=0.1) and None, 20)


def test_sources_of_a_topic_that_was_deleted_are_gone_for_ever_and_others_may_come_back(kafka: str, topic: str) -> None:
    with Cluster(kafka) as cluster:
        old = cluster.sources(topic)
        assert cluster.gone(old.values()) == set()
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.delete_topics([topic])
        admin.close()
        eventually(lambda: made_anew(kafka, topic, old))
        elsewhere = Source("another cluster", old[0].topic_id, 0)
        assert cluster.gone([*old.values(), *cluster.sources(topic).values(), elsewhere]) == set(old.values())


def made_anew(kafka: str, topic: str, old: dict[int, Source]) -> bool:
    try:
        ensure_topics(kafka, {topic: 2})
        with Cluster(kafka) as cluster:
            return set(cluster.sources(topic).values()).isdisjoint(old.values())
    except (NotFound, Unavailable):  # the deletion is still under way
        return False


def test_a_topic_that_exists_is_left_as_it_is(kafka: str, topic: str) -> None:
    with Cluster(kafka) as cluster:
        before = cluster.sources(topic)
        ensure_topics(kafka, {topic: 5})
        assert cluster.sources(topic) == before


def test_a_topic_that_is_not_there_is_said_to_be_absent(kafka: str) -> None:
    with pytest.raises(NotFound, match="no topic nowhere"):
        RecordReader(kafka, "nowhere", Signal)


def test_a_record_that_kafka_refuses_for_its_size_is_the_callers_mistake(topic: str, writer: RecordWriter) -> None:
    with pytest.raises(InvalidInput, match="larger"):
        writer.send(topic, b"x" * (MAX_MESSAGE_BYTES + 1), key="k")


def test_whoever_asks_is_told_what_became_of_one_record(topic: str, writer: RecordWriter) -> None:
    told: list[BaseException | None] = []
    writer.send(topic, signal(1), key="k", on_done=told.append)
    writer.flush()
    assert told == [None]


def test_a_broker_that_is_not_there_is_unavailable_at_once() -> None:
    (port,) = free_ports(1)
    for make in (Cluster, RecordWriter, lambda address: RecordReader(address, "t", Signal)):
        with pytest.raises(Unavailable, match="does not answer"):
            make(f"127.0.0.1:{port}")


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        Cluster("localhost")


def test_the_rest_of_a_topic_holds_what_a_transaction_has_just_committed(kafka: str, topic: str) -> None:
    with (
        TransactionWriter(kafka, f"{topic}-rest", timeout_s=20) as writer,
        RecordReader(kafka, topic, Signal) as reader,
    ):
        for number in range(20):
            # The brokers call a transaction committed before its mark is in every partition.
            writer.write_within([Outgoing(topic, encode(signal(number)), b"k")], 20)
            assert [stamped.record.signal_id for stamped in reader.rest()] == [str(number)]
        assert list(reader.rest()) == []
