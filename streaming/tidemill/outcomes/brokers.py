"""Connections of the outcomes worker to Kafka: its topics, consumers and producers with their settings, errors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from tidemill.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from tidemill.events.cluster import MAX_MESSAGE_BYTES, Cluster, ensure_topics, kafka_failures
from tidemill.events.records import Topics
from tidemill.events.sources import Source
from tidemill.events.unpack import unpack_by_batch
from tidemill.outcomes.log import Channel

__all__ = ["TIMEOUT_S", "Brokers"]

TIMEOUT_S = 30.0

_TOGETHER_BYTES, _TOGETHER_MS = 32 << 10, 25
"""The brokers answer once they have so much or so long: a handful of records cost little more than one."""

# It logs every attempt to reconnect; an outage is reported once, by the worker that waits for its end.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class Brokers:
    """Makes connections and closes them.

    Args:
        bootstrap: Kafka's address.
        topics: the model's topics.
    """

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self.names = {
            Channel.PREDICTIONS: topics.predictions,
            Channel.LABELS: topics.labels,
            Channel.RESOLVED: topics.resolved,
            Channel.OUTCOMES: topics.outcomes,
        }
        self._bootstrap, self._model = bootstrap, topics.model
        self.cluster = Cluster(bootstrap)
        self._open: list[Any] = [self.cluster]

    def make_topics(self, keep_ms: int) -> None:
        """Make those that are missing; the worker's own keep `keep_ms`."""
        predictions, resolved = self.names[Channel.PREDICTIONS], self.names[Channel.RESOLVED]
        own = {predictions: 1, self.names[Channel.OUTCOMES]: 1}
        ensure_topics(self._bootstrap, {self.names[Channel.LABELS]: 1})
        ensure_topics(self._bootstrap, own, retention_ms=keep_ms)
        partitions = len(self.cluster.sources(predictions))
        ensure_topics(self._bootstrap, {resolved: partitions}, retention_ms=keep_ms)
        if len(self.cluster.sources(resolved)) != partitions:
            raise InvalidInput(
                f"{predictions} has {partitions} partitions, {resolved} has {len(self.cluster.sources(resolved))}",
                hint=f"they must have as many; delete {resolved}, which is made again",
            )

    def sources(self) -> dict[Channel, dict[int, Source]]:
        """Which incarnation of each topic there is now, by partition."""
        try:
            return {channel: self.cluster.sources(name) for channel, name in self.names.items()}
        except NotFound as error:
            raise Unavailable(f"{error.message}: it was deleted while it was read") from error

    def consumer(self, group: str | None, isolation: str) -> Any:
        """A consumer without partitions, which commits for a group."""
        with self.failures("connecting"):
            consumer = KafkaConsumer(
                bootstrap_servers=self._bootstrap.split(","),
                client_id=f"{self._model}.outcomes",
                group_id=group,
                isolation_level=isolation,
                auto_offset_reset="none",
                enable_auto_commit=False,
                fetch_min_bytes=_TOGETHER_BYTES,
                fetch_max_wait_ms=_TOGETHER_MS,
                max_partition_fetch_bytes=4 << 20,
                fetch_max_bytes=16 << 20,
                reconnect_backoff_max_ms=1000,
                bootstrap_timeout_ms=10_000,
            )
        unpack_by_batch(consumer)  # labels are written by anyone: a header that is no text must not stop their reading
        self._open.append(consumer)
        return consumer

    def producer(self, **settings: Any) -> Any:
        """A producer whose records are written by all brokers, once."""
        with self.failures("connecting"):
            producer = KafkaProducer(
                bootstrap_servers=self._bootstrap.split(","),
                client_id=f"{self._model}.outcomes",
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                batch_size=256 << 10,
                max_request_size=MAX_MESSAGE_BYTES,
                max_block_ms=10_000,
                bootstrap_timeout_ms=10_000,
                request_timeout_ms=10_000,
                delivery_timeout_ms=30_000,
                reconnect_backoff_max_ms=1000,
                **settings,
            )
        self._open.append(producer)
        return producer

    @contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """What kafka-python raises within becomes one of our errors."""
        with kafka_failures(f"{self._model}: {doing}"):
            try:
                yield
            except (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError) as error:
                raise Conflict(
                    f"another outcomes worker of {self._model} took over",
                    hint="one at a time; this one ends, and nothing it did is counted twice",
                ) from error

    def drop(self, consumer: Any) -> None:
        """Close one of the consumers."""
        self._open.remove(consumer)
        consumer.close(autocommit=False)

    def close(self) -> None:
        """Drop all connections; what was sent and not flushed may or may not be written."""
        for client in self._open:
            if isinstance(client, KafkaConsumer):
                client.close(autocommit=False)
            elif isinstance(client, KafkaProducer):
                _end(client)
            else:
                client.close()
        self._open = []


def _end(producer: KafkaProducer) -> None:
    """Close it, whatever it has under way; kafka-python's own way waits for that, and raises where time is short."""
    producer._sender.force_close()
    with suppress(kafka_errors.KafkaError):
        producer.close(timeout=5)
