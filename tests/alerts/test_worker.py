"""The alerts' process on a real broker, with a real HTTP service behind Apprise."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from tests.alerts.receiver import Receiver, receiver

from tidemill.alerts.apprise_process import AppriseNotifier
from tidemill.alerts.memory import ensure_memory, remembered
from tidemill.alerts.notifier import Failure, Notifier
from tidemill.alerts.plan import alert_plan
from tidemill.alerts.telemetry import DELIVERED, OPEN, WAITING
from tidemill.alerts.worker import Alerting, run
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.settings import Settings
from tidemill.core.telemetry import setup_logging
from tidemill.events.kafka import RecordWriter, ensure_topics
from tidemill.events.records import Decision, Signal, Topics
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource
from tidemill.testing.notifier import MemoryNotifier

pytestmark = pytest.mark.kafka

FEATURES = ("brightness", "contrast", "exposure_ms", "noise", "sharpness")
SECRET = "aTokenThatNobodyMaySee"


class World:
    """A model's topics; sends what the watch and control would."""

    def __init__(self, kafka: str, name: str, **alerts: object) -> None:
        self.kafka = kafka
        declared = {"routes": [{"name": "oncall", "urlEnv": "ONCALL_URL"}], "groupFor": "1s", **alerts}
        self.resource: ContinualModel = example_resource(name, alerts=declared)
        self.topics = Topics(self.resource.id, self.resource.events_topic, self.resource.labels_topic)
        ensure_topics(kafka, {self.topics.decisions: 1, self.topics.signals: 1})
        self.writer = RecordWriter(kafka)

    def signal(self, feature: str, version: str = "r1") -> None:
        now = to_ms(SystemClock().now())
        signal = Signal(
            signal_id=f"{feature}-{version}-{now}",
            kind="drift",
            feature=feature,
            time=now,
            since=now - 60_000,
            version=version,
            evidence=1.1,
            message=f"{feature} fell from 0.62 to 0.41, stations B and C",
        )
        self.writer.send(self.topics.signals, signal, key=feature)
        self.writer.flush()

    def decide(self, kind: str, subject: str, reason: str = "for a reason") -> None:
        now = to_ms(SystemClock().now())
        decision = Decision(
            decision_id=f"{kind}-{subject}", kind=kind, model=self.resource.id, time=now, subject=subject, reason=reason
        )
        self.writer.send(self.topics.decisions, decision, key=subject)
        self.writer.flush()

    def alerting(self, notifier: Notifier, **environ: str) -> Alerting:
        plan, clock = alert_plan(self.resource), SystemClock()
        return Alerting(plan, self.topics, kafka=self.kafka, notifier=notifier, clock=clock, environ=environ)


@pytest.fixture
def world(kafka: str, topic_prefix: str) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:

        def make(**alerts: object) -> World:
            made = World(kafka, topic_prefix, **alerts)
            stack.callback(made.writer.close)
            return made

        yield make


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def step_until(alerting: Alerting, condition: Callable[[], object], deadline_s: float = 40) -> None:
    def holds() -> object:
        alerting.step()
        return condition()

    eventually(holds, deadline_s)


def test_signals_become_one_message_and_their_end_another(
    world: Callable[..., World], service: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    setup_logging(Settings(log_level="debug"), "alerts")
    logging.getLogger().setLevel(logging.DEBUG)
    made = world(groupFor="2s")
    made.decide("promote", "r1")
    stop, environ = threading.Event(), {"ONCALL_URL": service.url(SECRET)}
    where = {"kafka": made.kafka, "notifier": AppriseNotifier(SystemClock()), "clock": SystemClock()}
    thread = threading.Thread(target=run, args=(made.resource,), kwargs={**where, "stop": stop, "environ": environ})
    thread.start()
    try:
        eventually(lambda: service.messages, 40)
        assert service.messages.pop()["title"] == f"{made.resource.id}: r1 serves"
        for feature in FEATURES:
            made.signal(feature)
        eventually(lambda: service.messages, 40)
        made.decide("promote", "r2", "all requests now go to r2")
        eventually(lambda: len(service.messages) == 2, 40)
        eventually(lambda: DELIVERED.labels(made.resource.id, "oncall")._value.get() == 3, 40)
    finally:
        stop.set()
        thread.join(30)
    began, over = service.messages
    assert began["title"] == f"{made.resource.id}: 5 features drifted"
    assert began["type"] == "warning"
    assert "brightness fell from 0.62 to 0.41, stations B and C" in began["message"]
    assert "measured against r1" in began["message"]
    assert over["title"] == f"{made.resource.id}: r2 serves; over: 5 features drifted"
    assert "r2 was promoted" in over["message"]
    shown = "".join(capfd.readouterr())
    assert SECRET not in shown


def test_what_is_under_way_at_the_end_is_waited_for_and_remembered(world: Callable[..., World]) -> None:
    made, notifier = world(), MemoryNotifier()
    notifier.silent = {"json://x"}
    made.signal("brightness")
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        step_until(alerting, lambda: notifier.tried)
        timer = threading.Timer(0.5, notifier.silent.clear)
        timer.start()
        alerting.finish()
        timer.join()
    assert remembered_told(made) == 1


@pytest.mark.slow
def test_a_restart_repeats_nothing_and_forgets_nothing(world: Callable[..., World]) -> None:
    made, notifier = world(), MemoryNotifier()
    made.decide("promote", "r1")
    made.signal("brightness")
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        step_until(alerting, lambda: notifier.taken)
        step_until(alerting, lambda: remembered_told(made) == 2)
        notifier.taken.clear()
        made.signal("contrast")
        step_until(alerting, lambda: len(alerting.state.alerts) == 3)  # it is known, and not told yet
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        step_until(alerting, lambda: notifier.taken)
        step_until(alerting, lambda: remembered_told(made) == 3)
        for _ in range(10):
            alerting.step()
    assert [message.title for _, message in notifier.taken] == [f"{made.resource.id}: contrast drifted"]


def remembered_told(world: World) -> int:
    return sum(bool(alert.told) for alert in remembered(world.kafka, world.topics))


def test_a_crash_between_the_message_and_its_record_repeats_it(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, notifier = world(), MemoryNotifier()
    made.decide("promote", "r1")

    def crash(self: Alerting, alerts: list[object]) -> None:
        if any(alert.told for alert in alerts):  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        patched.setattr(Alerting, "_remember", crash)
        with pytest.raises(KeyboardInterrupt):
            step_until(alerting, lambda: False)
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        step_until(alerting, lambda: len(notifier.taken) == 2)
    first, again = (message for _, message in notifier.taken)
    assert first.title == again.title == f"{made.resource.id}: r1 serves"


def test_an_alert_outlives_its_signal_in_the_log(world: Callable[..., World], kafka: str) -> None:
    made, notifier = world(), MemoryNotifier()
    notifier.dead["json://x"] = Failure.UNREACHABLE
    made.signal("brightness")
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        assert len(remembered(kafka, made.topics)) == 1
        step_until(alerting, lambda: notifier.tried)
    notifier.dead.clear()
    # As when the log no longer holds the signal: all that is left is what was remembered.
    made.topics = EmptySignals(made.topics.model, made.topics.events, made.topics.labels)
    with made.alerting(notifier, ONCALL_URL="json://x") as alerting:
        step_until(alerting, lambda: notifier.taken)
    assert notifier.taken[0][1].title == f"{made.resource.id}: brightness drifted"


class EmptySignals(Topics, frozen=True):
    """The topics, with another one for signals."""

    @property
    def signals(self) -> str:
        """Empty."""
        return f"{self.model}.empty"


@pytest.mark.slow
def test_a_route_that_hangs_holds_up_no_other(
    world: Callable[..., World], service: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.alerts.delivery.FIRST_PAUSE_S", 0.1)
    routes = [{"name": "dead", "urlEnv": "DEAD_URL"}, {"name": "chat", "urlEnv": "CHAT_URL"}]
    made = world(routes=routes)
    made.signal("brightness")
    with receiver() as dead:
        dead.hangs = True
        notifier = AppriseNotifier(SystemClock(), deadline_s=5)
        with made.alerting(notifier, DEAD_URL=dead.url(), CHAT_URL=service.url()) as alerting:
            step_until(alerting, lambda: dead.requests and service.messages)
            made.signal("contrast")
            step_until(alerting, lambda: len(service.messages) == 2)
            first = dead.requests
            step_until(alerting, lambda: dead.requests > first)  # the attempt that was under way knew of one alone
            dead.hangs = False
            step_until(alerting, lambda: dead.messages)
    assert dead.messages[0]["title"] == f"{made.resource.id}: 2 features drifted"


def test_a_service_that_fails_is_tried_again_and_the_wait_is_measured(
    world: Callable[..., World], service: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.alerts.delivery.FIRST_PAUSE_S", 0.1)
    made = world()
    service.status = 500
    made.signal("brightness")
    waiting = WAITING.labels(made.resource.id, "oncall")
    with made.alerting(AppriseNotifier(SystemClock()), ONCALL_URL=service.url()) as alerting:
        step_until(alerting, lambda: service.requests >= 2)
        assert OPEN.labels(made.resource.id, "drift", "warning")._value.get() == 1
        assert waiting._value.get() > 0
        service.status = 200
        step_until(alerting, lambda: service.messages and waiting._value.get() == 0)
    assert len(service.messages) == 1


def test_of_each_alert_the_newest_record_is_kept_and_old_ones_age_out(world: Callable[..., World]) -> None:
    made = world()
    ensure_memory(made.kafka, made.topics)
    admin = KafkaAdminClient(bootstrap_servers=made.kafka)
    try:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, made.topics.alerts)])
    finally:
        admin.close()
    config = found["topic"][made.topics.alerts]
    assert config["cleanup.policy"]["value"] == "compact,delete"
    assert int(config["retention.ms"]["value"]) == 90 * 86_400_000


def test_without_routes_nobody_is_told_and_nothing_is_asked_for(topic_prefix: str) -> None:
    stop = threading.Event()
    stop.set()
    resource = example_resource(topic_prefix)
    run(resource, kafka="127.0.0.1:1", notifier=MemoryNotifier(), clock=SystemClock(), stop=stop, environ={})
