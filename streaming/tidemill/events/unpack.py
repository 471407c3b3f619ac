"""Kafka's record batches unpacked a batch at a time.

For two reasons. kafka-python's own way dies of a header whose name is not UTF-8, so that anyone who may produce could
stop the reading of a topic; here such bytes are replaced. And it takes a record apart in some twenty calls, 7 µs, where
one loop over a batch's bytes takes 2 µs: ingest takes in 45,000 to 52,000 events a second so, else 39,000 to 42,000.

This stands in for `Fetcher.PartitionRecords`, which is not public: `unpack_by_batch` leaves a consumer as it is unless
kafka-python has the very version that this was tested with. With another both gains are lost, but no record.
Source of the format: https://kafka.apache.org/documentation/#messageformat (v2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from kafka import IsolationLevel, KafkaConsumer, TopicPartition
from kafka import __version__ as kafka_version
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint

__all__ = ["TESTED", "Unpacked", "unpack_by_batch"]

TESTED = "3.0.12"
"""The version of kafka-python whose insides are as they are expected here."""


class Unpacked(msgspec.Struct, frozen=True, gc=False):
    """A record as it was read. There are many at a time and no cycles: the garbage collector need not look at them."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def unpack_by_batch(consumer: KafkaConsumer) -> bool:
    """Let a consumer's `poll` return `Unpacked` records; returns whether it does (else they are kafka-python's own)."""
    fetcher = getattr(consumer, "_fetcher", None)
    if kafka_version != TESTED or not isinstance(fetcher, Fetcher):
        return False
    fetcher.PartitionRecords = _PartitionRecords
    return True


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one fetch brought of one partition; the same steps as the original takes, batch by batch."""

    def _unpack_records(self, tp: TopicPartition, records: Any, *_: Any) -> Iterator[Unpacked]:
        try:
            yield from self._all_records(tp, records)
        except Exception:
            self.drain()  # so that the next poll fetches again; this iterator would have nothing more, and be kept
            raise
        self.drain()

    def _all_records(self, tp: TopicPartition, records: Any) -> Iterator[Unpacked]:
        batch = records.next_batch()
        while batch is not None:
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"the batch of {tp} at offset {batch.base_offset} fails its checksum")
            if batch.magic == 2:
                self.leader_epoch = batch.leader_epoch
            if batch.magic != 2 or not self._is_left_out(batch):
                for record in _unpack(batch) if batch.magic == 2 else batch:
                    self.records_read += 1
                    self.next_fetch_offset = record.offset + 1
                    yield record
            if batch.magic == 2:
                self.next_fetch_offset = batch.next_offset  # the last record may have been compacted away
            self.bytes_read += batch.size_in_bytes
            batch = records.next_batch()

    def _is_left_out(self, batch: Any) -> bool:
        """Whether it is a marker, or belongs to a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def _unpack(batch: Any) -> list[Unpacked]:
    batch._maybe_uncompress()
    data, pos = bytes(batch._buffer), batch._pos
    base_offset, first_timestamp = batch.base_offset, batch.first_timestamp
    arrival = batch.max_timestamp if batch.timestamp_type else None  # LogAppendTime: one for the whole batch
    records = []
    try:
        for _ in range(batch.records_count):
            length, pos = _varint(data, pos)
            end = pos + length
            delta, pos = _varint(data, pos + 1)  # after the attributes, which are not used
            offset, pos = _varint(data, pos)
            size, pos = _varint(data, pos)
            key = value = None
            if size >= 0:
                key, pos = data[pos : pos + size], pos + size
            size, pos = _varint(data, pos)
            if size >= 0:
                value, pos = data[pos : pos + size], pos + size
            headers: Sequence[tuple[str, bytes | None]] = _NONE
            if data[pos]:
                headers, pos = _headers(data, pos)
            else:
                pos += 1
            if pos != end:
                raise CorruptRecordError(f"a record at offset {base_offset + offset} is not as long as it says")
            time = first_timestamp + delta if arrival is None else arrival
            records.append(Unpacked(base_offset + offset, time, key, value, headers))
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"the batch at offset {base_offset} cannot be read: {error!r}") from error
    if pos != len(data):
        raise CorruptRecordError(f"{len(data) - pos} bytes are left of the batch at offset {base_offset}")
    return records


_NONE: Sequence[tuple[str, bytes | None]] = ()


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    """A zigzag number and where the next begins; nearly all have one or two bytes."""
    low = data[pos]
    if low < 0x80:
        return (low >> 1) ^ -(low & 1), pos + 1
    high = data[pos + 1]
    if high < 0x80:
        both = low & 0x7F | high << 7
        return (both >> 1) ^ -(both & 1), pos + 2
    found: tuple[int, int] = decode_varint(data, pos)
    return found


def _headers(data: bytes, pos: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, pos = _varint(data, pos)
    if count < 0:
        raise ValueError(f"{count} headers")
    found: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, pos = _varint(data, pos)
        name = data[pos : pos + size].decode(errors="replace")
        size, pos = _varint(data, pos + size)
        found.append((name, None if size < 0 else data[pos : pos + size]))
        pos += max(size, 0)
    return found, pos
