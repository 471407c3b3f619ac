"""Where a record came from: a source and an offset in it.

A source is a partition of one incarnation of a topic, never a worker: a topic made anew under the same name is a
new source, so that what was known of the old one's offsets cannot hide records of the new one. Offsets of a
source only grow, and have gaps (transactions, compaction): compare with `>`, never with `= +1`.
"""

from dataclasses import dataclass

from tidemill.core.errors import InvalidInput

__all__ = ["Source"]


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One partition of one incarnation of a topic; written `cluster/topic_id/partition`."""

    cluster: str
    """The Kafka cluster's id."""
    topic_id: str
    """The topic's UUID, which Kafka never gives twice."""
    partition: int

    def __str__(self) -> str:
        return f"{self.cluster}/{self.topic_id}/{self.partition}"

    @classmethod
    def parse(cls, text: str) -> "Source":
        """The source that `str()` wrote; raises `InvalidInput` on anything else."""
        cluster, _, rest = text.partition("/")
        topic_id, _, partition = rest.partition("/")
        if not cluster or not topic_id or not partition.isdecimal():
            raise InvalidInput(f"{text!r} is no source: expected cluster/topic_id/partition")
        return cls(cluster, topic_id, int(partition))
