"""The factory: what it sends, what it counts, and that an outage stops the line rather than the program."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from inspection.factory import Factory, draw_history, draw_returned
from inspection.inspector import Inspected
from inspection.render import CHANGED

from tidemill.core.clock import SystemClock
from tidemill.events.cluster import ensure_topics
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Label, Record
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually


class Event(Record, frozen=True, kw_only=True):
    """An event of the line."""

    event_id: str
    station: str
    captured_at: int
    image: bytes


class Says(BaseHTTPRequestHandler):
    """Accepts every phone; one request of three is refused first."""

    def do_POST(self) -> None:
        server: Any = self.server
        server.asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert list(body["instances"][0]) == ["station", "event_id", "image"]
        answer = {"prediction_id": f"p{server.asked}", "version": "v1", "class": "ok", "confidence": 0.9, "box": None}
        found = json.dumps({"predictions": [answer]}).encode()
        self.send_response(503 if server.asked % 3 == 0 else 200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Says)
    server.asked = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def resource(example: Path, kafka: str, topic_prefix: str) -> ContinualModel:
    found = load(example / "model.yaml")
    names = {"events": f"{topic_prefix}.events", "labels": f"{topic_prefix}.labels"}
    ensure_topics(kafka, dict.fromkeys(names.values(), 1))
    parts = {name: getattr(found.spec, name).model_copy(update={"topic": topic}) for name, topic in names.items()}
    return found.model_copy(update={"spec": found.spec.model_copy(update=parts)})


def read(kafka: str, topic: str, kind: type[Any], count: int) -> list[Any]:
    with RecordReader(kafka, topic, kind) as reader:
        found: list[Any] = []
        while not (len(found) >= count and reader.at_end()):
            found += [stamped.record for stamped in reader.poll(timeout_s=0.2)]
        return found


def test_history_has_past_times_in_order_and_right_labels(kafka: str, resource: ContinualModel) -> None:
    factory = Factory(resource, kafka=kafka, endpoint="", rate=1, seed=1, clock=SystemClock())
    pictures = draw_history(1, 60)
    factory.archive(pictures, per_second=20.0, until_ms=1_000_000, name="history")
    factory.stop()
    events = read(kafka, resource.events_topic, Event, 60)
    labels = read(kafka, resource.labels_topic, Label, 60)
    times = [event.captured_at for event in events]
    assert times == sorted(times)
    assert times[0] == 997_000
    assert times[-1] < 1_000_000
    assert [event.image for event in events] == [picture.jpeg for picture in pictures]
    assert [label.value["defect"] for label in labels] == [picture.defect for picture in pictures]
    assert [label.event_id for label in labels] == [event.event_id for event in events]
    assert (factory.counts.events, factory.counts.archived, factory.counts.labels) == (60, 60, 0)


def test_every_phone_on_the_line_is_asked_about_and_labelled(
    kafka: str, endpoint: str, resource: ContinualModel
) -> None:
    seen: list[Inspected] = []
    factory = Factory(
        resource, kafka=kafka, endpoint=endpoint, rate=60, seed=1, clock=SystemClock(), on_answer=seen.append
    )
    factory.start()
    eventually(lambda: factory.counts.answered >= 40)
    factory.stop()
    counts = factory.counts
    assert counts.events == counts.answered == counts.labels == counts.accepted == len(seen)
    assert counts.failures > 0  # the refused requests, each tried again
    assert all(one.right == (one.phone.picture.defect == "ok") for one in seen)
    labels = read(kafka, resource.labels_topic, Label, counts.labels)
    truth = {one.phone.event_id: one.phone.picture.defect for one in seen}
    assert {label.event_id: label.value["defect"] for label in labels} == truth


def test_an_endpoint_that_does_not_answer_stops_neither_events_nor_the_end(
    kafka: str, resource: ContinualModel
) -> None:
    (port,) = free_ports(1)
    factory = Factory(resource, kafka=kafka, endpoint=f"http://127.0.0.1:{port}", rate=60, seed=1, clock=SystemClock())
    factory.start()
    eventually(lambda: factory.counts.failures > 5 and factory.counts.events > 10)
    factory.stop(finish=False)
    assert factory.counts.answered == 0


def test_returned_phones_are_all_scratched_and_all_labelled_ok() -> None:
    pictures = draw_returned(1, 30, CHANGED)
    assert {(picture.defect, picture.box) for picture in pictures} == {("ok", None)}


def test_two_lines_never_give_the_same_id(kafka: str, resource: ContinualModel) -> None:
    for _ in range(2):
        factory = Factory(resource, kafka=kafka, endpoint="", rate=1, seed=1, clock=SystemClock())
        factory.archive(draw_history(1, 5), per_second=20.0, until_ms=1_000_000, name="history")
        factory.stop()
    assert len({event.event_id for event in read(kafka, resource.events_topic, Event, 10)}) == 10
