"""The worker on a real broker and a real Redis: failures from outside, and a crash after each stage."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from threading import Event, Thread
from typing import Any

import polars as pl
import pytest
from kafka import KafkaAdminClient, TopicPartition

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import NotFound, Permanent, Unavailable
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader, RecordWriter, ensure_topics
from tidemill.events.records import Quarantined, Sketch, Topics
from tidemill.features.online import OnlineReader, Status
from tidemill.ingest.effects import Stage
from tidemill.ingest.tables import events_table, quarantine_table
from tidemill.ingest.worker import run
from tidemill.spec.model import ContinualModel
from tidemill.stack import kafka as kafka_process
from tidemill.stack import redis as redis_process
from tidemill.stack.launch import signal_group, spawn
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.readiness import is_ready
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

EventJson = Callable[..., bytes]


class Crash(Exception):
    """The process ends here."""


class Site:
    """A model's topics, lake and rows, and workers over them."""

    def __init__(self, resource: ContinualModel, kafka: str, redis: str, lake: Path, event_json: EventJson) -> None:
        self.resource, self.kafka, self.redis, self.lake = resource, kafka, redis, str(lake)
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self._event_json = event_json
        self._sent = 0

    def send(self, count: int, **fields: Any) -> None:
        """Events of three stations, each fourth without its exposure, which is required."""
        with RecordWriter(self.kafka) as writer:
            for number in range(self._sent, self._sent + count):
                time = to_ms(SystemClock().now())
                exposure = None if number % 4 == 3 else number
                made = {"station": "ABC"[number % 3], "event_id": f"e{number}", "captured_at": time, **fields}
                value = self._event_json(**{"exposure_ms": exposure, **made})
                writer.send(self.topics.events, value, key=str(made["station"]))
            writer.flush()
        self._sent += count

    @contextmanager
    def worker(self, crash_at: Stage | None = None) -> Iterator[Thread]:
        """A worker in a thread until the block ends. With `crash_at` it ends by itself after that stage."""
        stop, failed = Event(), []

        def passed(stage: Stage) -> None:
            if stage == crash_at:
                raise Crash

        def body() -> None:
            try:
                run(
                    self.resource,
                    kafka=self.kafka,
                    redis=self.redis,
                    lake=self.lake,
                    clock=SystemClock(),
                    stop=stop,
                    passed=passed,
                )
            except Crash:
                pass
            except BaseException as error:
                failed.append(error)

        thread = Thread(target=body)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(30)
        assert failed == []
        assert not thread.is_alive()

    def ids(self) -> list[str]:
        """Event ids in the lake, as often as they are there."""
        try:
            return sorted(events_table(self.lake, self.resource).scan().select("event_id").collect()["event_id"])
        except NotFound:
            return []

    def expected(self) -> list[str]:
        return sorted(f"e{number}" for number in range(self._sent) if number % 4 != 3)

    def bad(self) -> int:
        return sum(number % 4 == 3 for number in range(self._sent))

    def wait(self, deadline_s: float = 40) -> None:
        """Until all that was sent is taken in, and announced to the watch."""

        def all_there() -> bool:
            return self.ids() == self.expected() and self._announced() == len(self.expected())

        eventually(all_there, deadline_s, every_s=0.2)

    def check(self) -> None:
        """Each effect of each record is there once."""
        assert self.ids() == self.expected()
        quarantined = quarantine_table(self.lake, self.resource).scan().select("source", "offset").collect()
        assert quarantined.height == quarantined.unique().height == self.bad()
        assert len({(record.source, record.offset) for record in self.read("quarantine", Quarantined)}) == self.bad()
        self._check_rows()
        assert self._announced() == len(self.expected())

    def read(self, name: str, kind: type[Any]) -> list[Any]:
        """All records of one of our own topics."""
        found = []
        try:
            with RecordReader(self.kafka, getattr(self.topics, name), kind) as reader:
                while not reader.at_end():
                    found += [stamped.record for stamped in reader.poll(timeout_s=0.2)]
        except (NotFound, Unavailable):
            return []
        return found

    def _announced(self) -> int:
        """Votes on exposure in the sketches, by the reader's rule."""
        have: dict[str, int] = {}
        counted = 0
        for sketch in self.read("sketches", Sketch):
            if sketch.last_offset > have.get(sketch.source, -1):
                assert sketch.first_offset == have.get(sketch.source, -1) + 1
                have[sketch.source] = sketch.last_offset
                cells = [entity for entities in sketch.votes.values() for entity in entities.values()]
                counted += sum(features["exposure_ms"].count for features in cells)
        return counted

    def _check_rows(self) -> None:
        order = ["event_time", "source", "offset"]
        last = events_table(self.lake, self.resource).scan().sort(order).unique("entity", keep="last").collect()
        reader = OnlineReader(self.redis, self.resource.id)
        for row in last.iter_rows(named=True):
            (found,) = reader.read([row["entity"]])
            assert found.status is Status.PRESENT
            assert found.event_time == to_ms(row["event_time"])
            assert found.values["exposure_ms"] == row["exposure_ms"]
        reader.close()


@pytest.fixture
def site(kafka: str, redis_url: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson) -> Site:
    made = Site(resource, kafka, redis_url, tmp_path / "lake", event_json)
    ensure_topics(kafka, {made.topics.events: 2})
    return made


def test_events_reach_the_lake_the_rows_and_the_watch_and_bad_ones_quarantine(site: Site, image: str) -> None:
    site.send(30)
    site.send(10, image=image)
    with site.worker():
        site.wait()
        site.send(20)
        site.wait()
    site.check()
    records = site.read("quarantine", Quarantined)
    assert Counter((record.field, record.reason) for record in records) == {("exposure_ms", "is required"): site.bad()}
    found = events_table(site.lake, site.resource).scan().select(pl.col("brightness").count()).collect().item()
    assert found == sum(number % 4 != 3 for number in range(30, 40))


def test_offsets_are_committed_after_the_effects_with_the_source_they_belong_to(site: Site) -> None:
    site.send(20)
    with site.worker():
        site.wait()
    with Cluster(site.kafka) as cluster:
        sources, ends = cluster.sources(site.topics.events), cluster.ends(site.topics.events, [0, 1])
    admin = KafkaAdminClient(bootstrap_servers=site.kafka)
    group = f"{site.resource.id}.ingest"
    committed = admin.list_group_offsets(group)[group]
    admin.close()
    for partition, end in ends.items():
        if end:
            found = committed[TopicPartition(site.topics.events, partition)]
            assert (found.offset, found.metadata) == (end, str(sources[partition]))


@pytest.mark.parametrize("stage", ["quarantine", "events", "rows", "sketches"])
def test_a_worker_that_dies_after_a_stage_is_followed_by_one_that_loses_and_doubles_nothing(
    site: Site, stage: Stage
) -> None:
    site.send(25)
    with site.worker(crash_at=stage) as thread:
        eventually(lambda: not thread.is_alive(), 30)
    site.send(15)
    with site.worker():
        site.wait()
    site.check()


def test_two_workers_share_the_partitions_and_one_goes_on_alone(site: Site) -> None:
    site.send(20)
    with site.worker():
        with site.worker():
            site.wait()
            site.send(20)
            site.wait()
        site.send(20)
        site.wait()
    site.check()


def test_a_topic_made_anew_is_read_from_its_start_while_the_worker_runs(site: Site) -> None:
    site.send(10)
    with site.worker():
        site.wait()
        before = site.ids()
        admin = KafkaAdminClient(bootstrap_servers=site.kafka)
        admin.delete_topics([site.topics.events])
        admin.close()
        eventually(lambda: _made(site), 20)
        site.send(40)  # more than before, so that no offset of the new topic is out of the old one's range
        eventually(lambda: site.ids() == site.expected(), 60, every_s=0.2)
    assert len(before) < len(site.ids())
    sources = events_table(site.lake, site.resource).scan().select(pl.col("source").str.split("/").list.get(1))
    assert sources.unique().collect().height == 2


def test_rows_and_sketches_get_what_the_lake_took_of_a_topic_that_is_gone_before_they_did(site: Site) -> None:
    site.send(20)
    with site.worker(crash_at="events") as thread:
        eventually(lambda: not thread.is_alive(), 30)
    admin = KafkaAdminClient(bootstrap_servers=site.kafka)
    admin.delete_topics([site.topics.events])
    admin.close()
    eventually(lambda: _made(site), 20)
    with site.worker():
        eventually(lambda: site._announced() == len(site.ids()) > 0, 30, every_s=0.2)
        site._check_rows()
        site.send(20)
        eventually(lambda: site.ids() == site.expected(), 30, every_s=0.2)
    site._check_rows()
    with Cluster(site.kafka) as cluster:
        read = {str(source) for source in cluster.sources(site.topics.events).values()}
    reader = OnlineReader(site.redis, site.resource.id)
    assert all(row.fence.keys() <= read for row in reader.read(["A", "B", "C"]))  # none of the topic that is gone
    reader.close()


def _made(site: Site) -> bool:
    try:
        ensure_topics(site.kafka, {site.topics.events: 2})
    except Unavailable:  # the broker starts, or an older topic of this name is still being deleted
        return False
    return True


def test_a_worker_waits_for_its_topic(
    kafka: str, redis_url: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson
) -> None:
    site = Site(resource, kafka, redis_url, tmp_path, event_json)
    with site.worker() as thread:
        ensure_topics(kafka, {site.topics.events: 1})
        site.send(8)
        site.wait()
        assert thread.is_alive()
    site.check()


class Process:
    """A broker or Redis of this test's own, to be killed and started again on the same port."""

    def __init__(self, wanted: ProcessWanted, log: Path) -> None:
        self._wanted, self._log = wanted, log
        self._process: Any = None

    def start(self) -> None:
        self._process = spawn(self._wanted.argv, log=self._log)
        eventually(lambda: is_ready(self._wanted.ready or ""), 60)

    def kill(self) -> None:
        signal_group(self._process.pid, SIGKILL)
        self._process.wait(10)


@contextmanager
def process(wanted: ProcessWanted, log: Path) -> Iterator[Process]:
    started = Process(wanted, log)
    started.start()
    try:
        yield started
    finally:
        started.kill()


def test_a_redis_that_was_restarted_empty_is_filled_from_the_lake_and_nothing_is_lost(
    kafka: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson
) -> None:
    (port,) = free_ports(1)
    with process(redis_process.prepare(tmp_path / "redis", port=port), tmp_path / "redis.log") as redis:
        site = Site(resource, kafka, f"redis://{HOST}:{port}/0", tmp_path / "lake", event_json)
        ensure_topics(kafka, {site.topics.events: 1})
        site.send(12)
        with site.worker():
            site.wait()
            redis.kill()
            site.send(12)
            eventually(lambda: site.ids() == site.expected(), 20, every_s=0.2)
            redis.start()
            site.wait()
        site.check()


def test_a_worker_can_be_stopped_while_redis_does_not_answer(
    kafka: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson
) -> None:
    (port,) = free_ports(1)
    with process(redis_process.prepare(tmp_path / "redis", port=port), tmp_path / "redis.log") as redis:
        site = Site(resource, kafka, f"redis://{HOST}:{port}/0", tmp_path / "lake", event_json)
        ensure_topics(kafka, {site.topics.events: 1})
        with site.worker():
            site.send(4)
            site.wait()
            redis.kill()
            site.send(4)
            eventually(lambda: site.ids() == site.expected(), 20, every_s=0.2)
        redis.start()
        with site.worker():
            site.wait()
        site.check()


# kafka-python leaves the sockets of refused connections to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_broker_that_was_killed_and_started_again_loses_nothing(
    redis_url: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson
) -> None:
    port, controller_port = free_ports(2)
    wanted = kafka_process.prepare(tmp_path / "kafka", port=port, controller_port=controller_port)
    with process(wanted, tmp_path / "kafka.log") as broker:
        site = Site(resource, f"{HOST}:{port}", redis_url, tmp_path / "lake", event_json)
        eventually(lambda: _made(site), 60)
        site.send(12)
        with site.worker():
            site.wait()
            site.send(12)
            broker.kill()
            broker.start()
            eventually(lambda: _made(site), 60)
            site.send(12)
            site.wait(90)
        site.check()
    gc.collect()


def test_a_redis_that_evicts_rows_ends_the_worker_with_a_reason(
    kafka: str, tmp_path: Path, resource: ContinualModel, event_json: EventJson
) -> None:
    (port,) = free_ports(1)
    wanted = redis_process.prepare(tmp_path / "redis", port=port)
    argv = tuple("allkeys-lru" if part == "noeviction" else part for part in wanted.argv)
    with process(ProcessWanted(name="redis", argv=argv, ready=wanted.ready), tmp_path / "redis.log"):
        ensure_topics(kafka, {resource.events_topic: 1})
        redis = f"redis://{HOST}:{port}/0"
        with pytest.raises(Permanent, match="allkeys-lru"):
            run(resource, kafka=kafka, redis=redis, lake=str(tmp_path), clock=SystemClock(), stop=Event())
