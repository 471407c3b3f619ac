"""The features of the user's own FeatureService in a prediction: kept with their statuses, never waited for."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.serving.served import Server

from tidemill.core.clock import SystemClock
from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Prediction
from tidemill.features.service import ServiceRow
from tidemill.serving.features import FeatureRow
from tidemill.serving.rows import RequestRow
from tidemill.serving.service import ServiceFeatures
from tidemill.spec.model import Entity
from tidemill.testing import eventually
from tidemill.testing.feast import UserRepository
from tidemill.testing.serving import instance, make_version, served_resource


class Service:
    """A service of one feature, which is the row's exposure doubled; held up until `go` is set."""

    names = ("doubled",)

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.broken, self.go = False, Event()
        self.go.set()

    def online(self, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[ServiceRow]:
        self.asked.append([dict(row) for row in rows])
        self.go.wait(20)
        if self.broken:
            raise Unavailable("the store is gone")
        found = [2 * row["exposure_ms"] for row in rows]
        return [ServiceRow({"doubled": one}, {"doubled": "PRESENT" if one else "NULL_VALUE"}) for one in found]


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def row(entity: str = "7", exposure_ms: float = 4.0) -> RequestRow:
    return RequestRow(entity=entity, event_id=None, values={"exposure_ms": exposure_ms})


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.go.set()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def features(service: Service, clock: HandClock) -> ServiceFeatures:
    made = ServiceFeatures(lambda: service, Entity(name="station", type="int"), clock=clock, timeout_s=0.1)
    made.of([row()])
    service.asked.clear()
    return made


ABSENT = FeatureRow({"doubled": None}, statuses={"doubled": "UNAVAILABLE"})


def test_the_service_is_given_the_rows_fields_and_its_entity(features: ServiceFeatures, service: Service) -> None:
    assert [one.values for one in features.of([row("7", 1.0), row("8", 2.0)])] == [{"doubled": 2.0}, {"doubled": 4.0}]
    assert service.asked == [[{"station": 7, "exposure_ms": 1.0}, {"station": 8, "exposure_ms": 2.0}]]


def test_what_is_not_present_is_told_by_feature(features: ServiceFeatures) -> None:
    (found,) = features.of([row(exposure_ms=0.0)])
    assert found == FeatureRow({"doubled": 0.0}, statuses={"doubled": "NULL_VALUE"})


def test_a_store_that_fails_is_left_alone_for_a_moment(
    features: ServiceFeatures, service: Service, clock: HandClock
) -> None:
    service.broken = True
    assert [features.of([row()]) for _ in range(5)] == [[ABSENT]] * 5
    assert len(service.asked) == 1
    service.broken = False
    clock.sleep(1.1)
    assert features.of([row()])[0].values == {"doubled": 8.0}


def test_a_store_that_hangs_holds_up_one_answer_and_no_other(
    features: ServiceFeatures, service: Service, clock: HandClock
) -> None:
    service.go.clear()
    started = SystemClock().monotonic()
    assert features.of([row()]) == [ABSENT]
    clock.sleep(60)
    assert [features.of([row()]) for _ in range(3)] == [[ABSENT]] * 3
    assert SystemClock().monotonic() - started < 5
    assert len(service.asked) == 1, "a read was started while another one hung"
    service.go.set()
    clock.sleep(1.1)

    def answers() -> bool:
        clock.sleep(1.1)
        return features.of([row()])[0].values == {"doubled": 8.0}

    eventually(answers)


def test_a_service_that_cannot_be_opened_is_an_error_at_the_start(clock: HandClock) -> None:
    def refuse() -> Service:
        raise NotFound("no such service")

    with pytest.raises(NotFound):
        ServiceFeatures(refuse, Entity(name="station"), clock=clock)


@pytest.mark.parametrize("status", ["PRESENT", "REBUILDING", None])
def test_what_the_service_lacks_says_nothing_of_the_windows(status: str | None) -> None:
    own = FeatureRow({"seen_1h": 3}, {"c/t/0": 4}, status)
    both = own.joined(ABSENT)
    assert (both.values, both.fence, both.status) == ({"seen_1h": 3, "doubled": None}, {"c/t/0": 4}, status)
    assert both.statuses == {"doubled": "UNAVAILABLE"}


@pytest.mark.parametrize("role", ["serve", "retrain"])
def test_a_model_without_a_service_does_not_load_feast(role: str) -> None:
    program = {
        "serve": """
from tidemill.serving.server import _service
from tidemill.testing.serving import served_resource
assert _service(served_resource(), None, None) is None
""",
        "retrain": """
from types import SimpleNamespace
from tidemill.retrain.data import _with_service
from tidemill.testing.serving import served_resource
assert _with_service(SimpleNamespace(resource=served_resource()), "frame", None, 0) == ("frame", ())
""",
    }[role]
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('feast' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout == "False\n", run.stderr


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(600)
def test_a_served_row_carries_the_services_features_and_the_log_keeps_them(
    tmp_path: Path, code: Path, kafka: str, redis_url: str, topic_prefix: str
) -> None:
    host, _, number = redis_url.removeprefix("redis://").rpartition("/")[0].rpartition(":")
    repository = UserRepository(tmp_path / "feast", f"type: redis, connection_string: '{host}:{number}'")
    repository.write()
    repository.apply()
    resource = served_resource(topic_prefix, features={"service": "inspection"}, triggers={})
    make_version(tmp_path, resource, "v1")
    topic = f"{resource.id}.predictions"
    ensure_topics(kafka, {topic: 1})
    server = Server(tmp_path, code, resource, kafka=kafka, redis=redis_url, feast_repo=str(repository.folder))
    try:
        eventually(server.is_ready, 120)
        answer = server.predict(instance(), instance(station="nobody", exposure_ms=2.0))
        assert answer.status_code == 200, server.log.read_text()
    finally:
        server.end()
        server.close()
    with RecordReader(kafka, topic, Prediction) as reader:
        found: list[Prediction] = []

        def has_logged() -> bool:
            found.extend(one.record for one in reader.poll(timeout_s=0.2))
            return len(found) == 2

        eventually(has_logged, 30)
    by_entity = {one.entity: one for one in found}
    assert {one.feature_status for one in found} == {None}, "it has no windows"
    assert by_entity["A"].features == {"hours": None, "maker": "x", "exposure_s": 0.004, "exposure_per_year": 4 / 26}
    assert by_entity["A"].feature_statuses == {"hours": "OUTSIDE_MAX_AGE"}
    assert by_entity["nobody"].features["exposure_s"] == 0.002
    assert by_entity["nobody"].feature_statuses == {
        "hours": "NOT_FOUND",
        "maker": "NOT_FOUND",
        "exposure_per_year": "NULL_VALUE",
    }
