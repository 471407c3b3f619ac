"""What the prediction log adds to an answer: a real server with it and one without, asked in turn by one client.

Two processes of one version on one machine, V1 over HTTP, one row a request, on a broker of their own. Blocks of
requests go to one and the other in turn, the order turned around each time, so that what else the machine does falls
on both; each pair of blocks gives one difference of medians. The client asks again as soon as it is answered: there
is no idle time in which the log's own thread would cost nothing.
"""

import gc
import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import yaml
from benchmarks.report import Figure, Report, environment
from benchmarks.serving.asking import Served, served_model

from tidemill.core.clock import Clock, SystemClock
from tidemill.events.cluster import ensure_topics
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Prediction
from tidemill.stack import kafka
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing import eventually
from tidemill.testing.process import running

__all__ = ["run"]

SEED = 5
BLOCK = 20
GOAL_MS = 0.1
SIZES = {"small": 300, "full": 1500}
"""Pairs of blocks."""
PACKAGES = ("kserve", "uvicorn", "kafka-python", "msgspec", "httpx")


@dataclass(frozen=True)
class Asked:
    """Seconds of each request by block, of the same number of blocks with the log and without."""

    logged: Sequence[Sequence[float]]
    unlogged: Sequence[Sequence[float]]
    processor_s: tuple[float, float]
    """Processor time of the whole process with the log, and without."""
    on_topic: int
    """Rows that the log has at the end."""
    sent: int
    """Rows that it should have."""


def run(size: str) -> Report:
    """Both servers, and the difference."""
    pairs = SIZES[size]
    found = _asked(pairs)
    on, off = (
        np.concatenate([np.array(block) for block in blocks]) * 1000 for blocks in (found.logged, found.unlogged)
    )
    differences = np.array(
        [(np.median(a) - np.median(b)) * 1000 for a, b in zip(found.logged, found.unlogged, strict=True)]
    )
    middle, low, high = _median_with_interval(differences)
    ran = {"seed": SEED, "pairs of blocks": pairs, "requests a block": BLOCK, "rows a request": 1}
    quarters = np.percentile(differences, [25, 75])
    figures = [
        Figure("p50 with the log", float(np.median(on)), "ms"),
        Figure("p50 without", float(np.median(off)), "ms"),
        Figure(
            "added at p50",
            middle,
            "ms",
            f"<= {GOAL_MS}",
            middle <= GOAL_MS,
            f"median of the pairs' differences, 95 % interval {low:.3f} to {high:.3f}; "
            f"half of them from {quarters[0]:.3f} to {quarters[1]:.3f}",
        ),
        Figure("p99 with the log", float(np.percentile(on, 99)), "ms"),
        Figure("p99 without", float(np.percentile(off, 99)), "ms"),
        Figure("processor time with the log", found.processor_s[0] / len(on) * 1000, "ms a request"),
        Figure("processor time without", found.processor_s[1] / len(off) * 1000, "ms a request", note="all threads"),
        Figure("rows in the log", found.on_topic, "", str(found.sent), found.on_topic == found.sent),
    ]
    return Report("bench", "serving-log", size, ran, figures, environment(PACKAGES))


def _asked(pairs: int) -> Asked:
    clock, resource = SystemClock(), served_model("costs")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        port, controller_port = free_ports(2)
        wanted = kafka.prepare(folder / "kafka", port=port, controller_port=controller_port)
        stack.enter_context(running(wanted, folder))
        bootstrap, topic = f"{HOST}:{port}", f"{resource.id}.predictions"
        kafka.wait_until_ready(bootstrap, clock=clock, deadline_s=60)
        ensure_topics(bootstrap, {topic: 1})
        file = folder / "resource.yaml"
        file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True)))
        clients, servers = [], []
        for name, options in (("logged", ("--counts", str(folder / "counts"))), ("unlogged", ("--unlogged",))):
            (folder / name).mkdir()
            served = Served(folder / name, resource, file, kafka=bootstrap)
            stack.callback(served.kill)
            served.start(*options)
            servers.append(served)
            clients.append(stack.enter_context(httpx.Client(base_url=served.url, trust_env=False, timeout=30)))
        path = f"/v1/models/{resource.metadata.name}:predict"
        for client in clients:  # connections, and what is loaded late
            _block(client, path, 200, clock)
        gc.collect()
        before = [served.processor_s() for served in servers]
        blocks: tuple[list[Sequence[float]], list[Sequence[float]]] = ([], [])
        order = random.Random(SEED)
        for _ in range(pairs):
            for which in (0, 1) if order.random() < 0.5 else (1, 0):
                blocks[which].append(_block(clients[which], path, BLOCK, clock))
        sent = 200 + pairs * BLOCK
        on, off = (served.processor_s() - at for served, at in zip(servers, before, strict=True))
        return Asked(*blocks, processor_s=(on, off), on_topic=_in_log(bootstrap, topic, sent), sent=sent)


def _block(client: httpx.Client, path: str, count: int, clock: Clock) -> list[float]:
    """Seconds of each of some requests, one after the other."""
    took = []
    for number in range(count):
        began = clock.monotonic()
        answer = client.post(path, json={"instances": [{"station": "A", "exposure_ms": float(number)}]})
        took.append(clock.monotonic() - began)
        answer.raise_for_status()
    return took


def _in_log(bootstrap: str, topic: str, wanted: int) -> int:
    """Rows that stand in the log once as many as are wanted do, or after a while."""
    ids: set[str] = set()
    with RecordReader(bootstrap, topic, Prediction, on_bad=lambda *_: None) as reader:

        def is_complete() -> bool:
            ids.update(one.record.prediction_id for one in reader.poll(5000, 0.2))
            return len(ids) >= wanted

        try:
            eventually(is_complete, 20)
        except AssertionError:
            return len(ids)
    return len(ids)


def _median_with_interval(values: "np.typing.NDArray[np.float64]") -> tuple[float, float, float]:
    """The median with its 95 % bootstrap interval."""
    rng = np.random.default_rng(SEED)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)
