"""The worker on a log in memory, crashing at any effect: its outcomes are those of a batch recomputation."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import Conflict, InvalidInput, Transient
from tidemill.events.records import Label, Prediction, ServingCount, encode
from tidemill.labels.parse import read_label
from tidemill.outcomes.gaps import read_count
from tidemill.outcomes.late import Hot
from tidemill.outcomes.log import Channel
from tidemill.outcomes.session import Session
from tidemill.outcomes.start import known_gaps
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel
from tidemill.testing.batch import Arrived, Known, expected_outcomes, known_of
from tidemill.testing.loop import example_resource
from tidemill.testing.outcome_stores import MemoryIndex, MemoryTable
from tidemill.testing.outcomes import Faults, MemoryClock, MemoryLog, MemoryTopics

AFTER, HORIZON = 60, 400
HOT = Hot(timedelta(milliseconds=1500), timedelta(milliseconds=300))


def resource_of(conflict: str = "last", absent: str = "unknown") -> ContinualModel:
    """A model with these rules; its times are milliseconds."""
    return example_resource(
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={
            "fields": [{"name": "defect", "type": "class"}],
            "maturity": {"after": f"{AFTER}ms", "horizon": f"{HORIZON}ms", "absent": absent},
            "conflict": conflict,
            "priority": ["anna", "ben"] if conflict == "priority" else [],
        },
    )


RESOURCE = resource_of()
CONFLICTS = ("last", "priority", "majority", "unanimous")
RULES = st.tuples(st.sampled_from(CONFLICTS), st.sampled_from(["unknown", "negative"]))


def serving_count(logged: int, boot: str = "b", *, ended: bool = False) -> ServingCount:
    return ServingCount(
        boot=boot, answered=logged, logged=logged, settled=logged, capacity=40, every_ms=10, ended=ended
    )


class QuickClock(MemoryClock):
    """The brokers' time; what takes seconds is due after tenths of one."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


@dataclass
class World:
    """Producers, topics, index and lake, and the lives of the worker among them."""

    random: Random
    partitions: int
    fault_rate: float
    resource: ContinualModel = RESOURCE
    hot: Hot | None = None
    topics: MemoryTopics = field(init=False)
    clock: QuickClock = field(init=False)
    sent: int = 0
    alive: Session | None = None
    zombie: Session | None = None
    ids: list[str] = field(default_factory=list)
    """Those predicted, and two yet to come."""

    def __post_init__(self) -> None:
        self.topics = MemoryTopics(self.partitions)
        self.topics.now = 10 * 86_400_000
        self.clock = QuickClock(self.topics)
        self.faults = Faults(lambda _: self.random.random() < self.fault_rate)
        self.index = MemoryIndex(self.faults, lambda: self.topics.now, self.hot)
        self.table = MemoryTable.shared(self.faults)

    def mint(self) -> str:
        """The next prediction's id; two are made in advance, by less than a label is kept that comes first."""
        fresh = [of for of in self.ids[self.sent :] if self.topics.now - int(of[:8] + of[9:13], 16) < 200]
        self.ids[self.sent :] = fresh
        while len(self.ids) < self.sent + 3:
            bits = (self.topics.now << 80) | self.random.getrandbits(80)
            self.ids.append(str(UUID(int=(bits & ~(0xF << 76) & ~(0x3 << 62)) | (0x7 << 76) | (0x2 << 62))))
        return self.ids[self.sent]

    def event(self, at: int) -> str:
        """An event of that time: whoever predicts it does so then."""
        return f"{at // 150}-{self.random.randint(1, 2)}"

    def predict(self) -> None:
        prediction_id = self.mint()
        self.sent += 1
        prediction = Prediction(
            prediction_id=prediction_id,
            version="v1",
            entity="a",
            event_id=None if self.random.random() < 0.3 else self.event(self.topics.now),
            time=max(0, self.topics.now + self.random.randint(-90, 20)),
            output={"class": self.random.choice(["ok", "scratch"])},
            boot="b",
            seq=self.sent - 1,
            sample=0.5,
            cohort="c",
        )
        part = MemoryLog.partition_of(prediction.prediction_id, self.partitions)
        for _ in range(1 + (self.random.random() < 0.1)):
            self.topics.append(Channel.PREDICTIONS, prediction, part)
        if self.random.random() < 0.05:
            self.topics.append(Channel.PREDICTIONS, b"no prediction", part)
        if self.random.random() < 0.2:
            self.topics.append(Channel.PREDICTIONS, serving_count(self.sent), part)

    def label(self) -> None:
        said: dict[str, Any] = {"value": {"defect": self.random.choice(["ok", "scratch", "scratch", "dent"])}}
        if self.random.random() < 0.2:
            said = {"reasons": {self.random.choice(["control", "drift"]): self.random.choice([0.1, 0.5])}}
        said["labeller"] = self.random.choice(["", "anna", "ben", "cleo"])
        if self.random.random() < 0.5:
            # By its own id: one that was predicted, one yet to come, or none at all.
            self.mint()
            label = Label(prediction_id=self.random.choice([*self.ids, "never"]), **said)
        else:
            age = self.random.choice([-100, 0, 0, 100, 300, 1700, 2600])
            label = Label(entity="a", event_id=self.event(self.topics.now - age), **said)
        self.topics.append(Channel.LABELS, encode(label) if self.random.random() < 0.95 else b"{")

    def live(self) -> None:
        """A step of the worker, which begins a new life where the last one ended."""
        try:
            if self.alive is None:
                log = MemoryLog(self.topics, self.faults, lambda: self.random.randint(1, 5))
                tables = Tables("lake", self.resource.id, kind=self.table)
                self.alive = Session(self.resource, log, self.index, tables, self.clock, self.hot)
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
        step = self.random.randint(0, 40) if self.hot is None or self.random.random() < 0.7 else 250
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


def batch(world: World) -> dict[str, list[Known]]:
    """The outcomes of each prediction, computed from the two logs as if they were tables."""
    labels, predictions = [], []
    for raw in world.topics.records[Channel.LABELS, 0]:
        with suppress(InvalidInput):
            labels.append(Arrived(read_label(raw.value, world.resource.spec.labels.fields), raw.arrived_at))
    for (channel, _), log in world.topics.records.items():
        for raw in log if channel is Channel.PREDICTIONS else []:
            with suppress(msgspec.DecodeError):
                predictions.append((msgspec.json.decode(raw.value or b"", type=Prediction), raw.arrived_at))
    return expected_outcomes(world.resource, predictions, labels)


def written(world: World) -> dict[str, list[Known]]:
    found: dict[str, list[Known]] = {}
    for outcome in world.topics.outcomes():
        found.setdefault(outcome.prediction_id, []).append(known_of(outcome))
    return found


def check_same(found: dict[str, list[Known]], expected: dict[str, list[Known]]) -> None:
    """Equal but for corrections in between: a crash may let a later label be heard before an earlier one."""
    assert found.keys() == expected.keys()
    for of, (first, *later) in expected.items():
        mine = found[of]
        assert mine[0] == first
        assert mine[-1][1:4] == [first, *later][-1][1:4]
        assert [known.revision for known in mine] == [*range(len(mine))]
        assert sum(known.assumed for known in mine) == sum(known.assumed for known in [first, *later])


SEEDS = st.integers(0, 2**32)


@pytest.mark.slow
@given(SEEDS, st.sampled_from([1, 2]), RULES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_interleaving_the_outcomes_are_those_of_the_batch(
    seed: int, partitions: int, rules: tuple[str, str]
) -> None:
    world = World(Random(seed), partitions, 0.0, resource_of(*rules))
    for _ in range(world.random.randint(10, 200)):
        world.random.choices([world.predict, world.label, world.live, world.wait], [4, 5, 10, 5])[0]()
    world.settle()
    assert written(world) == batch(world)


@pytest.mark.slow
@given(SEEDS, st.sampled_from([1, 2]), st.sampled_from([0.0, 0.02, 0.1]), RULES, st.sampled_from([None, HOT]))
@example(10040, 1, 0.1, ("last", "unknown"), HOT)  # a label is read when the index has forgotten what it is about
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_crashes_the_outcomes_are_those_of_the_batch(
    seed: int, partitions: int, rate: float, rules: tuple[str, str], hot: Hot | None
) -> None:
    world = World(Random(seed), partitions, rate, resource_of(*rules), hot)
    for _ in range(world.random.randint(10, 200)):
        world.act()
    world.settle()
    check_same(written(world), batch(world))


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
    check_same(written(world), batch(world))


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


def test_an_idle_process_is_not_silent_to_the_next_life() -> None:
    world = World(Random(1), 1, 0.0)
    world.random.random = lambda: 0.5  # type: ignore[method-assign]  # no word but these
    for _ in range(3):  # the same word each time, while others are busy
        world.topics.append(Channel.PREDICTIONS, serving_count(0, "idle"))
        world.predict()
        world.live()
        assert world.alive is not None
        world.alive.flush()
        world.topics.now += 25
    world.topics.now -= 25
    log = MemoryLog(world.topics, world.faults)
    told = known_gaps(log, Tables("lake", world.resource.id, kind=world.table))
    assert (told.maybe_lost(world.topics.now), told.maybe_lost(world.topics.now + 31)) == (0, 40)


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
    assert world.topics.outcomes()[-1].prediction_id == world.ids[6]
