"""Connections end when they are told to."""

import pytest

from tidemill.events.cluster import ensure_topics
from tidemill.events.records import Topics
from tidemill.outcomes.brokers import Brokers


@pytest.mark.kafka
@pytest.mark.parametrize("transaction", [True, False])
def test_what_is_under_way_does_not_keep_a_producer_open(kafka: str, topic_prefix: str, transaction: bool) -> None:
    topics = Topics(topic_prefix, f"{topic_prefix}.events", f"{topic_prefix}.labels")
    ensure_topics(kafka, {topics.outcomes: 1})
    brokers = Brokers(kafka, topics)
    producer = brokers.producer(**({"transactional_id": topic_prefix} if transaction else {}))
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    for _ in range(2000):
        producer.send(topics.outcomes, b"x" * 500, partition=0)
    brokers.close()
    assert not producer._sender.is_alive()
