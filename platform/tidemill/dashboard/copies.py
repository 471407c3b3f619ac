"""What candidates answered to copies of requests, the newest: a log of its own, of which the lake has nothing."""

from collections.abc import Sequence

from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Prediction

__all__ = ["newest_copies"]


def newest_copies(kafka: str, topic: str, most: int) -> Sequence[Prediction]:
    """About `most` of them. Raises `NotFound` where there is no such topic, `Unavailable`."""
    with Cluster(kafka) as cluster:
        sources = cluster.sources(topic)
        ends = cluster.ends(topic, sources)
    begin = {number: max(0, end - most // len(ends)) for number, end in ends.items()}
    with RecordReader(kafka, topic, Prediction, begin, keyed=True) as reader:
        return [stamped.record for stamped in reader.rest()]
