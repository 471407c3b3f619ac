"""Once, and nothing lost: two workers over one log, crashing and interleaving at every stage, believed dead or not.

The log is a list; the lake is Delta and the online rows are Redis, both real. Kafka's part (who owns the partition,
what is committed) is played by the test, so that each interleaving can be chosen.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import Unavailable
from tidemill.events.cells import by_name
from tidemill.events.lake import LakeTable
from tidemill.events.records import Record, Sketch, Topics
from tidemill.events.sources import Source
from tidemill.features import filling
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineReader, OnlineRows, RowsLost
from tidemill.features.tiles import window_values
from tidemill.ingest.batch import BatchReader
from tidemill.ingest.effects import Effects, Stage
from tidemill.ingest.start import start_of
from tidemill.ingest.tables import TIME, events_table, quarantine_table
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock

pytestmark = pytest.mark.redis

STAGES: tuple[Stage, ...] = ("quarantine", "events", "rows", "sketches")
A, B = Source("c", "t", 0), Source("c", "t", 1)
NOW = 1_790_000_000_000
LENGTH = 40
EventJson = Callable[..., bytes]


class Crash(Exception):
    """The process ends here."""


class Written:
    """Stands in for the writer: what was flushed is in the log, and a flush may fail after all was written."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []
        self.fail_next_flush = False
        self._sent: list[tuple[str, Record]] = []

    def send(self, topic: str, record: Record, *, key: str) -> None:
        self._sent.append((topic, record))

    def flush(self, timeout_s: float) -> None:
        self.records += self._sent
        self._sent.clear()
        if self.fail_next_flush:
            self.fail_next_flush = False
            raise Unavailable("the acknowledgement was lost")

    def of(self, topic: str) -> list[Any]:
        return [record for name, record in self.records if name == topic]


class World:
    """One log of two partitions, its lake, its rows, the group's commits, and workers by name."""

    def __init__(self, folder: Path, redis_url: str, resource: ContinualModel, event_json: EventJson) -> None:
        self.resource, self.redis_url, self.lake = resource, redis_url, str(folder)
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self.written = Written()
        self.clock = ManualClock(from_ms(NOW))
        self.reader = BatchReader(resource)
        self.log = {source: [_raw(source, n, event_json) for n in range(LENGTH)] for source in (A, B)}
        self.committed: dict[Source, int] = {}
        self.owner = ""
        self.workers: dict[str, Worker] = {}

    def assign(self, name: str) -> "Worker":
        """A worker starts anew and owns the partitions; whoever had them does not hear of it."""
        self.owner = name
        self.workers[name] = Worker(self, name)
        return self.workers[name]

    def finish(self) -> None:
        worker = self.assign("last")
        worker.take(LENGTH)


class Worker:
    """What ingest's loop does with its effects."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.at: Callable[[Stage], None] = lambda stage: None
        self.effects = Effects(
            world.resource,
            rows=OnlineRows(world.redis_url, world.resource.id, layout_of(world.resource)),
            lake=world.lake,
            writer=world.written,  # type: ignore[arg-type]
            clock=world.clock,
            passed=lambda stage: self.at(stage),
        )
        events = self.effects.events
        starts = {
            source: start_of(
                committed=world.committed.get(source),
                taken=events.version_of(source),
                log_start=0,
                log_end=world.log[source][-1].offset + 1,
                has_table=events.exists,
            )
            for source in world.log
        }
        self.effects.fill_rows(force=any(start.rebuild for start in starts.values()))
        self.effects.announce(world.log)
        self.next = {source: start.offset for source, start in starts.items()}

    def take(self, length: int) -> None:
        found = {
            source: [raw for raw in raws if raw.offset >= self.next[source]][:length]
            for source, raws in self.world.log.items()
        }
        found = {source: raws for source, raws in found.items() if raws}
        if not found:
            return
        self.effects.take(self.world.reader.read(found, self.next))
        for source, raws in found.items():
            self.next[source] = raws[-1].offset + 1
            if self.world.owner == self.name:  # the group refuses a commit of anyone else
                self.world.committed[source] = self.next[source]


def _raw(source: Source, number: int, event_json: EventJson) -> Any:
    """Every seventh record is bad, offsets have holes, event times go back and forth."""
    value = event_json(
        station="ABC"[number % 3],
        event_id=f"{source.partition}-{number}",
        captured_at=NOW - 900 * (number * 7 % 5),
        exposure_ms="bad" if number % 7 == 3 else number,
    )
    offset = number + number // 5
    return SimpleNamespace(offset=offset, value=value, timestamp=NOW + number, key=b"k", headers=[])


def _raw_at(offset: int, entity: str, hours_ago: float, event_json: EventJson) -> Any:
    at = NOW - round(3_600_000 * hours_ago)
    return SimpleNamespace(
        offset=offset, value=event_json(station=entity, captured_at=at), timestamp=at, key=b"k", headers=[]
    )


@pytest.fixture
def world(tmp_path: Path, redis_url: str, resource: ContinualModel, event_json: EventJson) -> World:
    return World(tmp_path, redis_url, resource, event_json)


def check(world: World) -> None:
    """Each record has each of its effects exactly once."""
    check_lake(world)
    check_rows(world)
    check_sketches(world)


def check_lake(world: World) -> None:
    good, bad = _offsets(world, good=True), _offsets(world, good=False)
    for table, expected in ((events_table, good), (quarantine_table, bad)):
        found = table(world.lake, world.resource).scan().select("source", "offset").collect()
        assert sorted(found.rows()) == sorted(expected)
    told = {(record.source, record.offset) for record in world.written.of(world.topics.quarantine)}
    assert told == set(bad)


def _offsets(world: World, *, good: bool) -> list[tuple[str, int]]:
    return [
        (str(source), raw.offset)
        for source, raws in world.log.items()
        for number, raw in enumerate(raws)
        if (number % 7 != 3) == good
    ]


def check_rows(world: World) -> None:
    table = events_table(world.lake, world.resource).scan().sort("source", "offset").collect()
    names = layout_of(world.resource).names
    reader = OnlineReader(world.redis_url, world.resource.id)
    windows, lateness = world.resource.spec.features.windows, world.resource.spec.events.allowed_lateness
    for (entity,), events in table.partition_by("entity", as_dict=True).items():
        (found,) = reader.read([str(entity)], NOW + 1000)
        last = events.sort("event_time", "source", "offset").row(-1, named=True)
        rows = pl.DataFrame({"entity": [entity], "at": [from_ms(NOW + 1000)]}, schema_overrides={"at": TIME})
        tiles = window_values(table, rows, windows, lateness, as_of_fence=True).row(0, named=True)
        assert found.values == {name: last[name] for name in names} | tiles
        assert found.event_time == to_ms(last["event_time"])
        # After a rebuild the fence stands at the lake's version, beyond the entity's own last event.
        for (source,), own in events.partition_by("source", as_dict=True).items():
            assert found.fence[str(source)] >= own["offset"].max()  # type: ignore[operator]
    reader.close()


def check_sketches(world: World) -> None:
    counted: Counter[tuple[int, str, str]] = Counter()
    for sketch in once(world.written.of(world.topics.sketches)):
        for tick, of in sketch.votes.items():
            for entity, features in by_name(of).items():
                for name, votes in features.items():
                    counted[tick, entity, name] += votes.count + votes.missing
    expected: Counter[tuple[int, str, str]] = Counter()
    table = events_table(world.lake, world.resource).scan().select(pl.col("event_time").dt.epoch("ms"), "entity")
    for time, entity in table.collect().iter_rows():
        for name in (*world.resource.watched_features, *world.resource.watched_categories):
            expected[time // 1000, entity, name] += 1
    assert counted == expected


def once(sketches: list[Sketch]) -> Iterator[Sketch]:
    """The reader's rule (see `Sketch`); ranges join without a gap."""
    have: dict[str, int] = {}
    for sketch in sketches:
        if sketch.last_offset > have.get(sketch.source, -1):
            assert sketch.first_offset == have.get(sketch.source, -1) + 1
            have[sketch.source] = sketch.last_offset
            yield sketch


def test_without_any_failure_each_effect_is_there_once(world: World) -> None:
    worker = world.assign("one")
    for _ in range(5):
        worker.take(9)
    world.finish()
    check(world)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("length", [3, 11, 17])
def test_a_crash_after_any_stage_loses_and_doubles_nothing(world: World, stage: Stage, length: int) -> None:
    worker = world.assign("one")
    worker.take(7)
    worker.at = _crash_at(stage)
    with pytest.raises(Crash):
        worker.take(11)
    world.assign("two").take(length)
    world.finish()
    check(world)


def _crash_at(stage: Stage) -> Callable[[Stage], None]:
    def at(passed: Stage) -> None:
        if passed == stage:
            raise Crash

    return at


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("length", [3, 11, 17])
def test_a_worker_that_was_believed_dead_and_goes_on_changes_nothing(world: World, stage: Stage, length: int) -> None:
    zombie = world.assign("zombie")
    zombie.take(7)

    def meanwhile(passed: Stage) -> None:
        if passed == stage and world.owner == "zombie":
            owner = world.assign("owner")
            owner.take(length)
            owner.take(4)

    zombie.at = meanwhile
    zombie.take(11)
    zombie.take(5)
    world.finish()
    check(world)


@pytest.mark.parametrize("stage", STAGES)
def test_a_zombie_that_dies_after_a_stage_leaves_nothing_undone_that_the_owner_does_not_do(
    world: World, stage: Stage
) -> None:
    zombie = world.assign("zombie")
    zombie.take(7)
    owner = world.assign("owner")
    zombie.at = _crash_at(stage)
    with pytest.raises(Crash):
        zombie.take(5)
    owner.take(11)
    owner.take(4)
    world.finish()
    check(world)


def test_a_sketch_whose_acknowledgement_was_lost_is_written_again_and_counted_once(world: World) -> None:
    worker = world.assign("one")
    worker.take(7)

    def lose_the_next(passed: Stage) -> None:
        world.written.fail_next_flush = passed == "rows"

    worker.at = lose_the_next
    with pytest.raises(Unavailable):
        worker.take(9)
    worker.at = lambda stage: None
    worker.take(9)  # as the worker does: the same batch again
    sketches = world.written.of(world.topics.sketches)
    assert len(sketches) > len(list(once(sketches)))
    world.finish()
    check(world)


def test_a_redis_that_forgot_everything_is_filled_from_the_lake(world: World) -> None:
    import redis

    worker = world.assign("one")
    worker.take(7)
    client = redis.Redis.from_url(world.redis_url)
    for key in client.scan_iter(f"{{{world.resource.id}:*"):
        client.delete(key)
    client.close()
    with pytest.raises(RowsLost):
        worker.take(9)
    worker.take(9)
    world.finish()
    check(world)


def test_a_rebuild_reads_the_last_events_and_what_windows_may_still_ask_for(
    world: World, event_json: EventJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours_ago = [("A", 99), ("A", 98), ("B", 3), ("B", 2), ("B", 1), ("C", 0.5), ("C", 0)]
    world.log = {A: [_raw_at(n, *one, event_json) for n, one in enumerate(hours_ago)], B: [_raw(B, 1, event_json)]}
    worker = world.assign("one")
    worker.take(LENGTH)
    read: list[int] = []
    fill = OnlineRows.rebuild

    def rebuild(rows: OnlineRows, load: Callable[[], Filling], *, force: bool = False) -> bool:
        filling = load()
        parts = list(filling.parts)
        read.extend(pl.concat(parts).filter(source=str(A))["offset"])
        return fill(rows, lambda: Filling(filling.fence, parts), force=force)

    monkeypatch.setattr(OnlineRows, "rebuild", rebuild)
    worker.effects.fill_rows(force=True)
    assert sorted(read) == [1, 4, 5, 6]  # A's last event; what the longest window (1 h and 12 tiles) may still hold
    check_rows(world)
    # An arrival that lies ahead of the clock, be it one wrong producer's, hides nothing that is still asked for.
    world.clock = ManualClock(from_ms(NOW - 3_600_000))
    worker = world.assign("two")
    read.clear()
    worker.effects.fill_rows(force=True)
    assert sorted(read) == [1, 3, 4, 5, 6]


def test_a_rebuild_holds_some_events_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = world.assign("one")
    worker.take(LENGTH)
    held: list[int] = []
    collect = LakeTable.collect

    def collected(table: LakeTable, rows: pl.LazyFrame) -> pl.DataFrame:
        found = collect(table, rows)
        held.append(found.height)
        return found

    monkeypatch.setattr(LakeTable, "collect", collected)
    monkeypatch.setattr(filling, "TOGETHER", 10)
    worker.effects.fill_rows(force=True)
    assert sum(held[1:]) == len(_offsets(world, good=True)) > max(held)
    check_rows(world)


def test_a_replay_of_a_record_that_the_lake_has_by_itself_is_dropped(world: World, event_json: EventJson) -> None:
    def replay(offset: int, origin: str) -> Any:
        headers = [("origin", origin.encode())]
        return SimpleNamespace(offset=offset, value=event_json(), timestamp=NOW, key=b"k", headers=headers)

    log = [_raw(A, 0, event_json), _raw(A, 1, event_json)]
    world.log = {A: log}
    worker = world.assign("one")
    worker.take(LENGTH)
    log += [replay(10, f"{A}/1"), _raw(A, 20, event_json), replay(30, f"{A}/24")]
    log += [replay(31, f"{A}/2"), replay(32, f"{A}/2"), replay(33, f"{B}/1")]
    worker.take(LENGTH)
    found = events_table(world.lake, world.resource).scan().select("offset", "origin").sort("offset").collect()
    assert found.rows() == [(0, None), (1, None), (24, None), (31, f"{A}/2"), (33, f"{B}/1")]


def test_a_commit_that_was_lost_fills_the_rows_again(world: World) -> None:
    world.assign("one").take(7)
    world.committed.clear()
    world.assign("two").take(9)
    world.finish()
    check(world)


def test_a_record_that_the_lake_took_counts_as_it_did_then_even_if_rules_have_changed(world: World) -> None:
    worker = world.assign("one")
    worker.take(7)
    worker.at = _crash_at("events")
    with pytest.raises(Crash):
        worker.take(11)
    rules = world.resource.model_dump(mode="json", by_alias=True)
    rules["spec"]["events"]["fields"][1]["max"] = 4
    world.resource = ContinualModel.model_validate(rules)
    world.reader = BatchReader(world.resource)
    world.assign("two").take(11)
    check_rows(world)
    check_sketches(world)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "crash", "meanwhile", "assign"]),
        st.sampled_from(["one", "two"]),
        st.sampled_from(STAGES),
        st.integers(1, 12),
    ),
    max_size=7,
)


@pytest.mark.slow
@given(STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_two_workers_do_and_wherever_they_die_each_effect_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    make_resource: Callable[..., ContinualModel],
    event_json: EventJson,
    steps: list[tuple[str, str, Stage, int]],
) -> None:
    resource = make_resource(f"t{token_hex(4)}")
    world = World(tmp_path_factory.mktemp("lake"), redis_url, resource, event_json)
    for action, name, stage, length in steps:
        worker = world.workers.get(name) or world.assign(name)
        _step(world, worker, action, stage, length)
    world.finish()
    check(world)


def _step(world: World, worker: Worker, action: str, stage: Stage, length: int) -> None:
    if action == "assign":
        world.assign(worker.name)
    elif action == "take":
        _take(worker, length)
    elif action == "crash":
        worker.at = _crash_at(stage)
        with suppress(Crash):  # there may be nothing left to read
            _take(worker, length)
        del world.workers[worker.name]
    else:
        other = "two" if worker.name == "one" else "one"

        def meanwhile(passed: Stage) -> None:
            if passed == stage:
                world.assign(other).take(length + 2)

        worker.at = meanwhile
        _take(worker, length)
        worker.at = lambda stage: None


def _take(worker: Worker, length: int) -> None:
    """As the worker does: again, where the rows were filled anew by someone who was assigned meanwhile."""
    try:
        worker.take(length)
    except RowsLost:
        worker.take(length)
