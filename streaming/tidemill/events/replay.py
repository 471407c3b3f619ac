"""Several records to several topics in one transaction, and one record read back by its place."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.clock import Clock
from tidemill.core.errors import Unavailable
from tidemill.events.cluster import MAX_MESSAGE_BYTES, kafka_failures, reach
from tidemill.events.unpack import unpack_by_batch

__all__ = ["Outgoing", "TransactionWriter", "read_value"]

_READ_S = 10.0


@dataclass(frozen=True)
class Outgoing:
    """A record to be written as it is. Without a partition its key decides."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class TransactionWriter:
    """Writes records all together or not at all. A context; one at a time by its id: a newer one ends the older.

    Args:
        bootstrap: Kafka's address.
        transactional_id: who writes.
        timeout_s: longest time that connecting, and each step of a transaction, waits for the brokers.

    Every method raises `Unavailable` where the brokers do not answer; what was not committed was not written.
    """

    def __init__(self, bootstrap: str, transactional_id: str, *, timeout_s: float = 60.0) -> None:
        reach(bootstrap)
        milliseconds = round(timeout_s * 1000)
        with kafka_failures(f"Kafka at {bootstrap}"):
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap.split(","),
                client_id=transactional_id,
                transactional_id=transactional_id,
                acks="all",
                max_request_size=MAX_MESSAGE_BYTES,
                linger_ms=5,
                bootstrap_timeout_ms=min(milliseconds, 10_000),
                max_block_ms=milliseconds,
                delivery_timeout_ms=2 * milliseconds,
                request_timeout_ms=min(milliseconds, 30_000),
            )
            try:
                self._producer.init_transactions()
            except BaseException:
                self._producer.close(timeout=0)
                raise

    def __enter__(self) -> "TransactionWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Drop the connection."""
        self._producer.close(timeout=timeout_s)

    def write(self, records: Sequence[Outgoing]) -> None:
        """Write all of them in one transaction."""
        with kafka_failures("writing in a transaction"), self._transaction():
            for one in records:
                self._producer.send(
                    one.topic, value=one.value, key=one.key, headers=list(one.headers), partition=one.partition
                )

    def write_within(self, records: Sequence[Outgoing], deadline_s: float) -> None:
        """Write all of them; raises `Unavailable` where that takes longer, and whether they are written is not known.

        The writer is of no use then: close it, and make another, whose beginning settles what this one left open.
        """
        failed: list[BaseException] = []

        def write() -> None:
            try:
                self.write(records)
            except BaseException as error:
                failed.append(error)

        # A commit waits for the brokers without end; a thread that nobody waits for is what can be left behind.
        thread = threading.Thread(target=write, name="transaction", daemon=True)
        thread.start()
        thread.join(deadline_s)
        if thread.is_alive():
            raise Unavailable(f"writing in a transaction: no answer within {deadline_s:g} s")
        if failed:
            raise failed[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._producer.begin_transaction()
        try:
            yield
            self._producer.commit_transaction()
        except kafka_errors.ProducerFencedError:
            raise  # another one with this id has begun, and has ended this transaction
        except BaseException:
            self._producer.abort_transaction()
            raise


def read_value(bootstrap: str, topic: str, partition: int, offset: int, *, clock: Clock) -> bytes | None:
    """The value of the record at exactly this place, None where the log says that it no longer holds it.

    Raises `Unavailable` where that cannot be known, because the brokers do not answer in time.
    """
    place, end = TopicPartition(topic, partition), clock.monotonic() + _READ_S
    with kafka_failures(f"reading {topic}"):
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            client_id="tidemill-replay",
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
        )
        try:
            unpack_by_batch(consumer)  # a header beside it whose name is no text would end the read
            consumer.assign([place])
            if not consumer.beginning_offsets([place])[place] <= offset < consumer.end_offsets([place])[place]:
                return None
            consumer.seek(place, offset)
            while clock.monotonic() < end:
                for record in consumer.poll(timeout_ms=500, max_records=1).get(place, ()):
                    return record.value if record.offset == offset else None
            raise Unavailable(f"reading {topic}: no answer within {_READ_S:.0f} s", hint="try again")
        except kafka_errors.OffsetOutOfRangeError:
            return None
        finally:
            consumer.close()
