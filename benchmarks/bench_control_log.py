"""The loops of many models on a real broker: threads, files and time that reading and writing their logs take.

Every loop is the real one with its topics on Kafka; runs, traffic and versions are in memory, so that a turn is hardly
more than what it does with the log. Once nothing is written, then an outcome of every model between two of its turns.
"""

import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.report import Figure, Report, environment

from tidemill.control.log import KafkaLog
from tidemill.control.provision import topics_of
from tidemill.control.tick import Loop, Parts
from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Outcome
from tidemill.events.shared import SharedKafka
from tidemill.spec.model import ContinualModel
from tidemill.stack import kafka as kafka_process
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing.loop import example_resource
from tidemill.testing.process import running
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.store import MemoryResourceStore
from tidemill.testing.traffic import MemoryTrafficDriver

__all__ = ["run"]

MODELS = {"small": (10, 50), "full": (50, 200)}
_ROUNDS = 5
_APART_S = 1.0
"""In so long every answer to where the logs end has grown old."""
_CLOCK = SystemClock()


def run(size: str) -> Report:
    """Measure with few models and with many."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder, (port, controller_port) = Path(name), free_ports(2)
        wanted = kafka_process.prepare(folder, port=port, controller_port=controller_port)
        with running(wanted, folder):
            address = f"{HOST}:{port}"
            kafka_process.wait_until_ready(address, clock=_CLOCK, deadline_s=60)
            for count in MODELS[size]:
                figures += _measured(address, count)
    return Report("bench", "control_log", size, {"models": MODELS[size]}, figures, environment(("kafka-python",)))


def _measured(address: str, count: int) -> list[Figure]:
    resources = [example_resource(f"m{count}-{number:04d}") for number in range(count)]
    store = MemoryResourceStore()
    with closing(SharedKafka(address)) as kafka:
        threads, files = threading.active_count(), _files()
        for resource in resources:
            topics = topics_of(resource)
            names = (topics.requests, topics.signals, topics.outcomes, topics.decisions)
            kafka.ask(lambda cluster, names=names: cluster.ensure(dict.fromkeys(names, 1)))  # type: ignore[misc]
            store.put(resource)
        loops = [_loop(resource, store, kafka) for resource in resources]
        first_ms, _ = _round(loops)
        rest = [_round(loops) for _ in range(_ROUNDS)]
        with RecordWriter(address) as writer:
            busy = [_round(loops) for _ in range(_ROUNDS) if _judge(resources, writer)]
        threads, files = threading.active_count() - threads, _files() - files
        for loop in loops:
            loop.close()
    return [
        Figure(f"{count} models: threads", threads, "threads", "≤ 6", threads <= 6),
        Figure(f"{count} models: open files", files, "files", "≤ 40", files <= 40),
        Figure(f"{count} models: the first turn", first_ms, "ms/model"),
        *_turns(f"{count} models: a turn without news", rest),
        *_turns(f"{count} models: a turn with an outcome", busy),
    ]


def _turns(what: str, rounds: Sequence[tuple[float, float]]) -> list[Figure]:
    """The median round counts."""
    took, processor = sorted(rounds)[len(rounds) // 2]
    return [Figure(what, took, "ms"), Figure(f"{what}, processor", processor, "ms")]


def _round(loops: Sequence[Loop]) -> tuple[float, float]:
    """A turn of each, after a pause as between two of a model; milliseconds a turn, and those of the processor."""
    threading.Event().wait(_APART_S)
    begun, processor = _CLOCK.monotonic(), sum(os.times()[:2])
    for loop in loops:
        loop.tick()
    each = 1000 / len(loops)
    return round(each * (_CLOCK.monotonic() - begun), 2), round(each * (sum(os.times()[:2]) - processor), 2)


def _loop(resource: ContinualModel, store: MemoryResourceStore, kafka: SharedKafka) -> Loop:
    log, driver = KafkaLog(kafka, topics_of(resource)), MemoryTrafficDriver(ready_at_once=True)
    parts = Parts(log, ScriptedRunner(), driver, MemoryRegistry(_CLOCK), lambda since: 0, log.close)
    return Loop(resource.id, store, parts, _CLOCK)


def _judge(resources: Sequence[ContinualModel], writer: RecordWriter) -> bool:
    """Write an outcome of each model; returns when they are there."""
    now = to_ms(_CLOCK.now())
    for number, resource in enumerate(resources):
        outcome = Outcome(
            prediction_id=f"p{number}-{now}", version="v", entity="e", predicted_at=now, eligible_at=now, output={}
        )
        writer.send(topics_of(resource).outcomes, outcome, key=outcome.prediction_id)
    writer.flush()
    return True


def _files() -> int:
    """Open files of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
