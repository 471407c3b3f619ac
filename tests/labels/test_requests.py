"""Requests for labels on a real broker: all or none, and once under their key, whatever breaks between."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Label
from tidemill.events.replay import Outgoing, TransactionWriter
from tidemill.labels.api import MAX_BODY_BYTES, MAX_LABELS, LabelService
from tidemill.labels.check import FIELDS
from tidemill.labels.feedback import make_server
from tidemill.labels.requests import KEPT_MS, Answered, Answers
from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import HOST, bound, free_ports
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource


class Site:
    """The service for one model, and the topic that its labels come to."""

    def __init__(self, resource: ContinualModel, kafka: str, clock: Any = None) -> None:
        self.resource, self.kafka = resource, kafka
        self.service = LabelService(self._find, kafka, clock=clock or SystemClock())
        self._server, self._socket = make_server(self.service, HOST), bound(HOST, 0)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        eventually(lambda: self._server.started)
        self.http = httpx.Client(base_url=f"http://{HOST}:{self._socket.getsockname()[1]}", trust_env=False, timeout=60)

    def close(self) -> None:
        """End it, as SIGTERM does."""
        self.http.close()
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        self.service.close()

    def _find(self, name: str) -> ContinualModel:
        if name not in {self.resource.id, self.resource.metadata.name}:
            raise NotFound(f"there is no model {name!r}")
        return self.resource

    def post(self, *labels: Any, key: str | None = None, **body: Any) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post("/v1/labels", json={"model": self.resource.id, "labels": labels} | body, headers=headers)

    def written(self) -> list[Label]:
        """The labels in the topic that were committed."""
        with RecordReader(self.kafka, self.resource.labels_topic, Label) as reader:
            return [stamped.record for stamped in reader.rest()]


@pytest.fixture
def make_site(kafka: str, topic_prefix: str) -> Iterator[Callable[..., Site]]:
    """Makes services for one model, each as if the last had ended or had not."""
    resource = example_resource(topic_prefix)
    ensure_topics(kafka, {resource.labels_topic: 1})
    sites: list[Site] = []

    def make(clock: Any = None) -> Site:
        sites.append(Site(resource, kafka, clock))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A service."""
    return make_site()


@pytest.fixture
def away() -> Iterator[Site]:
    """A service whose broker is not there."""
    (port,) = free_ports(1)
    site = Site(example_resource(), f"{HOST}:{port}")
    yield site
    site.close()


def label(event: str, defect: str = "ok", **about: Any) -> dict[str, Any]:
    return {"value": {"defect": defect}, "labeller": "eve", "entity": "A", "event_id": event} | about


@pytest.mark.kafka
def test_labels_of_a_request_are_in_the_topic_when_it_is_answered(site: Site) -> None:
    answer = site.post(
        label("e1"), label("e2", time="2026-01-01T12:00:00Z"), {"prediction_id": "p", "value": {"defect": "ok"}}
    )
    assert answer.status_code == 200
    results = [{"index": index, "status": "accepted"} for index in range(3)]
    assert answer.json() == {"model": site.resource.id, "accepted": 3, "refused": 0, "results": results}
    assert site.written() == [
        Label(value={"defect": "ok"}, labeller="eve", entity="A", event_id="e1"),
        Label(value={"defect": "ok"}, labeller="eve", entity="A", event_id="e2", time=1_767_268_800_000),
        Label(value={"defect": "ok"}, prediction_id="p"),
    ]


@pytest.mark.kafka
def test_each_row_is_taken_or_refused_by_itself(site: Site) -> None:
    bad = [label("e2", "dirt"), 7, label("e3", model="other"), label("e4", time=10**13), label("e5", weight=1)]
    answer = site.post(label("e1"), *bad)
    assert answer.status_code == 207
    said = answer.json()
    assert (said["accepted"], said["refused"]) == (1, 5)
    assert [one.get("reason") for one in said["results"]] == [
        None,
        "defect should be one of ok, scratch, not 'dirt'",
        "is no JSON object",
        f"is of the model 'other', not of {site.resource.id}",
        "was said in the future: time is 2286-11-20T17:46:40.000Z",
        "has weight; a label has prediction_id, entity, event_id, labeller, time, value",
    ]
    assert [one.event_id for one in site.written()] == ["e1"]
    assert site.post(label("e6", "dirt"), new_classes=True).status_code == 200


@pytest.mark.kafka
def test_a_request_without_a_good_label_is_bad_and_has_no_effect(site: Site) -> None:
    answer = site.post(label("e1", "dirt"), key="k")
    assert (answer.status_code, answer.json()["accepted"]) == (400, 0)
    assert site.post(label("e1"), key="k").status_code == 200  # mended, under the same key
    assert len(site.written()) == 1


@pytest.mark.kafka
def test_a_request_that_is_repeated_has_the_same_answer_and_no_second_effect(site: Site) -> None:
    first = site.post(label("e1"), label("e2", "dirt"), key="k")
    again = site.post(label("e1"), label("e2", "dirt"), key="k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert [one.headers.get("Idempotent-Replayed") for one in (first, again)] == [None, "true"]
    assert len(site.written()) == 1
    other = site.post(label("e3"), key="k")
    assert (other.status_code, other.json()) == (422, {"error": "this Idempotency-Key was used with another body"})
    assert site.post(label("e1")).status_code == 200  # without a key it is another statement
    assert len(site.written()) == 2


@pytest.mark.kafka
def test_a_key_is_known_after_a_restart_and_for_a_day(make_site: Callable[..., Site]) -> None:
    clock = ManualClock()
    first = make_site(clock).post(label("e1"), key="k")
    after = make_site(clock)  # the first one was killed: it never closed
    again = after.post(label("e1"), key="k")
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    clock.advance(KEPT_MS / 1000 + 1)
    assert "Idempotent-Replayed" not in after.post(label("e1"), key="k").headers
    assert len(after.written()) == 2


@pytest.mark.kafka
def test_two_services_by_mistake_take_a_request_once(make_site: Callable[..., Site]) -> None:
    one, other = make_site(), make_site()
    for number in range(4):  # each ends the other's writer, and says so once
        for site in (one, other, one):
            answer = site.post(label(f"e{number}"), key=f"k{number}")
            if answer.status_code == 503:
                answer = site.post(label(f"e{number}"), key=f"k{number}")
            assert answer.status_code == 200
    assert [found.event_id for found in one.written()] == ["e0", "e1", "e2", "e3"]


@pytest.mark.kafka
def test_requests_at_once_under_one_key_take_effect_once(site: Site) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: site.post(label("e1"), key="k"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(site.written()) == 1


@pytest.mark.kafka
def test_labels_of_a_request_that_was_killed_half_way_are_never_seen(site: Site) -> None:
    """The next writer ends what it left open, so that nothing behind it has to wait."""
    killed = TransactionWriter(site.kafka, f"{site.resource.id}.labels.requests")
    killed._producer.begin_transaction()
    killed._producer.send(site.resource.labels_topic, value=json.dumps(label("half")).encode())
    killed._producer.flush()
    assert site.post(label("e1")).status_code == 200
    assert [found.event_id for found in site.written()] == ["e1"]
    with pytest.raises(Unavailable):  # fenced
        killed.write([Outgoing(site.resource.labels_topic, b"{}")])
    killed.close(0)


def test_without_a_broker_a_request_is_to_come_again(away: Site) -> None:
    answer = away.post(label("e1"), key="k")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert away.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"", 400, "the body should be an object"),
        (b"\xff", 400, "the body should be an object"),
        (b"[" * 100_000, 400, "the body should be an object"),
        (b'{"model": "phone-inspection", "labels": {}}', 400, "Expected `array`"),
        (b'{"model": "phone-inspection", "labels": []}', 400, "labels should be 1 to 10,000 labels, not 0"),
        (b'{"model": "phone-inspection", "labels": [1], "label": []}', 400, "unknown field `label`"),
        (b'{"model": "phone-inspection", "labels": [' + b"1," * MAX_LABELS + b"1]}", 400, "not 10,001"),
        (b'{"model": "other", "labels": [1]}', 404, "there is no model 'other'"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "larger than 8 MiB"),
    ],
)
def test_a_body_that_is_no_request_is_refused_in_words(away: Site, content: bytes, status: int, why: str) -> None:
    answer = away.http.post("/v1/labels", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert why in answer.json()["error"]


def test_a_body_that_a_page_may_send_to_another_site_is_refused(away: Site) -> None:
    answer = away.http.post("/v1/labels", content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(away: Site, key: str) -> None:
    assert away.post(label("e1"), key=key).status_code == 400


def test_the_description_tells_bodies_answers_and_the_key(away: Site) -> None:
    said = away.http.get("/openapi.json").json()
    post = said["paths"]["/v1/labels"]["post"]
    assert {"200", "207", "400", "404", "413", "415", "422", "503"} <= set(post["responses"])
    assert [one["name"] for one in post["parameters"]] == ["idempotency-key"]

    def targets(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*map(targets, part.values()))
        return set[str]().union(*map(targets, part)) if isinstance(part, list) else set()

    known = {f"#/components/schemas/{name}" for name in said["components"]["schemas"]}
    assert targets(said) <= known
    body = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body) == {"model", "labels", "new_classes"}
    assert set(body["labels"]["items"]["properties"]) == set(FIELDS)


def test_metrics_tell_what_became_of_labels(away: Site) -> None:
    away.post(label("e1"))
    assert 'tidemill_feedback_requests_total{status="503"}' in away.http.get("/metrics").text


def test_answers_are_bounded_by_number_and_bytes() -> None:
    answers = Answers(most_keys=3, most_bytes=100)
    for number in range(5):
        answers.add(Answered(key=str(number), body="", answer=b"x" * 10, time=number))
    assert [answers.get(str(number), 10) is not None for number in range(5)] == [False, False, True, True, True]
    answers.add(Answered(key="large", body="", answer=b"x" * 95, time=9))
    assert [answers.get(name, 10) is not None for name in ("4", "large")] == [False, True]
    assert answers.get("large", 10 + KEPT_MS) is None
