"""Labels joined with predictions by one `tidemill outcomes`, on real Kafka, Redis and Delta lake, one partition each.

Three runs of the real worker, each in a process of its own:

1. *predictions*: a topic of predictions is taken in; each is due at once and is judged without a label.
2. *labels*: a topic of labels that name their event. Each is checked, resolved through the index, heard, and corrects
   its prediction's outcome. This is the goal's figure.
3. *both*: another model's predictions and labels, all of them waiting when the worker starts and the labels in time:
   each prediction is taken in, judged by its label, and has one outcome.

The clock runs from the poll that brought the first record until the last outcome is committed on `.outcomes`, all is in
the lake (predictions, labels and outcomes) and the offsets are committed. The index works
while labels are checked and judged.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from benchmarks.ingest.stack import Stack, running
from benchmarks.outcomes.ours import Measured, Task
from benchmarks.report import Figure, Report, environment
from kafka import KafkaProducer

from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.cluster import ensure_topics
from tidemill.events.records import Label, Prediction, encode
from tidemill.testing.loop import example_resource

__all__ = ["run"]

SIZES = {"small": 50_000, "full": 300_000}
"""Predictions of each model; as many labels."""
GOAL = 50_000
AFTER_MS = 60_000
"""Age at which the third run's predictions are judged: they and their labels lie further back than this."""
PACKAGES = ("kafka-python", "redis", "deltalake", "polars", "msgspec")
CLASSES = ("ok", "scratch")


def run(size: str) -> Report:
    """The three runs."""
    count = SIZES[size]
    now = to_ms(SystemClock().now())
    with running() as stack:
        late = _model("late", after="1ms")
        _fill(stack, f"{_id(late)}.predictions", _predictions(count, now - 1000))
        taken_in = _work(stack, late, count)
        _fill(stack, f"{_id(late)}.labels", _labels(count, now))
        joined = _work(stack, late, count)
        behind = _model("behind", after=f"{AFTER_MS}ms")
        _fill(stack, f"{_id(behind)}.predictions", _predictions(count, now - 3 * AFTER_MS))
        _fill(stack, f"{_id(behind)}.labels", _labels(count, now - 3 * AFTER_MS + AFTER_MS // 2))
        both = _work(stack, behind, count)
    figures = [
        *_figures("labels joined", joined, count, "labels/s", GOAL),
        *_figures("predictions taken in and judged", taken_in, count, "predictions/s"),
        *_figures("prediction, label and outcome", both, count, "of each/s"),
    ]
    return Report("bench", "outcomes", size, {"predictions": count, "labels": count}, figures, environment(PACKAGES))


def _figures(name: str, found: Measured, count: int, unit: str, goal: int | None = None) -> list[Figure]:
    rate = count / found.wall_s
    holds = None if goal is None else rate >= goal
    figures = [
        Figure(name, rate, unit, "" if goal is None else f"≥ {goal:,}", holds, "one process, one partition"),
        Figure("  a second of its processor time", count / found.cpu_s, unit),
        Figure("  processor", found.cpu_s / count * 1e6, "µs each", note="of this process, all its threads"),
    ]
    for stage, (wall, cpu) in sorted(found.stages.items(), key=lambda item: -item[1][0]):
        note = f"{cpu / count * 1e6:.2f} on the processor"
        figures.append(Figure(f"  of that {stage}", wall / count * 1e6, "µs each", note=note))
    figures.append(Figure("  until the last outcome was committed", found.emitted_s, "s", f"of {found.wall_s:.2f}"))
    figures.append(Figure("  transactions", found.transactions, ""))
    figures.append(Figure("  peak memory", found.peak_mib, "MiB"))
    return figures


def _model(name: str, *, after: str) -> dict[str, Any]:
    model = example_resource(
        name,
        prediction={"type": "classification", "classes": list(CLASSES)},
        labels={"fields": [{"name": "defect", "type": "class"}], "maturity": {"after": after, "horizon": "14d"}},
    )
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _id(model: dict[str, Any]) -> str:
    return f"default.{model['metadata']['name']}"


def _predictions(count: int, at: int) -> Iterator[tuple[str, bytes, int]]:
    for number in range(count):
        prediction = Prediction(
            prediction_id=_prediction_id(number),
            version="20250411-1",
            entity=f"station-{number % 100}",
            event_id=f"e{number}",
            time=at,
            output={"class": CLASSES[number % 2], "confidence": 0.875},
            features={"brightness": 0.5, "contrast": 0.25, "speed": 12.5, "temperature": 21.0},
            feature_status="PRESENT",
            boot="boot",
            seq=number,
            answered=number + 1,
        )
        yield prediction.prediction_id, encode(prediction), at


def _labels(count: int, at: int) -> Iterator[tuple[str, bytes, int]]:
    for number in range(count):
        label = Label(
            value={"defect": CLASSES[number // 2 % 2]},
            labeller=f"inspector-{number % 7}",
            entity=f"station-{number % 100}",
            event_id=f"e{number}",
            time=at,
        )
        yield f"station-{number % 100}", encode(label), at


def _prediction_id(number: int) -> str:
    return f"0196257e-1f00-7000-8000-{number:012x}"


def _fill(stack: Stack, topic: str, records: Iterator[tuple[str, bytes, int]]) -> None:
    """Write records (key, value, time of arrival) to a topic of one partition that keeps these times."""
    ensure_topics(stack.kafka, {topic: 1}, log_append_time=False)
    producer = KafkaProducer(bootstrap_servers=stack.kafka, acks="all", linger_ms=50, batch_size=256 << 10)
    try:
        for key, value, at in records:
            producer.send(topic, value, key=key.encode(), partition=0, timestamp_ms=at)
        producer.flush(120)
    finally:
        producer.close()


def _work(stack: Stack, model: dict[str, Any], outcomes: int) -> Measured:
    task = Task(model, stack.kafka, stack.redis, str(stack.folder / "lake"), outcomes)
    argv = [sys.executable, "-m", "benchmarks.outcomes.ours", msgspec.json.encode(task).decode()]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    if ran.returncode:
        raise RuntimeError(f"the worker ended with status {ran.returncode}: {ran.stderr[-2000:]}")
    return msgspec.json.decode(ran.stdout.splitlines()[-1], type=Measured)
