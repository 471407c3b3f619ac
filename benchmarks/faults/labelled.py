"""Predictions and labels under load, and what a batch over both logs makes of them: each outcome once, and right."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, NamedTuple

import msgspec
import polars as pl
from benchmarks.faults.outcome_worker import all_outcomes
from benchmarks.faults.site import Site
from kafka import KafkaConsumer, TopicPartition

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Unavailable
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordWriter
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction

__all__ = ["Labelled", "differences", "expected_outcomes", "settled_differences"]

_SLICE_S = 0.05


class Labelled:
    """Writes predictions and labels of them: before, soon after, late, twice, contradicting, or never."""

    def __init__(self, site: Site, *, per_second: int, seed: int, clock: Clock) -> None:
        self._site, self._clock = site, clock
        self._each = max(1, round(per_second * _SLICE_S))
        self._rng = random.Random(seed)
        self._sent = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write until the block ends."""
        stopped = Event()
        thread = Thread(target=self._run, args=(stopped,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(60)

    def _run(self, stopped: Event) -> None:
        with RecordWriter(self._site.bootstrap, give_up_s=120.0) as writer:
            due = self._clock.monotonic()
            while not stopped.wait(max(0.0, due - self._clock.monotonic())):
                for _ in range(self._each):
                    self._one(writer)
                due = max(due + _SLICE_S, self._clock.monotonic() - _SLICE_S)
            writer.flush(60)

    def _one(self, writer: RecordWriter) -> None:
        number, rng = self._sent, self._rng
        self._sent += 1
        if rng.random() < 0.2:
            self._label(writer, number)
        writer.send(self._site.topics.predictions, _prediction(number, to_ms(self._clock.now())), key=f"p{number}")
        for _ in range(rng.choice([0, 1, 1, 2])):
            self._label(writer, rng.randint(max(0, number - rng.choice([10, 1000])), number))

    def _label(self, writer: RecordWriter, number: int) -> None:
        value = {"defect": self._rng.choice(["ok", "scratch"])}
        if self._rng.random() < 0.5:
            label = Label(value=value, prediction_id=f"p{number}")
        else:
            label = Label(value=value, entity="a", event_id=f"e{number}")
        try:
            writer.send(self._site.topics.labels, label, key="a")
        except Unavailable:  # one label less
            return


def _prediction(number: int, now_ms: int) -> Prediction:
    return Prediction(
        prediction_id=f"p{number}",
        version="v1",
        entity="a",
        event_id=f"e{number}",
        time=now_ms,
        output={"class": "ok", "confidence": 0.9},
        boot="load",
        seq=number,
        answered=number + 1,
    )


class Expected(NamedTuple):
    """Of a prediction: its label when it was due, and its newest one."""

    first: dict[str, Any] | None
    newest: dict[str, Any] | None


def expected_outcomes(site: Site) -> dict[str, Expected]:
    """The outcomes as a batch over the topics of predictions and labels finds them."""
    after_ms = to_ms(site.resource.spec.labels.maturity.after)
    labels: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for at, value in _records(site, site.topics.labels):
        label = msgspec.json.decode(value, type=Label)
        of = label.prediction_id or f"p{(label.event_id or 'e')[1:]}"
        labels.setdefault(of, []).append((at, label.value or {}))
    found = {}
    for at, value in _records(site, site.topics.predictions):
        prediction = msgspec.json.decode(value, type=Prediction)
        said = labels.get(prediction.prediction_id, [])
        due = min(prediction.time, at) + after_ms
        in_time = [label for arrived, label in said if arrived <= due]
        newest = said[-1][1] if said else None
        found[prediction.prediction_id] = Expected(in_time[-1] if in_time else None, newest)
    return found


def differences(site: Site, expected: dict[str, Expected], outcomes: Sequence[Outcome]) -> dict[str, int]:
    """What is wrong with the outcomes of the topic and the rows of the lake; all 0 where all is well."""
    histories: dict[str, list[Outcome]] = {}
    for one in outcomes:
        histories.setdefault(one.prediction_id, []).append(one)
    both = [(known, histories[of]) for of, known in expected.items() if of in histories]
    revisions = Counter((one.prediction_id, one.revision) for one in outcomes)
    kept = {name: _offsets(site, name) for name in ("predictions", "labels", "outcomes")}
    lost = max((one.lost for one in outcomes), default=0)
    return {
        "outcomes missing": len(expected.keys() - histories.keys()),
        "outcomes of what was never predicted": len(histories.keys() - expected.keys()),
        "outcomes doubled": sum(count - 1 for count in revisions.values()),
        "first outcomes with another label": sum(known.first != history[0].label for known, history in both),
        "newest outcomes with another label": sum(known.newest != history[-1].label for known, history in both),
        "revisions out of order": sum([one.revision for one in found] != [*range(len(found))] for _, found in both),
        "rows doubled in the lake": sum(len(rows) - len(set(rows)) for rows in kept.values()),
        "predictions missing in the lake": len(expected) - len(set(kept["predictions"])),
        "outcomes missing in the lake": len(outcomes) - len(set(kept["outcomes"])),
        "predictions said to be lost": lost,
    }


def settled_differences(site: Site, clock: Clock, within_s: float = 150.0) -> tuple[int, int, dict[str, int]]:
    """Once all is joined, or after so long: predictions, outcomes, and what is wrong."""
    expected, end = expected_outcomes(site), clock.monotonic() + within_s
    while True:
        outcomes = all_outcomes(site)
        wrong = differences(site, expected, outcomes)
        if not any(wrong.values()) or clock.monotonic() > end:
            return len(expected), len(outcomes), wrong
        clock.sleep(1.0)


def _records(site: Site, topic: str) -> Iterator[tuple[int, bytes]]:
    """When each record of a topic of one partition arrived, and its bytes, in order."""
    with Cluster(site.bootstrap) as cluster:
        (end,) = cluster.ends(topic, [0]).values()
    consumer = KafkaConsumer(bootstrap_servers=site.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        while consumer.position(tp) < end:
            for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                yield from ((record.timestamp, record.value) for record in records if record.offset < end)
    finally:
        consumer.close()


def _offsets(site: Site, name: str) -> list[int]:
    table = LakeTable(table_uri(site.lake, site.resource.id, name))
    found: list[int] = table.scan().select(pl.col("offset")).collect()["offset"].to_list() if table.exists else []
    return found
