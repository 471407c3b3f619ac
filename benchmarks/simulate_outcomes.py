"""Outcomes of a stream against a batch over the same two logs, with known truth: nothing may differ.

The worker's own code takes in, resolves, judges and searches; log, index and lake are the doubles in memory that the
tests use. Labels come early, late (by six horizons at most, when the index has long forgotten), not at all, twice,
from several people who differ, and are taken back. The batch shares no code with the join
(`tidemill.testing.batch`); every revision of every prediction is compared, with label, loss and probability.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from typing import Any

import msgspec
from benchmarks.report import Figure, Report, environment

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput
from tidemill.core.ids import new_id
from tidemill.core.settings import Settings
from tidemill.core.telemetry import setup_logging
from tidemill.events.records import Label, Prediction, Record
from tidemill.labels.parse import read_label
from tidemill.outcomes.late import Hot
from tidemill.outcomes.log import Channel
from tidemill.outcomes.session import Session
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel
from tidemill.testing.batch import Arrived, Known, expected_outcomes, known_of
from tidemill.testing.loop import example_resource
from tidemill.testing.outcome_stores import MemoryIndex, MemoryTable
from tidemill.testing.outcomes import Faults, MemoryClock, MemoryLog, MemoryTopics

__all__ = ["run"]

SEED = 20_251_125
SIZES = {"small": 2_000, "full": 125_000}
"""Predictions for each of the eight rules."""

CONFLICTS = ("last", "priority", "majority", "unanimous")
CLASSES = ["ok", "scratch", "dirt"]
START_MS = 1_750_000_000_000
SECOND = 1000
AFTER, HORIZON = 60 * SECOND, 600 * SECOND
HOT = Hot(timedelta(minutes=30), timedelta(minutes=18))
PER_SECOND, TICK = 50, 5 * SECOND


def resource_of(conflict: str, absent: str) -> ContinualModel:
    """A model with these rules."""
    return example_resource(
        prediction={"type": "classification", "classes": CLASSES},
        labels={
            "fields": [{"name": "defect", "type": "class"}],
            "maturity": {"after": "1m", "horizon": "10m", "absent": absent},
            "conflict": conflict,
            "priority": ["anna", "ben"] if conflict == "priority" else [],
        },
    )


def traffic(rng: random.Random, count: int, kinds: Counter[str]) -> list[tuple[int, Record | bytes]]:
    """Predictions, labels and picks with the time at which each arrives."""
    sent: list[tuple[int, Record | bytes]] = []
    for number in range(count):
        at = START_MS + number * SECOND // PER_SECOND
        about: dict[str, Any] = {"prediction_id": new_id(from_ms(at))}
        # Now and then an event is predicted again, within the time that the index keeps it (docs/labels.md).
        event = f"e{number}" if rng.random() < 0.9 else f"e{max(0, number - rng.randrange(1000))}"
        sent.append((at + rng.randrange(2 * SECOND), prediction(rng, about["prediction_id"], event, at, number)))
        if rng.random() < 0.5:
            about = {"entity": "a", "event_id": event}
        sent += labels(rng, about, at, kinds)
    return sorted(sent, key=lambda one: one[0])


def prediction(rng: random.Random, prediction_id: str, event: str, at: int, number: int) -> Prediction:
    """An answer, right or wrong."""
    answer = rng.choice(CLASSES)
    return Prediction(
        prediction_id=prediction_id,
        version="v1",
        entity="a",
        event_id=event,
        time=at,
        output={"class": answer},
        boot="b",
        seq=number,
    )


def labels(
    rng: random.Random, about: dict[str, Any], at: int, kinds: Counter[str]
) -> Iterator[tuple[int, Record | bytes]]:
    """What people say of one prediction."""
    truth = rng.choice([*CLASSES, "ok", "ok"]) if rng.random() < 0.98 else "dent"
    kinds["of a class that nobody declared"] += truth == "dent"
    if rng.random() < 0.3:
        kinds["picks for labelling"] += 1
        yield at + rng.randrange(300 * SECOND), Label(reasons={rng.choice(["control", "drift"]): 0.2}, **about)
    if rng.random() < 0.3:
        kinds["missing"] += 1
        return
    people = rng.sample(["anna", "ben", "cleo"], rng.choice([1, 1, 2, 3]))
    kinds["by several people"] += len(people) > 1
    for person in people:
        said = truth if rng.random() < 0.8 else rng.choice(CLASSES)
        when = at + delay(rng, kinds)
        label = Label(value={"defect": said}, labeller=person, **about)
        yield when, label
        if rng.random() < 0.05:
            kinds["sent twice"] += 1
            yield when + rng.randrange(90 * SECOND), label
        if rng.random() < 0.1:
            kinds["taken back"] += 1
            corrected = Label(value={"defect": rng.choice(CLASSES)}, labeller=person, **about)
            yield when + rng.randrange(1200 * SECOND), corrected
    if rng.random() < 0.01:
        kinds["refused"] += 1
        yield at, b'{"value": {"defect": ""}, "prediction_id": "p"}'


def delay(rng: random.Random, kinds: Counter[str]) -> int:
    """How long after its prediction a label comes."""
    kind, low, high = rng.choices(
        [
            ("before their predictions", -30, 0),
            ("before the verdict", 0, 60),
            ("before the horizon", 60, 600),
            ("after the horizon", 600, 1800),
            ("when the index has forgotten", 1860, 3600),
        ],
        [5, 50, 20, 10, 15],
    )[0]
    kinds[kind] += 1
    return rng.randrange(low * SECOND, high * SECOND)


@dataclass
class Machine:
    """One worker on doubles."""

    resource: ContinualModel
    topics: MemoryTopics = field(default_factory=MemoryTopics)

    def __post_init__(self) -> None:
        self.topics.now = START_MS - 60 * SECOND
        faults = Faults()
        index = MemoryIndex(faults, lambda: self.topics.now, HOT)
        tables = Tables("lake", self.resource.id, kind=MemoryTable.shared(faults))
        log = MemoryLog(self.topics, faults, lambda: 5000)
        self.session = Session(self.resource, log, index, tables, MemoryClock(self.topics), HOT)

    def work(self, sent: list[tuple[int, Record | bytes]]) -> None:
        """All of it, and then as long as anything may still be due."""
        tick = self.topics.now
        for at, record in sent:
            while at >= tick + TICK:
                tick += TICK
                self.step(tick)
            self.topics.now = max(at, self.topics.now)
            channel = Channel.PREDICTIONS if isinstance(record, Prediction) else Channel.LABELS
            self.topics.append(channel, record)
        for _ in range(2 * HORIZON // TICK):
            tick += TICK
            self.step(tick)
        self.session.flush()

    def step(self, until: int) -> None:
        """A tick of the worker."""
        self.topics.now = max(until, self.topics.now)
        self.session.step()

    def batch(self) -> dict[str, list[Known]]:
        """What the logs give as tables."""
        said = []
        for raw in self.topics.records[Channel.LABELS, 0]:
            with suppress(InvalidInput):
                said.append(Arrived(read_label(raw.value, self.resource.spec.labels.fields), raw.arrived_at))
        answered = (
            (msgspec.json.decode(raw.value or b"", type=Prediction), raw.arrived_at)
            for raw in self.topics.records[Channel.PREDICTIONS, 0]
        )
        return expected_outcomes(self.resource, answered, said)


def compare(rules: tuple[str, str], count: int, seed: int, kinds: Counter[str]) -> tuple[int, Counter[str]]:
    """Predictions whose outcomes differ, and what outcomes there were."""
    machine = Machine(resource_of(*rules))
    machine.work(traffic(random.Random(seed), count, kinds))
    found: dict[str, list[Known]] = {}
    made: Counter[str] = Counter()
    for outcome in machine.topics.outcomes():
        found.setdefault(outcome.prediction_id, []).append(known_of(outcome))
        made["first"] += outcome.revision == 0
        made["corrections"] += outcome.revision > 0
        made["assumed"] += outcome.assumed
        made["disputed"] += outcome.disputed
    expected = machine.batch()
    wrong = sum(found.get(of) != expected.get(of) for of in found.keys() | expected.keys())
    return wrong, made


def run(size: str) -> Report:
    """All conflicts, with and without a meaning of missing labels."""
    setup_logging(Settings(log_level="error"), "simulate")  # what is refused is refused on purpose
    count = SIZES[size]
    kinds: Counter[str] = Counter()
    figures, total = [], 0
    for number, rules in enumerate(product(CONFLICTS, ("unknown", "negative"))):
        wrong, made = compare(rules, count, SEED + number, kinds)
        total += wrong
        note = ", ".join(f"{value:,} {name}" for name, value in made.items())
        name = f"predictions whose outcomes differ: conflict {rules[0]}, absent {rules[1]}"
        figures.append(Figure(name, wrong, f"of {count:,}", "0", wrong == 0, note))
    labels_of: dict[str, Any] = dict(sorted(kinds.items()))
    figures += [Figure(f"labels: {kind}", value, "labels") for kind, value in labels_of.items()]
    ran: dict[str, Any] = {
        "predictions": 8 * count,
        "seed": SEED,
        "after_s": AFTER // SECOND,
        "horizon_s": HORIZON // SECOND,
    }
    ran["index_keeps_s"] = HOT.kept.total_seconds()
    return Report("simulate", "outcomes", size, ran, figures, environment(("polars", "msgspec")))
