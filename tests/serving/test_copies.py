"""Copies of requests at a server: answered like others, and kept apart from what users were answered."""

from pathlib import Path
from typing import Any, cast

import pytest
from tests.serving.served import started

from tidemill.core.clock import SystemClock
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Prediction
from tidemill.serving.predictor import Predictor
from tidemill.spec.paths import MIRROR_HEADER
from tidemill.testing import eventually
from tidemill.testing.serving import instance, make_version, served_resource


def logged(kafka: str, topic: str, count: int) -> list[Prediction]:
    """All that is on a topic once there are so many."""
    with RecordReader(kafka, topic, Prediction, keyed=True) as reader:
        found: list[Prediction] = []
        until = SystemClock().monotonic() + 20
        while len(found) < count and SystemClock().monotonic() < until:
            found += [one.record for one in reader.poll()]
        return found + [one.record for one in reader.poll(timeout_s=0.2)]


@pytest.mark.parametrize(
    ("shadow", "version", "is_copy"), [(True, "v1", True), (True, "v2", False), (False, "v1", False)]
)
def test_a_copy_is_what_names_this_version_where_copies_are_made(shadow: bool, version: str, is_copy: bool) -> None:
    parts = cast("Any", None)
    copies = cast("Any", object()) if shadow else None
    resource = served_resource(rollout={"shadow": shadow})
    found = Predictor(resource, version="v1", model=parts, features=parts, log=parts, copies=copies)
    assert found.is_copy({MIRROR_HEADER: version}) == is_copy
    assert not found.is_copy({})


@pytest.mark.slow
@pytest.mark.kafka
def test_answers_to_copies_are_on_a_log_of_their_own(kafka: str, tmp_path: Path, code: Path, topic_prefix: str) -> None:
    resource = served_resource(topic_prefix, rollout={"shadow": True})
    topics = [f"{resource.id}.predictions", f"{resource.id}.copies"]
    ensure_topics(kafka, dict.fromkeys(topics, 1))
    make_version(tmp_path, resource, "v1")
    server = started(tmp_path, code, resource, kafka=kafka)
    try:
        eventually(server.is_ready, 60)
        for number, version in enumerate(("v1", "v1", "v2", None)):
            headers = {"x-request-id": f"r{number}"} | ({MIRROR_HEADER: version} if version else {})
            answer = server.predict(instance(), instance(event_id=f"e{number}"), headers=headers)
            assert answer.status_code == 200, server.log.read_text()
        users, copies = (logged(kafka, topic, 4) for topic in topics)
        metrics = server.http.get("/metrics").text
    finally:
        server.end()
        server.close()
    assert [one.request_id for one in copies] == ["r0", "r0", "r1", "r1"]
    assert [one.request_id for one in users] == ["r2", "r2", "r3", "r3"]
    for rows in (users, copies):
        assert [one.prediction_id for one in rows] == sorted(one.prediction_id for one in rows), "in the rows' order"
        assert [one.seq for one in rows] == [0, 1, 2, 3], "each log counts for itself"
    assert 'tidemill_predictions_total{version="v1"} 4.0' in metrics
    assert 'tidemill_copies_total{version="v1"} 4.0' in metrics
