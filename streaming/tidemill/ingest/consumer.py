"""The consumer of events: one member of the model's group, which keeps no offsets by itself."""

from collections.abc import Callable, Iterable
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.telemetry import get_logger
from tidemill.events.cluster import kafka_failures
from tidemill.events.unpack import unpack_by_batch

__all__ = ["FENCED", "Listener", "connect"]

_log = get_logger(__name__)

FENCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
)
"""What a commit raises when another member has the partitions."""


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called on the consumer's IO thread, where nothing may block: what was assigned waits until it is placed."""

    def __init__(self, given: Callable[[Iterable[TopicPartition]], None]) -> None:
        """`given` is told which partitions are this member's from now on."""
        self._given = given

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to finish: batches end between polls, and what is being gathered is dropped."""
        self._given(())

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold the partitions still until they are placed."""
        self._given(assigned)


def connect(bootstrap: str, group: str) -> Any:
    """A member of the group, not subscribed yet; raises `Unavailable` where the brokers do not answer."""
    with kafka_failures(f"Kafka at {bootstrap}"):
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            client_id=group,
            group_id=group,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            # A commit waits behind a fetch on the same connection, so the fetch must not wait long.
            fetch_max_wait_ms=100,
            fetch_max_bytes=16 << 20,
            max_partition_fetch_bytes=8 << 20,
            metadata_max_age_ms=30_000,
            reconnect_backoff_max_ms=1000,
            bootstrap_timeout_ms=5000,
        )
    if not unpack_by_batch(consumer):
        _log.warning("this version of kafka-python unpacks records one by one, which takes longer")
    return consumer
