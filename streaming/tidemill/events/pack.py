"""Many records handed to kafka-python's producer at a time, as record batches that are made here.

Its own way takes 16 µs of processor time a record, in some sixty calls and with a future for each, which is as much as
all the rest that a label costs; one loop over a batch takes 1 µs. All else is the producer's: sequence numbers, the
transaction, checksums, sending, sending again.

This reaches into the producer's accumulator, which is not public: `send_together` calls `send` record by record unless
kafka-python has the very version that this was tested with.
Source of the format: https://kafka.apache.org/documentation/#messageformat (v2).
"""

from collections.abc import Iterator, Sequence

from kafka import KafkaProducer, TopicPartition
from kafka import __version__ as kafka_version
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

from tidemill.events.unpack import TESTED

__all__ = ["Sent", "send_together"]

_MOST_BYTES = 900_000
"""Of one batch: below a megabyte, which a topic takes unless told otherwise. A partition's batches go one by one."""

_MAGIC, _UNCOMPRESSED = 2, 0


class Sent:
    """Records that were sent together: once their transaction is committed, where they stand."""

    def __init__(self, batch: ProducerBatch, records: Sequence[tuple[bytes, bytes]]) -> None:
        self.records = records
        self._written, self._made_at = batch.produce_future, batch.records._builder._first_timestamp

    def placed(self) -> tuple[int, int] | None:
        """The first record's offset, which the others follow, and when all arrived; None where nobody said."""
        if not self._written.succeeded():
            return None
        offset, arrived_at, failed = self._written.value
        if failed is not None or offset is None or offset < 0:  # of a batch that was sent again it may not be known
            return None
        return offset, self._made_at if arrived_at in {None, -1} else arrived_at


def send_together(
    producer: KafkaProducer, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]
) -> list[Sent] | None:
    """Append records (key, value) to a partition, in the transaction that is open.

    They are written by the time that `commit_transaction` returns; it raises where one of them is not. Returns the
    records by batch, which know then where they stand; None with a version of kafka-python that does not tell.
    """
    if kafka_version != TESTED:
        for key, value in records:
            producer.send(topic, value, key=key, partition=partition)
        return None
    producer.partitions_for(topic)  # waits until its leader is known, as `send` does
    place = TopicPartition(topic, partition)
    producer._transaction_manager.maybe_add_partition_to_transaction(place)
    accumulator = producer._accumulator
    sent: list[Sent] = []
    start = 0
    for batch in _batches(place, records):
        sent.append(Sent(batch, records[start : start + batch.record_count]))
        start += batch.record_count
        with accumulator._tp_lock(place):
            accumulator._batches[place].append(batch)
            accumulator._incomplete.add(batch)
    producer._sender.wakeup()
    return sent


def _batches(place: TopicPartition, records: Sequence[tuple[bytes, bytes]]) -> Iterator[ProducerBatch]:
    start, size = 0, 0
    for number, (key, value) in enumerate(records):
        size += len(key) + len(value) + 20
        if size > _MOST_BYTES and number > start:
            yield _batch(place, records[start:number])
            start, size = number, len(key) + len(value) + 20
    if start < len(records):
        yield _batch(place, records[start:])


def _batch(place: TopicPartition, records: Sequence[tuple[bytes, bytes]]) -> ProducerBatch:
    """One batch. The producer's own builder makes the first record, and so the time of all, and later the header."""
    made = MemoryRecordsBuilder(_MAGIC, _UNCOMPRESSED, _MOST_BYTES)
    made.append(None, *records[0], [])
    parts: list[bytes] = []
    for number, (key, value) in enumerate(records[1:], 1):
        # Attributes and the time's difference are 0, and so is the number of headers after the value.
        body = b"\0\0%b%b%b%b%b\0" % (_varint(number), _varint(len(key)), key, _varint(len(value)), value)
        parts += _varint(len(body)), body
    builder = made._builder
    builder._buffer += b"".join(parts)
    builder._num_records = len(records)
    builder._last_offset = len(records) - 1
    made._next_offset = len(records)
    return ProducerBatch(place, made)


def _encoded(number: int) -> bytes:
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


_SMALL = [_encoded(number) for number in range(1 << 13)]


def _varint(number: int) -> bytes:
    """A number from 0 on as zigzag; nearly all have one or two bytes."""
    return _SMALL[number] if number < len(_SMALL) else _encoded(number)
