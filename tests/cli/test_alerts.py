"""`alerts list` on a real broker, and `alerts test` through a real HTTP service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.alerts.receiver import Receiver, receiver

from tidemill.alerts.memory import ensure_memory
from tidemill.cli import main
from tidemill.control.provision import topics_of
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.kafka import RecordWriter, ensure_topics
from tidemill.events.records import Alert, Decision, Signal, Told
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

SECRET = "aTokenThatNobodyMaySee"
ROUTES = [{"name": "chat", "urlEnv": "CHAT_URL"}, {"name": "pager", "urlEnv": "PAGER_URL", "severity": "critical"}]


@pytest.fixture
def stored(topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ContinualModel]:
    monkeypatch.chdir(tmp_path)

    def put(**alerts: object) -> ContinualModel:
        made = example_resource(topic_prefix, alerts={"routes": ROUTES, **alerts})
        LocalResourceStore(tmp_path / ".tidemill" / "resources").put(made, code=str(tmp_path))
        return made

    return put


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main("alerts", *arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def listed(capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, Any]]:
    status, out, err = call(capsys, "list", name, "-o", "json")
    assert status == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


@pytest.mark.kafka
def test_list_shows_what_is_open_muted_and_told(
    stored: Callable[..., ContinualModel],
    kafka: str,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA", kafka)
    window = {"start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "features": ["b"], "reason": "paint"}
    resource = stored(mute=[window])
    topics, now = topics_of(resource), to_ms(SystemClock().now())
    assert listed(capsys, topic_prefix) == []  # not even the topics are there
    ensure_topics(kafka, {topics.signals: 1, topics.decisions: 1})
    ensure_memory(kafka, topics)
    with RecordWriter(kafka) as writer:
        promoted = {"decision_id": "p", "kind": "promote", "subject": "r1", "reason": "better"}
        writer.send(topics.decisions, Decision(**promoted, model=resource.id, time=now - 9_000_000))  # type: ignore[arg-type]
        writer.flush()
        for ago, feature in ((2000, "a\x1b[2J"), (1000, "b")):
            signal = Signal(
                signal_id=feature,
                kind="drift",
                feature=feature,
                time=now - ago,
                version="r1",
                evidence=1.0,
                message=f"{feature} rose from 1 to 2",
            )
            writer.send(topics.signals, signal)
        failed = {"decision_id": "f", "kind": "run-failed", "subject": "r2", "reason": "train failed"}
        writer.send(topics.decisions, Decision(**failed, model=resource.id, time=now - 500))  # type: ignore[arg-type]
        writer.flush()
    first, second, run = listed(capsys, topic_prefix)
    assert (first["kind"], first["muted"], first["told"]) == ("drift", None, {"chat": None})
    assert second["muted"] == "until 2100-01-01T00:00:00+00:00: paint"
    assert (run["kind"], run["message"]) == ("failed-run", "train failed")
    from tidemill.alerts.intake import alert_id

    told = Alert(
        alert_id=alert_id("failed-run", None),
        kind="failed-run",
        severity="warning",
        version="r2",
        since=now - 500,
        last=now - 500,
        message="train failed",
        opened=now,
        told={"chat": Told(at=now)},
    )
    with RecordWriter(kafka) as writer:
        writer.send(topics.alerts, told, key=told.alert_id)
        writer.flush()
    assert listed(capsys, topic_prefix)[-1]["told"]["chat"] is not None
    status, out, _ = call(capsys, "list", topic_prefix)
    assert status == 0
    assert "chat not yet" in out
    assert "\x1b[2J" not in out


def test_each_route_is_tried_and_what_came_back_is_said(
    stored: Callable[..., ContinualModel],
    service: Receiver,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resource = stored()
    monkeypatch.setenv("CHAT_URL", service.url(SECRET))
    status, out, err = call(capsys, "test", topic_prefix, "-o", "json")
    chat, pager = json.loads(out)
    assert status == 1
    assert (chat["route"], chat["taken"], chat["said"]) == ("chat", True, "taken")
    assert (pager["taken"], pager["said"]) == (False, "the environment variable PAGER_URL is not set")
    assert service.messages[0]["title"] == f"{resource.id}: a test"
    assert SECRET not in out + err
    assert call(capsys, "test", topic_prefix, "--route", "chat")[0] == 0
    service.status = 500
    status, out, err = call(capsys, "test", topic_prefix, "--route", "chat")
    assert (status, "the service answered 500 Internal Server Error" in out) == (1, True)
    assert SECRET not in out + err


def test_a_route_that_there_is_not_is_named_with_those_there_are(
    stored: Callable[..., ContinualModel], topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored()
    status, _, err = call(capsys, "test", topic_prefix, "--route", "fax")
    assert (status, "chat, pager" in err) == (3, True)
