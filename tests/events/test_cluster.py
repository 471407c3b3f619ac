"""What is asked of the brokers, with a broker whose answers the test chooses."""

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import CorruptRecordError

from tidemill.core.errors import Unavailable
from tidemill.events import cluster
from tidemill.events.cluster import Cluster, kafka_failures
from tidemill.events.sources import Source


class Admin:
    """Answers as the cluster that is there at the moment; counts what it is asked."""

    def __init__(self) -> None:
        self.cluster_id, self.topic_id, self.asked = "one", "t1", 0

    def describe_cluster(self) -> dict[str, Any]:
        self.asked += 1
        return {"cluster_id": self.cluster_id}

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        return [{"error_code": 0, "topic_id": self.topic_id, "partitions": [{"partition_index": 0}]}]

    def close(self) -> None:
        pass


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    made = Admin()
    answer: Callable[..., Admin] = lambda **_: made  # noqa: E731
    monkeypatch.setattr(cluster, "KafkaAdminClient", answer)
    monkeypatch.setattr(cluster, "reach", lambda *_: None)
    return made


def test_another_cluster_at_the_old_address_is_another_source_at_once(admin: Admin) -> None:
    with Cluster("there:9092") as asked:
        assert asked.sources("events") == {0: Source("one", "t1", 0)}
        # Else a worker that was started later would know the same records under another name, and take them again.
        admin.cluster_id, admin.topic_id = "two", "t2"
        assert asked.sources("events") == {0: Source("two", "t2", 0)}


def test_the_cluster_is_asked_for_its_id_once_a_topic(admin: Admin) -> None:
    with Cluster("there:9092") as asked:
        for _ in range(3):
            asked.sources("events")
    assert admin.asked == 1


def test_damaged_records_are_waited_for_and_not_told_as_brokers_that_do_not_answer() -> None:
    with (
        pytest.raises(Unavailable, match="reading events: records are damaged") as told,
        kafka_failures("reading events"),
    ):
        raise CorruptRecordError("checksum")
    assert "no answer" not in str(told.value)
