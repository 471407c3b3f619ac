"""The worker on a real broker and a real Redis: failures from outside, and a crash after each stage."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from threading import Event
from typing import Any

import polars as pl
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from tests.ingest.site import EventJson, Site

from tidemill.core.clock import SystemClock
from tidemill.core.errors import InvalidInput, Permanent, Unavailable
from tidemill.core.telemetry import REGISTRY
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import ensure_topics
from tidemill.events.records import Quarantined
from tidemill.events.sources import Source
from tidemill.features.online import Filling, OnlineReader
from tidemill.ingest import consumer, halts
from tidemill.ingest import lag as lag_module
from tidemill.ingest.effects import Effects, Stage
from tidemill.ingest.guard import NEWEST
from tidemill.ingest.tables import events_table
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


class Name(str):
    """A header's name that goes out as bytes that are no text."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff" + super().encode()


def test_a_header_whose_name_is_no_text_does_not_stop_a_topic(site: Site) -> None:
    producer = KafkaProducer(bootstrap_servers=site.kafka, acks="all")
    for exposure in (1, -1):
        value = site.event_json(event_id=f"x{exposure}", exposure_ms=exposure)
        producer.send(site.topics.events, value, key=b"A", headers=[(Name("trace"), b"1")])
    producer.flush()
    producer.close()
    with site.worker():
        eventually(lambda: site.ids() == ["x1"], 40, every_s=0.2)
        eventually(lambda: len(site.read("quarantine", Quarantined)) == 1, 40, every_s=0.2)
    (bad,) = site.read("quarantine", Quarantined)
    assert bad.headers == [("\ufffdtrace", b"1")]


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
        eventually(lambda: site.announced() == len(site.ids()) > 0, 30, every_s=0.2)
        site.check_rows()
        site.send(20)
        eventually(lambda: site.ids() == site.expected(), 30, every_s=0.2)
    site.check_rows()
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


def lag(site: Site) -> float | None:
    """What an autoscaler would see: the sum over partitions."""
    samples = [
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "tidemill_ingest_lag_records" and sample.labels["model"] == site.resource.id
    ]
    return sum(samples) if samples else None


def stopped(site: Site) -> bool:
    return any(
        sample.labels["model"] == site.resource.id
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "tidemill_ingest_stopped"
    )


def test_a_source_that_is_mostly_bad_stops_before_it_is_drained_and_goes_on_with_a_mended_resource(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_module, "_EVERY_S", 0.2)
    monkeypatch.setattr(halts, "TRY_AGAIN_S", 0.5)
    site.send_values([("A", site.event_json(event_id=f"e{n}", exposure_ms=2000 + n)) for n in range(NEWEST)])
    with site.worker():
        eventually(lambda: stopped(site) and lag(site) == NEWEST, 40)
        site.send_values([("A", site.event_json(event_id="f", exposure_ms=5000)) for _ in range(50)])
        eventually(lambda: lag(site) == NEWEST + 50, 40)  # it grows, where everyone sees it
        assert site.ids() == site.read("quarantine", Quarantined) == []
    assert lag(site) is None
    assert not stopped(site)
    rules = site.resource.model_dump(mode="json", by_alias=True)
    rules["spec"]["events"]["fields"][1]["max"] = 4000
    site.resource = ContinualModel.model_validate(rules)
    with site.worker():
        eventually(lambda: len(site.read("quarantine", Quarantined)) == 50, 40, every_s=0.2)
        eventually(lambda: lag(site) == 0, 40)
    assert len(site.ids()) == NEWEST


def test_a_stopped_source_goes_on_by_itself_when_its_share_of_bad_events_falls(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halts, "TRY_AGAIN_S", 0.5)
    site.send_values([("A", site.event_json(event_id=f"e{n}", exposure_ms=2000)) for n in range(NEWEST)])
    with site.worker():
        eventually(lambda: stopped(site), 40)
        site.send_values([("D", site.event_json(event_id="d", station="D"))])  # another partition is read as ever
        eventually(lambda: site.ids() == ["d"], 40, every_s=0.2)
        site.send_values([("A", site.event_json(event_id=f"f{n:03}")) for n in range(NEWEST)])
        eventually(lambda: len(site.ids()) == NEWEST + 1 and not stopped(site), 40, every_s=0.2)
    assert len({record.offset for record in site.read("quarantine", Quarantined)}) == NEWEST


def changed(site: Site, *fields: dict[str, Any], **types: str) -> ContinualModel:
    """The resource with further fields, and fields of other types."""
    rules = site.resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
    events = rules["spec"]["events"]
    for field in events["fields"]:
        field["type"] = types.get(field["name"], field["type"])
    events["fields"] += fields
    return ContinualModel.model_validate(rules)


@pytest.mark.slow
def test_a_new_optional_field_needs_no_stop(site: Site) -> None:
    before = site.resource
    after = changed(site, {"name": "temperature", "type": "float", "required": False})
    site.send(12)
    with site.worker():
        site.wait()
        site.resource = after
        with site.worker():  # beside the one that does not know the field, with which it shares the partitions
            site.send(24, temperature=21.5)
            site.wait()
            site.send(12, temperature=21.5)
            site.wait()
        site.send(12, temperature=21.5)
        site.wait()  # the old one goes on in a table that has a column more
    with site.worker():
        site.send(12, temperature=21.5)
        site.wait()
    found = events_table(site.lake, after).scan().select("event_id", "temperature").collect()
    known = dict(found.filter(pl.col("temperature") == 21.5).iter_rows())
    assert {f"e{number}" for number in range(60, 72) if number % 4 != 3} <= known.keys()
    assert not {f"e{number}" for number in range(12)} & known.keys()
    assert before.id == after.id
    site.check()


def test_another_type_for_a_column_is_refused_with_the_reason_and_the_way_out(site: Site) -> None:
    site.send(4)
    with site.worker():
        site.wait()
    resource = changed(site, shift="string")
    with pytest.raises(InvalidInput, match="column shift of") as refused:
        run(resource, kafka=site.kafka, redis=site.redis, lake=site.lake, clock=SystemClock(), stop=Event())
    assert "another name" in str(refused.value.hint)
    with site.worker():  # nothing was changed: the resource as it was works as before
        site.send(4)
        site.wait()
    site.check()


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


def test_a_partition_that_the_brokers_do_not_tell_of_yet_is_read_once_they_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, sources = Event(), Cluster.sources

    def some(cluster: Cluster, topic: str) -> dict[int, Source]:
        found = sources(cluster, topic)
        return found if told.is_set() else {number: source for number, source in found.items() if number}

    monkeypatch.setattr(Cluster, "sources", some)
    site.send(24)
    with site.worker():
        eventually(lambda: 0 < len(site.ids()) < len(site.expected()), 40, every_s=0.2)
        told.set()
        site.wait()
    site.check()


@pytest.mark.slow
def test_a_rebuild_that_takes_longer_than_the_group_waits_for_a_poll_is_done_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.send(12)
    with site.worker():
        site.wait()
    admin = KafkaAdminClient(bootstrap_servers=site.kafka)
    admin.delete_groups([f"{site.resource.id}.ingest"])  # what the lake has was never committed: the rows are filled
    admin.close()
    impatient = {"max_poll_interval_ms": 2000, "session_timeout_ms": 6000}
    monkeypatch.setattr(consumer, "KafkaConsumer", lambda **config: KafkaConsumer(**config | impatient))
    fills, load = [], Effects._load

    def slow(effects: Effects) -> Filling:
        fills.append(1)
        assert not Event().wait(6)
        return load(effects)

    monkeypatch.setattr(Effects, "_load", slow)
    site.send(12)
    with site.worker():
        site.wait()
    site.check()
    assert len(fills) == 1


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
            # What was sent may be announced before the rows of what came earlier are filled again.
            eventually(site.has_rows, 40, every_s=0.2)
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
@pytest.mark.slow
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
