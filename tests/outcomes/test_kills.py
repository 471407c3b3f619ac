"""The worker as a process, killed; its broker and its Redis, killed too. Nothing is lost, nothing is doubled."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
import yaml

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import TidemillError
from tidemill.events.kafka import RecordReader, RecordWriter, Stamped, ensure_topics
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction, Topics
from tidemill.spec.model import ContinualModel
from tidemill.stack import kafka as kafka_process
from tidemill.stack import redis as redis_process
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

COUNT = 240


class Line:
    """A production line: predictions and labels of one model, and what became of them."""

    def __init__(self, kafka: str, redis: str, folder: Path, name: str) -> None:
        self.resource: ContinualModel = example_resource(
            name,
            prediction={"type": "classification", "classes": ["ok", "scratch"]},
            labels={"fields": [{"name": "defect", "type": "class"}], "maturity": {"after": "500ms", "horizon": "1h"}},
        )
        self.topics = Topics(self.resource.id, self.resource.events_topic, self.resource.labels_topic)
        self.kafka, self.folder = kafka, folder
        self.lake = folder / "lake"
        file = folder / "model.yaml"
        file.write_text(yaml.safe_dump(self.resource.model_dump(mode="json", by_alias=True, exclude_none=True)))
        self.argv = (sys.executable, "-m", "tidemill.cli", "outcomes", "--resource", str(file))
        self.env = dict(os.environ) | {
            "TIDEMILL_STATE": str(folder),
            "TIDEMILL_KAFKA": kafka,
            "TIDEMILL_REDIS": redis,
            "TIDEMILL_LAKE": str(self.lake),
        }
        self.random = Random(1)
        self.sent = 0
        self.truth: dict[str, str] = {}

    def start(self) -> Process:
        return spawn(self.argv, log=self.folder / "outcomes.log", env=self.env)

    def work(self, writer: RecordWriter, count: int) -> None:
        """Predictions, most of them labelled before or after, some twice."""
        for n in range(self.sent, self.sent + count):
            event = f"e{n}"
            if self.random.random() < 0.2:
                self.label(writer, event)
            prediction = Prediction(
                prediction_id=f"p{n}",
                version="v1",
                entity="a",
                event_id=event,
                time=to_ms(SystemClock().now()),
                output={"class": "ok"},
                boot="b",
                seq=n,
            )
            writer.send(self.topics.predictions, prediction, key=f"p{n}")
            for _ in range(self.random.choice([0, 1, 1, 2])):
                self.label(writer, f"e{self.random.randint(max(0, n - 30), n)}")
        writer.flush()
        self.sent += count

    def label(self, writer: RecordWriter, event: str) -> None:
        self.truth[event] = self.random.choice(["ok", "scratch"])
        label = Label(value={"defect": self.truth[event]}, entity="a", event_id=event)
        writer.send(self.topics.labels, label, key="a")

    def outcomes(self) -> list[Outcome]:
        return [stamped.record for stamped in self.stamped()]

    def stamped(self) -> list[Stamped[Outcome]]:
        found: list[Stamped[Outcome]] = []
        with RecordReader(self.kafka, self.topics.outcomes, Outcome) as reader:
            while not reader.at_end():
                found += reader.poll(timeout_s=0.2)
        return found

    def histories(self) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes():
            found.setdefault(outcome.prediction_id, []).append(outcome)
        return found

    def is_settled(self) -> bool:
        """Whether each prediction has an outcome, and the newest one carries the newest label."""
        found = self.histories()
        newest = {of: history[-1].label for of, history in found.items()}
        wanted = {f"p{n}": self.truth.get(f"e{n}") for n in range(self.sent)}
        return newest == {of: None if truth is None else {"defect": truth} for of, truth in wanted.items()}

    def check(self) -> None:
        """Wait until it is settled; then nothing may be there twice."""
        eventually(self.is_settled, 90, every_s=0.5)
        for prediction, history in self.histories().items():
            assert [outcome.revision for outcome in history] == [*range(len(history))], prediction
        assert {outcome.lost for outcome in self.outcomes()} == {0}

        def rows(name: str) -> list[Any]:
            try:
                return LakeTable(table_uri(str(self.lake), self.resource.id, name)).scan().collect()["offset"].to_list()
            except TidemillError:
                return []

        eventually(lambda: len(rows("predictions")) >= self.sent and len(rows("outcomes")) >= len(self.outcomes()), 30)
        for name in ("predictions", "labels", "outcomes"):
            assert len(rows(name)) == len(set(rows(name))), name
        assert len(rows("predictions")) == self.sent
        columns = ("offset", pl.col("available_at").dt.epoch("ms"), "prediction_id", "revision")
        kept = LakeTable(table_uri(str(self.lake), self.resource.id, "outcomes")).scan().select(columns).collect()
        assert sorted(kept.rows()) == sorted(
            (one.offset, one.timestamp_ms, one.record.prediction_id, one.record.revision) for one in self.stamped()
        )


def kill(process: Process) -> None:
    signal_group(process.pid, signal.SIGKILL)
    process.wait(10)


@contextmanager
def ended(processes: dict[str, Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes.values():
            kill(process)


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    line = Line(kafka, redis_url, tmp_path, topic_prefix)
    ensure_topics(kafka, {line.topics.predictions: 1, line.topics.labels: 1, line.topics.outcomes: 1})
    processes: dict[str, Process] = {}
    with ended(processes), RecordWriter(kafka) as writer:
        for _ in range(4):
            processes["outcomes"] = line.start()
            before = len(line.outcomes())
            line.work(writer, COUNT // 4)
            # It is killed in the midst of work: some outcomes of this part are there, others are not.
            eventually(lambda before=before: len(line.outcomes()) > before, 60, every_s=0.01)  # type: ignore[misc]
            kill(processes["outcomes"])
        processes["outcomes"] = line.start()
        line.check()


@pytest.mark.slow
# kafka-python leaves the sockets of attempts that were refused to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_broker_and_a_redis_that_die_are_waited_for(topic_prefix: str, tmp_path: Path) -> None:
    port, controller_port, redis_port = free_ports(3)
    parts: dict[str, Callable[[], ProcessWanted]] = {
        "kafka": lambda: kafka_process.prepare(tmp_path / "kafka", port=port, controller_port=controller_port),
        "redis": lambda: redis_process.prepare(tmp_path / "redis", port=redis_port),
    }
    processes: dict[str, Process] = {}

    def start(name: str) -> None:
        processes[name] = spawn(parts[name]().argv, log=tmp_path / f"{name}.log")
        if name == "kafka":
            kafka_process.wait_until_ready(f"{HOST}:{port}", clock=SystemClock(), deadline_s=120)

    with ended(processes):
        start("redis")
        start("kafka")
        line = Line(f"{HOST}:{port}", f"redis://{HOST}:{redis_port}/0", tmp_path, topic_prefix)
        ensure_topics(line.kafka, {line.topics.predictions: 1, line.topics.labels: 1, line.topics.outcomes: 1})
        processes["outcomes"] = line.start()
        for name in ("redis", "kafka"):
            with RecordWriter(line.kafka) as writer:
                line.work(writer, COUNT // 4)
            before = len(line.outcomes())
            eventually(lambda before=before: len(line.outcomes()) > before, 60, every_s=0.01)  # type: ignore[misc]
            kill(processes[name])
            start(name)
        with RecordWriter(line.kafka) as writer:
            line.work(writer, COUNT // 4)
        line.check()
        assert processes["outcomes"].poll() is None
    gc.collect()
