"""What the brokers know of topics: which there are, under which ids, and where their logs start and end."""

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any
from uuid import UUID

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka import errors as kafka_errors

from tidemill.core.errors import InvalidInput, NotFound, Permanent, TidemillError, Unavailable
from tidemill.events.sources import Source

__all__ = ["MAX_MESSAGE_BYTES", "Cluster", "ensure_topics", "kafka_failures", "reach"]

MAX_MESSAGE_BYTES = 8 << 20
"""Largest record on topics that we make, and largest that we send; events carry pictures."""

_PERMANENT = (
    kafka_errors.AuthorizationError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.InvalidTopicError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.PolicyViolationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
)


class Cluster:
    """A connection to ask the brokers questions. Thread-safe. Close it, or use it as a context.

    Every method raises `Unavailable` where the brokers do not answer in time.
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 10.0) -> None:
        self.bootstrap = bootstrap
        milliseconds = round(timeout_s * 1000)
        reach(bootstrap, timeout_s)
        with kafka_failures(f"Kafka at {bootstrap}"):
            self._admin = KafkaAdminClient(
                bootstrap_servers=bootstrap.split(","),
                client_id="tidemill-admin",
                request_timeout_ms=milliseconds,
                bootstrap_timeout_ms=milliseconds,
                reconnect_backoff_max_ms=1000,
            )
        self._cluster_of: dict[str, str] = {}
        """Cluster by topic id: where another cluster answers at the old address, all its topics have other ids."""

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self._admin.close()

    def sources(self, topic: str) -> dict[int, Source]:
        """The topic's present sources by partition; raises `NotFound` where there is no such topic."""
        with kafka_failures(f"topic {topic} at {self.bootstrap}"):
            found = self._admin.describe_topics([topic])[0]
            code = found["error_code"]
            if code == kafka_errors.UnknownTopicOrPartitionError.errno:
                raise NotFound(
                    f"Kafka at {self.bootstrap} has no topic {topic}", hint="`tidemill apply` makes a model's topics"
                )
            if code:
                raise kafka_errors.for_code(code)()
            return self._sources(found)

    def sources_of(self, topics: Collection[str]) -> dict[str, dict[int, Source]]:
        """Likewise of many topics, in one request; those that there are not are left out."""
        with kafka_failures(f"topics at {self.bootstrap}"):
            described = self._admin.describe_topics(list(topics)) if topics else ()
            return {found["name"]: self._sources(found) for found in described if not found["error_code"]}

    def _sources(self, found: Mapping[str, Any]) -> dict[int, Source]:
        topic_id = str(found["topic_id"])
        if topic_id not in self._cluster_of:
            self._cluster_of[topic_id] = str(self._admin.describe_cluster()["cluster_id"])
        numbers = sorted(part["partition_index"] for part in found["partitions"])
        return {number: Source(self._cluster_of[topic_id], topic_id, number) for number in numbers}

    def gone(self, sources: Iterable[Source]) -> set[Source]:
        """Those whose topic this cluster had and has no longer. They never come back: no id is given twice."""
        with kafka_failures(f"topics at {self.bootstrap}"):
            cluster_id = str(self._admin.describe_cluster()["cluster_id"])
            here = {source for source in sources if source.cluster == cluster_id}
            dead = {topic_id for topic_id in {source.topic_id for source in here} if self._is_unknown(topic_id)}
        return {source for source in here if source.topic_id in dead}

    def _is_unknown(self, topic_id: str) -> bool:
        (found,) = self._admin.describe_topics([UUID(topic_id)])
        if found["error_code"] not in {0, kafka_errors.UnknownTopicIdError.errno}:
            raise kafka_errors.for_code(found["error_code"])()
        return bool(found["error_code"])

    def starts(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The lowest offset that each partition still holds."""
        return self._offsets(topic, partitions, OffsetSpec.EARLIEST)

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last committed record of each partition (read_committed)."""
        return self._offsets(topic, partitions, OffsetSpec.LATEST)

    def ends_of(self, topics: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        """Likewise of many topics, in one request to each broker; one that cannot be told is the failure of all."""
        wanted = {TopicPartition(topic, number): OffsetSpec.LATEST for topic in topics for number in topics[topic]}
        found: dict[str, dict[int, int]] = {topic: {} for topic in topics}
        if wanted:
            with kafka_failures(f"offsets of {len(topics)} topics at {self.bootstrap}"):
                ends = self._admin.list_partition_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
            for part, at in ends.items():
                found[part.topic][part.partition] = at.offset
        return found

    def acknowledged(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last record of each partition, those of transactions included that are not over yet."""
        return self._offsets(topic, partitions, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)

    def members(self, group: str) -> int:
        """How many members a consumer group has now; 0 for one that there is not, or that no broker looks after."""
        with kafka_failures(f"group {group} at {self.bootstrap}"):
            try:
                return len(self._admin.describe_groups([group])[group]["members"])
            except (kafka_errors.GroupIdNotFoundError, kafka_errors.CoordinatorNotAvailableError):
                return 0

    def _offsets(
        self,
        topic: str,
        partitions: Iterable[int],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[int, int]:
        wanted = {TopicPartition(topic, number): spec for number in partitions}
        if not wanted:
            return {}
        with kafka_failures(f"offsets of {topic} at {self.bootstrap}"):
            found = self._admin.list_partition_offsets(wanted, isolation_level=isolation)
        return {tp.partition: at.offset for tp, at in found.items()}

    def ensure(
        self,
        topics: Mapping[str, int],
        *,
        log_append_time: bool = True,
        retention_ms: int | None = None,
        compacted: bool = False,
    ) -> None:
        """As `ensure_topics`."""
        config = {
            "message.timestamp.type": "LogAppendTime" if log_append_time else "CreateTime",
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        }
        if retention_ms is not None:
            config["retention.ms"] = str(retention_ms)
        if compacted:
            config["cleanup.policy"] = "compact,delete"
        existing = self.sources_of(topics)
        with kafka_failures(f"making topics at {self.bootstrap}"):
            for name, partitions in topics.items():
                if name in existing:
                    continue
                wanted = {"num_partitions": partitions, "replication_factor": -1, "configs": config}
                try:
                    self._admin.create_topics({name: wanted})
                except kafka_errors.TopicAlreadyExistsError:
                    continue  # someone else made it meanwhile
            self._admin.wait_for_topics(list(topics))


def ensure_topics(
    bootstrap: str,
    topics: Mapping[str, int],
    *,
    log_append_time: bool = True,
    retention_ms: int | None = None,
    compacted: bool = False,
) -> None:
    """Make the topics (name to number of partitions) that do not exist yet, and wait until they can be used.

    Args:
        bootstrap: Kafka's address, `host:port[,host:port]`.
        topics: name to number of partitions. A topic that exists keeps its partitions and its configuration.
        log_append_time: the broker stamps each record on arrival; False keeps the producer's timestamp.
        retention_ms: how long records are kept; -1 for ever, None for the broker's default.
        compacted: whether of each key only the newest record is kept, for as long.

    Raises:
        Unavailable: the brokers do not answer.
        InvalidInput: a name or number that Kafka refuses.
    """
    with Cluster(bootstrap) as cluster:
        cluster.ensure(topics, log_append_time=log_append_time, retention_ms=retention_ms, compacted=compacted)


def reach(bootstrap: str, timeout_s: float = 5.0) -> None:
    """Return if one of the addresses takes a connection; raises `Unavailable`, or `InvalidInput` for no address.

    Asked before a client is made: one that cannot be made leaves a thread behind, and takes long to say so.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidInput(f"Kafka's address is host:port[,host:port], not {bootstrap!r}")
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
            return
    raise Unavailable(
        f"Kafka at {bootstrap} does not answer", hint="is it running? `tidemill status` shows what runs here"
    )


@contextmanager
def kafka_failures(doing: str) -> Iterator[None]:
    """Turn kafka-python's errors into ours: what cannot be helped by trying again, and what may be."""
    try:
        yield
    except TidemillError:
        raise
    except (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError) as error:
        raise InvalidInput(f"{doing}: the record is larger than Kafka takes: {error}") from error
    except (kafka_errors.InvalidTopicError, kafka_errors.InvalidPartitionsError) as error:
        raise InvalidInput(f"{doing}: {error}") from error
    except _PERMANENT as error:
        raise Permanent(f"{doing}: {error}") from error
    except kafka_errors.CorruptRecordError as error:
        raise Unavailable(
            f"{doing}: records are damaged: {error}",
            hint="they are fetched again; if that does not help, see the broker's log",
        ) from error
    except (kafka_errors.KafkaError, OSError) as error:
        raise Unavailable(
            f"{doing}: no answer ({type(error).__name__}: {error})",
            hint="is it running? `tidemill status` shows what runs here",
        ) from error
