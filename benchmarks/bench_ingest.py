"""Ingest against Feast's own way: events of 20 floats of 50,000 entities, from one topic, on real Kafka and Redis.

Ours is the real worker in a process of its own: each event validated, in the lake, in its entity's online row and in
four windows, with the effect exactly once. The peer writes online rows only (see `benchmarks.ingest.peer`). Both read
the same topic, one after the other; then what watching those events adds, pictures, and the electricity market where
`TIDEMILL_DATA` has it.
"""

import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from benchmarks.ingest import ours, peer
from benchmarks.ingest.stack import Stack, produce, running
from benchmarks.report import Figure, Report, environment
from PIL import Image

from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.lake import LakeTable, Span, table_uri
from tidemill.events.sources import Source
from tidemill.ingest.votes import Voting, sketches
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

__all__ = ["run"]

_T = TypeVar("_T")

SEED = 7
FEATURES = tuple(f"f{number:02d}" for number in range(20))
ENTITIES = 50_000
SIZES = {"small": (100_000, 20_000, 1_000), "full": (300_000, 100_000, 5_000)}
"""Events, those that the peer writes, and pictures."""
GOAL, DEFECT = 10, 5
PACKAGES = ("kafka-python", "redis", "feast", "deltalake", "polars", "msgspec", "numpy")
WINDOWS = [
    {"name": "seen", "agg": "count", "over": ["10m", "1h"]},
    {"name": "level", "agg": "mean", "of": "f00", "over": ["10m", "1h"]},
]


def run(size: str) -> Report:
    """Run both and compare them."""
    events, peer_events, pictures = SIZES[size]
    with running() as stack:
        model = _model(features={"windows": WINDOWS})
        produced = produce(stack, f"default.{model['metadata']['name']}.events", _events(events))
        found = _ours(stack, model, events)
        theirs = _peer(stack, model, peer_events)
        figures = [*_compare(found, theirs, events), *_stages(found, events), _watch(stack, model, found, events)]
        figures.append(Figure("events produced", produced, "events/s", note="kafka-python, acks all"))
        figures += _pictures(stack, pictures)
        figures += _market(stack)
    ran = {"seed": SEED, "events": events, "entities": ENTITIES, "features": len(FEATURES), "windows": 4}
    return Report("bench", "ingest", size, ran | {"peer_events": peer_events}, figures, environment(PACKAGES))


def _compare(found: ours.Measured, theirs: peer.Measured, events: int) -> list[Figure]:
    mine, others = events / found.wall_s, theirs.events / theirs.wall_s
    ratio = mine / others
    note = f"below {DEFECT} is a defect"
    return [
        Figure("tidemill", mine, "events/s", note="validated, windows, lake + online, exactly-once effect"),
        Figure("feast", others, "events/s", note=f"online only, batches of {peer.BATCH:,}, skip_dedup"),
        Figure("tidemill / feast", ratio, "times", goal=f"≥ {GOAL}", holds=ratio >= GOAL, note=note),
        Figure("tidemill, CPU", found.cpu_s / events * 1e6, "µs/event", note="of this process alone"),
        Figure("feast, CPU", theirs.cpu_s / theirs.events * 1e6, "µs/event"),
        Figure("tidemill, peak memory", found.peak_mib, "MiB"),
        Figure("feast, peak memory", theirs.peak_mib, "MiB"),
    ]


def _stages(found: ours.Measured, events: int) -> list[Figure]:
    figures = [
        Figure(f"of that {name}", wall / events * 1e6, "µs/event", note=f"{cpu / events * 1e6:.1f} on the processor")
        for name, (wall, cpu) in found.stages.items()
    ]
    together = "the sum is above the whole: a batch is read while the one before has its effects"
    figures.append(Figure("of that in all", found.wall_s / events * 1e6, "µs/event", note=together))
    figures.append(Figure("batches", found.batches, ""))
    return figures


def _watch(stack: Stack, model: dict[str, Any], found: ours.Measured, events: int) -> Figure:
    """What votes of all features add: sketches of the same rows with and without, in this process, nothing beside."""
    rows = LakeTable(table_uri(str(stack.folder / "lake"), f"default.{model['metadata']['name']}", "events")).scan()
    frames = list(
        rows.select("entity", "event_time", "available_at", "offset", *FEATURES).collect().iter_slices(10_000)
    )
    spec = model["spec"] | {"triggers": {"drift": {"watch": ["inputs"]}}}
    spent = []
    for one in (model, model | {"spec": spec}):
        voting = Voting(ContinualModel.model_validate(one))
        sketches(voting, Source("cluster", "topic", 0), Span(-1, events), frames[0])  # what is done once is no cost
        began = time.process_time()
        for frame in frames:
            sketches(voting, Source("cluster", "topic", 0), Span(-1, events), frame)
        spent.append(time.process_time() - began)
    share = (spent[1] - spent[0]) / found.cpu_s * 100
    note = f"{(spent[1] - spent[0]) / events * 1e6:.2f} µs/event for {len(FEATURES)} features"
    return Figure("the watch adds", share, "% of that CPU", "≤ 5", share <= 5, note)


def _pictures(stack: Stack, count: int) -> list[Figure]:
    fields = [{"name": "image", "type": "image"}]
    statistics = {"image": ["brightness", "contrast", "sharpness", "saturation", "clipping"]}
    model = _model("pictures", fields=fields, features=statistics)
    produce(stack, "default.pictures.events", _picture_events(count))
    found = _ours(stack, model, count)
    return [Figure("pictures", count / found.wall_s, "pictures/s", note="JPEG of 64 x 64, decoded, five statistics")]


def _market(stack: Stack) -> list[Figure]:
    file = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
    if not os.environ.get("TIDEMILL_DATA") or not file.is_file():
        return [Figure("electricity market", None, "events/s", note="skipped: TIDEMILL_DATA has no elec.csv")]
    lines = file.read_text().splitlines()
    names, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    fields = [{"name": name, "type": "int" if name == "class" else "float"} for name in names]
    now = to_ms(SystemClock().now())

    def events() -> Iterator[tuple[str, bytes]]:
        for number, row in enumerate(rows):
            values = ",".join(f'"{name}":{value}' for name, value in zip(names, row, strict=True))
            yield "nsw", f'{{"user":"nsw","event_id":"{number}","at":{now},{values}}}'.encode()

    produced = produce(stack, "default.market.events", events())
    found = _ours(stack, _model("market", fields=fields), len(rows))
    note = f"{len(rows):,} half hours of elec.csv, produced at {produced:,.0f}/s"
    holds = len(rows) / found.wall_s >= 10_000
    return [Figure("electricity market", len(rows) / found.wall_s, "events/s", "≥ 10,000", holds, note)]


def _model(name: str = "bench", **parts: Any) -> dict[str, Any]:
    fields = parts.pop("fields", [{"name": feature, "type": "float"} for feature in FEATURES])
    events = {"entity": {"name": "user"}, "id": "event_id", "timestamp": "at", "fields": fields}
    spec = {"events": events, "features": {}, "triggers": {}} | parts
    return example_resource(name, **spec).model_dump(mode="json", by_alias=True, exclude_unset=True)


def _events(count: int) -> Iterator[tuple[str, bytes]]:
    rng, now = np.random.default_rng(SEED), to_ms(SystemClock().now())
    for number in range(count):
        user, values = f"u{rng.integers(ENTITIES)}", rng.random(len(FEATURES)).round(6).tolist()
        event = {"user": user, "event_id": f"e{number}", "at": now, **dict(zip(FEATURES, values, strict=True))}
        yield user, msgspec.json.encode(event)


def _picture_events(count: int) -> Iterator[tuple[str, bytes]]:
    rng, now = np.random.default_rng(SEED), to_ms(SystemClock().now())
    for number in range(count):
        stream = BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
        event = {"user": "u", "event_id": f"e{number}", "at": now, "image": b64encode(stream.getvalue()).decode()}
        yield "u", msgspec.json.encode(event)


def _ours(stack: Stack, model: dict[str, Any], events: int) -> ours.Measured:
    task = ours.Task(model, stack.kafka, stack.redis, str(stack.folder / "lake"), events)
    return _child("benchmarks.ingest.ours", task, ours.Measured)


def _peer(stack: Stack, model: dict[str, Any], events: int) -> peer.Measured:
    own = model["spec"]["events"]
    task = peer.Task(
        kafka=stack.kafka,
        redis=stack.redis,
        topic=f"default.{model['metadata']['name']}.events",
        folder=str(stack.folder / "feast"),
        entity=own["entity"]["name"],
        id=own["id"],
        timestamp=own["timestamp"],
        features=list(FEATURES),
        events=events,
    )
    return _child("benchmarks.ingest.peer", task, peer.Measured)


def _child(module: str, task: msgspec.Struct, kind: type[_T]) -> _T:
    argv = [sys.executable, "-m", module, msgspec.json.encode(task).decode()]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    if run.returncode:
        raise RuntimeError(f"{module} ended with status {run.returncode}: {run.stderr[-2000:]}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=kind)
