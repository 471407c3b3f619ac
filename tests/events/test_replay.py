"""One record read back by its place: there, not there any more, or no answer."""

from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.events import replay
from tidemill.events.cluster import ensure_topics
from tidemill.events.replay import read_value
from tidemill.testing.clock import ManualClock


class NotText(str):
    """A header's name that goes out as bytes that are no text."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff"


@pytest.mark.kafka
def test_a_value_is_read_from_its_place_until_the_log_has_moved_on(kafka: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.events"
    ensure_topics(kafka, {topic: 1})
    producer = KafkaProducer(bootstrap_servers=kafka)
    for value in (b"first", b"second", b"third"):
        producer.send(topic, value, headers=[(NotText("name"), b"1")])
    producer.close()

    def read(offset: int) -> bytes | None:
        return read_value(kafka, topic, 0, offset, clock=SystemClock())

    assert [read(offset) for offset in range(4)] == [b"first", b"second", b"third", None]
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({TopicPartition(topic, 0): 2})
    admin.close()
    assert [read(offset) for offset in range(4)] == [None, None, b"third", None]


def test_no_answer_is_not_taken_for_a_record_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()

    class Silent:
        def __init__(self, **settings: Any) -> None: ...
        def assign(self, places: Any) -> None: ...
        def seek(self, place: Any, offset: int) -> None: ...
        def close(self) -> None: ...

        def beginning_offsets(self, places: list[Any]) -> dict[Any, int]:
            return dict.fromkeys(places, 0)

        def end_offsets(self, places: list[Any]) -> dict[Any, int]:
            return dict.fromkeys(places, 9)

        def poll(self, **settings: Any) -> dict[Any, Any]:
            clock.advance(1)
            return {}

    monkeypatch.setattr(replay, "KafkaConsumer", Silent)
    with pytest.raises(Unavailable, match="no answer"):
        read_value("nowhere:9", "t", 0, 7, clock=clock)
