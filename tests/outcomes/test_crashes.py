"""The worker on a log in memory, crashing at any effect: its outcomes are those of a batch recomputation."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.clock import from_ms
from tidemill.core.errors import Conflict, InvalidInput, Transient
from tidemill.events.records import Label, Outcome, Prediction, ServingCount, encode
from tidemill.labels.parse import read_label
from tidemill.metrics.losses import error
from tidemill.outcomes.gaps import read_count
from tidemill.outcomes.log import Channel
from tidemill.outcomes.session import Session
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource
from tidemill.testing.outcomes import Faults, MemoryIndex, MemoryLog, MemoryTable, MemoryTopics

AFTER, HORIZON = 60, 400
RESOURCE: ContinualModel = example_resource(
    prediction={"type": "classification", "classes": ["ok", "scratch"]},
    labels={"fields": [{"name": "defect", "type": "class"}], "maturity": {"after": "60ms", "horizon": "400ms"}},
)


def serving_count(logged: int, boot: str = "b", *, ended: bool = False) -> ServingCount:
    return ServingCount(
        boot=boot, answered=logged, logged=logged, settled=logged, capacity=40, every_ms=10, ended=ended
    )


@dataclass
class ManualClock:
    """A clock that a test moves."""

    at: float = 0.0

    def now(self) -> datetime:
        return from_ms(round(self.at * 1000))

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class World:
    """Producers, topics, index and lake, and the lives of the worker among them."""

    random: Random
    partitions: int
    fault_rate: float
    topics: MemoryTopics = field(init=False)
    clock: ManualClock = field(default_factory=ManualClock)
    sent: int = 0
    alive: Session | None = None
    zombie: Session | None = None

    def __post_init__(self) -> None:
        self.topics = MemoryTopics(self.partitions)
        self.faults = Faults(lambda _: self.random.random() < self.fault_rate)
        self.index = MemoryIndex(self.faults)
        self.table = MemoryTable.shared(self.faults)

    def predict(self) -> None:
        self.sent += 1
        prediction = Prediction(
            prediction_id=f"p{self.sent}",
            version="v1",
            entity="a",
            event_id=self.random.choice([None, "e1", "e2", "e3"]),
            time=max(0, self.topics.now + self.random.randint(-90, 20)),
            output={"class": self.random.choice(["ok", "scratch"])},
            boot="b",
            seq=self.sent - 1,
        )
        part = MemoryLog.partition_of(prediction.prediction_id, self.partitions)
        for _ in range(1 + (self.random.random() < 0.1)):
            self.topics.append(Channel.PREDICTIONS, prediction, part)
        if self.random.random() < 0.05:
            self.topics.append(Channel.PREDICTIONS, b"no prediction", part)
        if self.random.random() < 0.2:
            self.topics.append(Channel.PREDICTIONS, serving_count(self.sent), part)

    def label(self) -> None:
        value: dict[str, Any] = {"defect": self.random.choice(["ok", "scratch", "scratch", "dent"])}
        if self.random.random() < 0.5:
            # By its own id: one that was predicted, one yet to come, or none at all.
            label = Label(value=value, prediction_id=f"p{self.random.randint(1, self.sent + 3)}")
        else:
            label = Label(value=value, entity="a", event_id=self.random.choice(["e1", "e2", "e3", "never"]))
        self.topics.append(Channel.LABELS, encode(label) if self.random.random() < 0.95 else b"{")

    def live(self) -> None:
        """A step of the worker, which begins a new life where the last one ended."""
        try:
            if self.alive is None:
                log = MemoryLog(self.topics, self.faults, lambda: self.random.randint(1, 5))
                tables = Tables("lake", RESOURCE.id, kind=self.table)
                self.alive = Session(RESOURCE, log, self.index, tables, self.clock)
            self.alive.step()
            if self.random.random() < 0.1:
                self.alive.flush()
        except Transient:
            self.alive = None

    def haunt(self) -> None:
        """A step of a worker that should be dead."""
        if self.zombie is not None:
            try:
                self.zombie.step()
            except (Transient, Conflict):
                self.zombie = None

    def crash(self) -> None:
        if self.random.random() < 0.3:
            self.zombie = self.alive
        self.alive = None

    def act(self) -> None:
        self.random.choices(
            [self.predict, self.label, self.live, self.haunt, self.crash, self.index.lose, self.wait],
            [4, 5, 14, 3, 1, 0.3, 5],
        )[0]()

    def wait(self) -> None:
        step = self.random.randint(0, 40)
        self.topics.now += step
        self.clock.at += step / 100  # marks become possible, and now and then a flush

    def settle(self) -> None:
        """No more failures; time passes until all is judged and written."""
        self.fault_rate, self.zombie = 0.0, None
        for _ in range(60):
            self.topics.now += AFTER
            self.clock.at += 0.5
            for _ in range(4):
                self.live()
        assert self.alive is not None
        self.alive.flush()


def batch(topics: MemoryTopics) -> dict[str, list[tuple[int, Any, Any]]]:
    """(revision, label, loss) of each prediction, computed from the two logs as if they were tables."""
    labels = []
    for raw in topics.records[Channel.LABELS, 0]:
        try:
            labels.append(
                (raw.arrived_at, raw.offset, read_label(raw.value, RESOURCE.spec.labels.fields, ["ok", "scratch"]))
            )
        except InvalidInput:
            continue
    expected: dict[str, list[tuple[int, Any, Any]]] = {}
    for (channel, _), log in topics.records.items():
        for raw in log if channel is Channel.PREDICTIONS else []:
            try:
                prediction = msgspec.json.decode(raw.value or b"", type=Prediction)
            except msgspec.DecodeError:
                continue
            if prediction.prediction_id not in expected:
                at = min(prediction.time, raw.arrived_at)
                said = [
                    (arrived, label.value)
                    for arrived, _, label in sorted(labels, key=lambda known: known[:2])
                    if arrived <= at + HORIZON and is_about(label, prediction)
                ]
                expected[prediction.prediction_id] = judged(prediction, said, at + AFTER)
    return expected


def is_about(label: Label, prediction: Prediction) -> bool:
    if label.prediction_id is not None:
        return label.prediction_id == prediction.prediction_id
    return prediction.event_id is not None and label.event_id == prediction.event_id


def judged(prediction: Prediction, said: list[tuple[int, Any]], eligible_at: int) -> list[tuple[int, Any, Any]]:
    spec = RESOURCE.spec
    in_time = [value for arrived, value in said if arrived <= eligible_at]
    values = [in_time[-1] if in_time else None]
    for arrived, value in said:
        if arrived > eligible_at and value != values[-1]:
            values.append(value)
    return [
        (n, v, None if v is None else error(spec.prediction, spec.labels.fields, prediction.output, v))
        for n, v in enumerate(values)
    ]


def written(outcomes: list[Outcome]) -> dict[str, list[tuple[int, Any, Any]]]:
    found: dict[str, list[tuple[int, Any, Any]]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.prediction_id, []).append((outcome.revision, outcome.label, outcome.loss))
    return found


def same(found: dict[str, list[tuple[int, Any, Any]]], expected: dict[str, list[tuple[int, Any, Any]]]) -> bool:
    """Equal but for corrections in between: a crash may let a later label be heard before an earlier one."""
    return (
        found.keys() == expected.keys()
        and all(found[of][0] == first and found[of][-1][1:] == last[1:] for of, (first, *_, last) in pairs(expected))
        and all([revision for revision, _, _ in revisions] == [*range(len(revisions))] for revisions in found.values())
    )


def pairs(expected: dict[str, list[tuple[int, Any, Any]]]) -> list[tuple[str, list[tuple[int, Any, Any]]]]:
    return [(of, [revisions[0], *revisions]) for of, revisions in expected.items()]


SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_interleaving_the_outcomes_are_those_of_the_batch(seed: int, partitions: int) -> None:
    world = World(Random(seed), partitions, 0.0)
    for _ in range(world.random.randint(10, 150)):
        world.random.choices([world.predict, world.label, world.live, world.wait], [4, 5, 10, 5])[0]()
    world.settle()
    assert written(world.topics.outcomes()) == batch(world.topics)


@given(SEEDS, st.sampled_from([1, 2]), st.sampled_from([0.0, 0.02, 0.1]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_crashes_the_outcomes_are_those_of_the_batch(seed: int, partitions: int, rate: float) -> None:
    world = World(Random(seed), partitions, rate)
    for _ in range(world.random.randint(10, 150)):
        world.act()
    world.settle()
    assert same(written(world.topics.outcomes()), batch(world.topics))


@given(SEEDS, st.sampled_from([0.02, 0.1]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_crashes_the_lake_has_each_record_once(seed: int, rate: float) -> None:
    world = World(Random(seed), 1, rate)
    for _ in range(world.random.randint(10, 150)):
        world.act()
    world.settle()
    kept = {uri.rpartition(".")[2]: frame for uri, frame in world.table.kept.items()}
    for channel in (Channel.LABELS, Channel.OUTCOMES, Channel.PREDICTIONS):
        records = [raw for raw in world.topics.records[channel, 0] if raw.value != b"no prediction"]
        records = [raw for raw in records if read_count(raw.value) is None]
        if records:
            assert sorted(kept[channel.value]["offset"]) == [raw.offset for raw in records]


@pytest.mark.parametrize("effect", ["index", "know", "send", "mark", "hear", "emit", "lake", "commit", "ends"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_crash_at_each_effect_loses_and_doubles_nothing(effect: str, nth: int) -> None:
    world = World(Random(nth), 1, 0.0)
    asked = 0

    def fails(name: str) -> bool:
        nonlocal asked
        asked += name == effect
        return name == effect and asked == nth

    world.faults.fails = fails
    for _ in range(40):
        world.predict()
        world.label()
        world.wait()
        world.live()
    world.settle()
    assert asked >= nth, f"{effect} was not reached"
    assert same(written(world.topics.outcomes()), batch(world.topics))


def test_a_prediction_without_labels_has_one_outcome_without_label() -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    world.settle()
    (outcome,) = world.topics.outcomes()
    assert (outcome.revision, outcome.label, outcome.loss, outcome.label_age_ms) == (0, None, None, None)
    assert outcome.eligible_at == outcome.predicted_at + timedelta(milliseconds=AFTER) // timedelta(milliseconds=1)


def test_nothing_is_emitted_before_it_is_eligible() -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    for _ in range(10):
        world.clock.at += 0.5
        world.live()
    assert world.topics.outcomes() == []


def test_while_nothing_waits_nothing_is_written() -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    world.settle()
    before = {place: len(log) for place, log in world.topics.records.items()}
    world.settle()
    assert {place: len(log) for place, log in world.topics.records.items()} == before


def test_the_log_s_loss_is_in_the_outcomes_of_each_life() -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    world.sent += 3
    world.predict()
    world.settle()
    world.crash()
    world.predict()
    world.settle()
    assert [outcome.lost for outcome in world.topics.outcomes()] == [3, 3, 3]


def test_what_a_killed_process_may_have_lost_is_in_the_outcomes_of_each_life_until_it_is_told() -> None:
    world = World(Random(1), 1, 0.0)
    world.random.random = lambda: 0.5  # type: ignore[method-assign]  # no word but these
    world.topics.append(Channel.PREDICTIONS, serving_count(0, "killed"))
    world.predict()
    world.settle()
    world.crash()
    world.predict()
    world.settle()
    world.topics.append(Channel.PREDICTIONS, serving_count(6, "killed", ended=True))
    world.predict()
    world.settle()
    world.crash()
    world.predict()
    world.settle()
    found = [(outcome.lost, outcome.maybe_lost) for outcome in world.topics.outcomes()]
    assert found == [(0, 40), (0, 40), (6, 0), (6, 0)]


def test_outcomes_without_the_offsets_they_follow_from_are_refused_loudly() -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    world.settle()
    world.crash()
    world.topics.judged = {}
    with pytest.raises(Conflict, match="are gone"):
        world.live()


def test_a_log_that_was_cut_at_either_end_is_read_from_what_it_holds() -> None:
    world = World(Random(1), 1, 0.0)
    for _ in range(6):
        world.predict()
    world.settle()
    world.crash()
    log = world.topics.records[Channel.PREDICTIONS, 0]
    del log[-2:]
    world.live()
    world.predict()
    world.settle()
    assert world.topics.outcomes()[-1].prediction_id == "p7"
