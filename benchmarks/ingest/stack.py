"""A broker and a Redis for one benchmark, and events to fill it with."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidemill.core.clock import SystemClock
from tidemill.events.cluster import ensure_topics
from tidemill.events.kafka import RecordWriter
from tidemill.stack import kafka, redis
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing import process

__all__ = ["Stack", "feast_address", "produce", "running"]


@dataclass(frozen=True)
class Stack:
    """Addresses, and a folder that is gone afterwards."""

    kafka: str
    redis: str
    folder: Path


@contextmanager
def running() -> Iterator[Stack]:
    """Kafka and Redis as `tidemill up` starts them, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        broker, controller, rows = free_ports(3)
        with (
            process.running(kafka.prepare(folder / "kafka", port=broker, controller_port=controller), folder),
            process.running(redis.prepare(folder / "redis", port=rows), folder),
        ):
            kafka.wait_until_ready(f"{HOST}:{broker}", clock=SystemClock(), deadline_s=60)
            yield Stack(f"{HOST}:{broker}", redis.url(folder / "redis", port=rows), folder)


def produce(stack: Stack, topic: str, events: Iterable[tuple[str, bytes]], *, partitions: int = 1) -> float:
    """Write events (key, value) to a topic, made where it is not there; returns events a second."""
    ensure_topics(stack.kafka, {topic: partitions})
    begun, count = time.perf_counter(), 0
    with RecordWriter(stack.kafka, max_block_s=60) as writer:
        for key, value in events:
            writer.send(topic, value, key=key)
            count += 1
        writer.flush(120)
    return count / (time.perf_counter() - begun)


def feast_address(url: str) -> str:
    """A Redis URL as Feast's store has it: by the same socket, where there is one (host and port do not count then)."""
    parts = urlsplit(url)
    return f"{HOST}:0,unix_socket_path={unquote(parts.path)}" if parts.scheme == "unix" else parts.netloc
