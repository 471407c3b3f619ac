"""Real roles, each a process of its own, asked for their metrics: names, help, bounds, and `tidemill health`."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import EnvoyProxy
from tests.watch.test_health_alerts import ALERTS, LABELS, plain, told

from tidemill.control.store import LocalResourceStore, resource_yaml
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.exposition import metrics_told, read_metrics
from tidemill.events.kafka import RecordWriter, ensure_topics
from tidemill.events.records import Label, Topics
from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually
from tidemill.testing.serving import instance, make_version, served_resource
from tidemill.watch.health import Look, Scrape, health
from tidemill.watch.scraping import scrape

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.envoy, pytest.mark.slow]

ROLES = ("control", "feedback", "ingest", "outcomes", "serve", "watch")
MOST_SERIES = 400
"""Of one process of a model with few features; histograms are most of them."""


class Roles:
    """The roles of one model, and what they take in."""

    def __init__(self, folder: Path, resource: ContinualModel, kafka: str, env: Mapping[str, str]) -> None:
        self.state, self.resource, self.kafka = folder / "state", resource, kafka
        self.env = {**os.environ, **env, "TIDEMILL_STATE": str(self.state), "TIDEMILL_KAFKA": kafka}
        self.file, self.folder = folder / "model.yaml", folder
        self.file.write_text(resource_yaml(resource))
        LocalResourceStore(self.state / "resources").put(resource, code=str(folder))
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.serving, self.feedback = free_ports(2)

    def start(self) -> None:
        file = ("--resource", str(self.file))
        make_version(self.folder, self.resource, "v1")
        artifact = ("--version", "v1", "--artifact", str(self.folder / "v1"), "--port", str(self.serving))
        for role, arguments in (
            *((role, file) for role in ("ingest", "outcomes", "watch")),
            ("serve", (*file, *artifact)),
            ("feedback", ("--port", str(self.feedback))),
            ("control", ()),
        ):
            with (self.folder / f"{role}.log").open("wb") as log:
                command = [sys.executable, "-m", "tidemill.cli", role, *arguments]
                self.processes[role] = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    def look(self) -> Scrape:
        return scrape(self.state, self.resource.id, (), SystemClock())

    def said(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text()[-2000:]

    def send_events(self, count: int) -> None:
        """Events, each tenth without its exposure, which is required."""
        with RecordWriter(self.kafka) as writer:
            for number in range(count):
                row = instance(event_id=f"e{number}", exposure_ms=None if number % 10 == 9 else float(number % 50))
                row["captured_at"] = to_ms(SystemClock().now())
                writer.send(self.topics.events, json.dumps(row).encode(), key="A")
            writer.flush()

    def predict(self, count: int) -> list[str]:
        """Requests, of which the last is refused; the ids of their answers."""
        url = f"http://127.0.0.1:{self.serving}/v1/models/{self.resource.metadata.name}:predict"
        with httpx.Client(trust_env=False, timeout=30) as client:
            answers = [client.post(url, json={"instances": [instance()]}) for _ in range(count)]
            assert client.post(url, json={"instances": ["no row"]}).status_code == 400
        return [one.json()["predictions"][0]["prediction_id"] for one in answers]

    def label(self, predictions: list[str]) -> None:
        now = to_ms(SystemClock().now())
        with RecordWriter(self.kafka) as writer:
            for of in predictions:
                label = Label(prediction_id=of, value={"defect": "ok", "box": None}, labeller="a", time=now)
                writer.send(self.topics.labels, label, key=of)
            writer.flush()


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory, kafka: str, redis_url: str, envoy: EnvoyProxy) -> Iterator[Roles]:
    """All roles of a model that takes in events, answers, and hears what was true."""
    folder = tmp_path_factory.mktemp("roles")
    resource = served_resource("health-roles")
    code = Path(__file__).parents[1] / "serving" / "code"
    env = {
        "TIDEMILL_REDIS": redis_url,
        "TIDEMILL_ENVOY_ADMIN": envoy.admin,
        "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]),
    }
    made = Roles(folder, resource, kafka, env)
    ensure_topics(kafka, {made.topics.events: 1, made.topics.labels: 1, made.topics.predictions: 1})
    try:
        made.start()
        eventually(lambda: answering(made) == set(ROLES), 120, every_s=0.5)
        made.send_events(100)
        made.label(made.predict(40))
        eventually(lambda: is_through(made), 90, every_s=0.5)
        yield made
    finally:
        made.end()


def answering(roles: Roles) -> set[str]:
    for role, process in roles.processes.items():
        assert process.poll() is None, f"{role}: {roles.said(role)}"
    return {one.role for one in roles.look().processes if one.metrics is not None}


def is_through(roles: Roles) -> bool:
    look = Look(roles.look(), None, roles.resource.id)
    return (
        look.value("ingest", "tidemill_ingest_events_total") == 90
        and look.value("outcomes", "tidemill_outcomes_labelled_total") == 40
        and look.value("control", "tidemill_control_turn_seconds") is not None
        and look.value("watch", "tidemill_watch_lateness_seconds") is not None
        and bool(look.each("ingest", "tidemill_feature_freshness_seconds", "view"))
        and look.value("ingest", "tidemill_ingest_lag_timestamp_seconds") is not None
    )


def test_each_series_has_a_known_name_a_help_and_bounded_labels(roles: Roles) -> None:
    known = told()
    for process in metrics_told(roles.state):
        with urllib.request.urlopen(f"http://{process.address}/metrics") as answer:
            text = answer.read().decode()
        metrics = read_metrics(process.address)
        ours = {name: series for name, series in metrics.items() if name.startswith("tidemill_")}
        assert ours.keys() <= known.keys()
        assert {label for series in ours.values() for labels, _ in series for label in labels} <= LABELS
        assert sum(map(len, ours.values())) <= MOST_SERIES, process.process
        for name in ours:
            family = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum").removesuffix("_total")
            assert f"# HELP {family}" in text or f"# HELP {name}" in text, name
        assert {"tidemill_build_info", "tidemill_process_cpu_seconds_total"} <= ours.keys()


def test_no_value_of_an_event_a_label_or_a_prediction_is_a_label(roles: Roles) -> None:
    values = {
        value
        for process in roles.look().processes
        for name, series in (process.metrics or {}).items()
        if name.startswith("tidemill_")
        for labels, _ in series
        for value in labels.values()
    }
    assert not values & {"A", "a", "e1", "defect", "scratch"}
    assert all(len(value) <= 64 for value in values)


def test_what_alerts_name_is_told_by_the_roles(roles: Roles) -> None:
    """All but what is told only once it happens: a worker that waits, a champion, a check that runs each hour."""
    series = {name for process in roles.look().processes for name in process.metrics or {}}
    named = {name for alert in ALERTS.values() for name in plain_names(alert.expr)}
    rare = {
        "tidemill_waiting",
        "tidemill_ingest_stopped",
        "tidemill_control_champion_share_ratio",
        "tidemill_proxy_errors",
        "tidemill_proxy_requests",
        "tidemill_feature_skew_predictions",
        "tidemill_feature_skew_timestamp_seconds",
        "tidemill_feature_freshness_slo_ok",
        "tidemill_outcomes_lag_records",
        "tidemill_child_ready",
        "tidemill_child_restarts_total",
    }
    assert named - series <= rare, named - series - rare


def plain_names(expression: str) -> set[str]:
    return set(re.findall(r"\btidemill_[a-z_]+", plain(expression)))


def test_a_model_at_work_is_told_of_in_one_place(roles: Roles) -> None:
    before = roles.look()
    eventually(lambda: roles.look().at - before.at > 1)
    lines = {line.what: line for line in health(roles.resource, Look(roles.look(), before, roles.resource.id))}
    states: dict[str, Any] = {what: line.state for what, line in lines.items()}
    for what in (
        "freshness of events",
        "ingest behind",
        "requests failed",
        "labelled",
        "loss of the log",
        "labels refused",
    ):
        assert states[what] == "ok", lines[what]
    assert lines["quarantined"].value == pytest.approx(0.1)
    assert "exposure_ms" in lines["quarantined"].why
    assert lines["requests refused"].value == pytest.approx(1 / 41)
    assert lines["labelled"].value == 1
    assert states["drift is watched"] == "unknown", "no version has been promoted"
    assert {states[what] for what in states if what.endswith(": memory")} == {"ok"}


def test_the_command_tells_of_a_dead_role_as_a_line(roles: Roles) -> None:
    roles.processes["watch"].kill()
    roles.processes["watch"].wait(10)
    command = [sys.executable, "-m", "tidemill.cli", "health", "health-roles", "--over", "0.5", "-o", "json"]
    run = subprocess.run(command, env=roles.env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1, run.stderr
    lines = {line["what"]: line for line in json.loads(run.stdout)["lines"]}
    watch = lines[f"{roles.resource.id}-watch"]
    assert (watch["state"], watch["why"]) == ("bad", "it does not answer")
    assert lines["drift is watched"]["state"] == "unknown"
    assert lines["events"]["state"] == "ok"
