"""The loop on a real broker: what it reads and writes there, and a whole story with doubles for runs and traffic."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tidemill.control.ask import ask
from tidemill.control.log import Batch, KafkaLog
from tidemill.control.protocols import RunSeen
from tidemill.control.provision import topics_of
from tidemill.control.tick import Loop, Parts
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import DeadlineExceeded, NotFound, Unavailable
from tidemill.core.ids import new_id
from tidemill.events.cluster import Cluster, ensure_topics
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.records import Decision, Outcome, Prediction, Record, Request, ServingCount, Signal, Topics
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.store import MemoryResourceStore
from tidemill.testing.traffic import MemoryTrafficDriver

pytestmark = pytest.mark.kafka

CLOCK = SystemClock()


def request(kind: str, model: str, name: str | None = None, **arguments: object) -> Request:
    now = CLOCK.now()
    return Request(
        request_id=name or new_id(now),
        kind=kind,  # type: ignore[arg-type]
        model=model,
        time=to_ms(now),
        by="ada",
        arguments=arguments,  # type: ignore[arg-type]
    )


def decision(number: int, *, answers: str | None = None) -> Decision:
    return Decision(
        decision_id=f"d{number}", kind="hold", model="m", time=number, subject="v", reason="so", answers=answers
    )


def outcome(number: int) -> Outcome:
    return Outcome(
        prediction_id=f"p{number}", version="v", entity="e", predicted_at=number, eligible_at=number, output={}
    )


def answer(name: str) -> Prediction:
    return Prediction(prediction_id=name, version="v2", entity="e", time=0, output={}, boot="b", seq=0)


@pytest.fixture
def topics(kafka: str, topic_prefix: str) -> Topics:
    topics = topics_of(example_resource(topic_prefix))
    names = (topics.requests, topics.signals, topics.outcomes, topics.decisions)
    ensure_topics(kafka, dict.fromkeys(names, 2))
    return topics


@pytest.fixture
def log(kafka: str, topics: Topics) -> Iterator[KafkaLog]:
    log = KafkaLog(kafka, topics)
    yield log
    log.close()


@pytest.fixture
def writer(kafka: str) -> Iterator[RecordWriter]:
    with RecordWriter(kafka) as writer:
        yield writer


def write(writer: RecordWriter, topic: str, *records: Record) -> None:
    for number, record in enumerate(records):
        writer.send(topic, record, key=str(number))
    writer.flush()


def taken(log: KafkaLog, count: int) -> Batch[Request]:
    """The batch once it has so many records."""
    found: list[Batch[Request]] = []

    def all_there() -> bool:
        found.append(log.requests({}))
        return len(found[-1].records) == count

    eventually(all_there)
    return found[-1]


def names(batch: Batch[Request]) -> set[str]:
    return {stamped.record.request_id for stamped in batch.records}


def test_what_was_read_is_read_again_until_it_counts_as_consumed(
    log: KafkaLog, topics: Topics, writer: RecordWriter
) -> None:
    write(writer, topics.requests, *(request("retrain", "m", f"r{number}") for number in range(5)))
    batch = taken(log, 5)
    assert names(log.requests({})) == {f"r{number}" for number in range(5)}
    assert log.requests(batch.read).records == ()
    write(writer, topics.requests, request("retrain", "m", "r5"))
    eventually(lambda: names(log.requests(batch.read)) == {"r5"})
    eventually(lambda: len(names(log.requests({}))) == 6)  # from further back than what was kept


def test_another_process_goes_on_from_the_offsets(
    kafka: str, log: KafkaLog, topics: Topics, writer: RecordWriter
) -> None:
    write(writer, topics.requests, request("retrain", "m", "r0"))
    batch = taken(log, 1)
    write(writer, topics.requests, request("retrain", "m", "r1"))
    other = KafkaLog(kafka, topics)
    eventually(lambda: names(other.requests(batch.read)) == {"r1"})
    other.close()


def test_the_end_is_told_only_when_everything_was_read(log: KafkaLog, topics: Topics, writer: RecordWriter) -> None:
    write(writer, topics.outcomes, *(outcome(number) for number in range(2000)))
    read: dict[str, int] | None = None
    found = 0

    def finished() -> bool:
        nonlocal read, found
        batch = log.outcomes(read)
        read = batch.read
        found += len(batch.records)
        return batch.at_end()

    eventually(finished, 20)
    assert found == 2000


def test_a_log_that_is_written_to_all_the_time_is_caught_up_all_the_same(
    log: KafkaLog, topics: Topics, writer: RecordWriter
) -> None:
    read: dict[str, int] | None = None

    def caught_up_while_more_comes() -> bool:
        nonlocal read
        batch = log.outcomes(read)
        read = batch.read
        write(writer, topics.outcomes, outcome(0))  # so that there is always something left when it is asked
        return batch.at_end()

    eventually(caught_up_while_more_comes)


def test_a_topic_made_anew_is_read_from_its_start(
    kafka: str, log: KafkaLog, topics: Topics, writer: RecordWriter
) -> None:
    write(writer, topics.requests, *(request("retrain", "m", f"old{number}") for number in range(9)))
    read = taken(log, 9).read
    log.close()
    with Cluster(kafka) as cluster:
        cluster._admin.delete_topics([topics.requests])
        eventually(lambda: topics.requests not in cluster._admin.list_topics())
    ensure_topics(kafka, {topics.requests: 2})
    with RecordWriter(kafka) as again:
        write(again, topics.requests, request("retrain", "m", "new"))
    eventually(lambda: names(log.requests(read)) == {"new"})


def test_copies_are_read_from_now_on_and_again_from_where_a_rollout_began(
    kafka: str, log: KafkaLog, topics: Topics, writer: RecordWriter
) -> None:
    ensure_topics(kafka, {topics.copies: 1})
    writer.send(topics.copies, answer("before"), key="before")
    writer.send(topics.copies, ServingCount(boot="b", answered=1, logged=1, settled=1, capacity=9, every_ms=5000))
    writer.flush()
    began = log.copies(None).read
    writer.send(topics.copies, answer("after"), key="after")
    writer.flush()
    for tail in (log, KafkaLog(kafka, topics)):
        found = eventually(lambda tail=tail: tail.copies(began).records)  # type: ignore[misc]
        assert [one.record.prediction_id for one in found or ()] == ["after"]
        tail.close()


def test_decisions_are_read_once_each_and_in_order(log: KafkaLog) -> None:
    log.publish([decision(number) for number in range(10)])
    log.publish([decision(9), decision(3)])
    assert [one.decision_id for one in log.decisions()] == [f"d{number}" for number in range(10)]


def test_missing_topics_are_not_found(kafka: str, topic_prefix: str) -> None:
    with closing(KafkaLog(kafka, topics_of(example_resource(topic_prefix)))) as log, pytest.raises(NotFound):
        log.requests({})


def test_a_broker_that_is_not_there_is_unavailable(topics: Topics) -> None:
    (port,) = free_ports(1)
    with closing(KafkaLog(f"127.0.0.1:{port}", topics)) as log, pytest.raises(Unavailable):
        log.requests({})


def test_who_asks_gets_the_answer_to_the_own_request(kafka: str, log: KafkaLog, topics: Topics) -> None:
    log.publish([decision(1, answers="another"), decision(2, answers="mine"), decision(3, answers="third")])
    found = ask(kafka, topics, request("retrain", "m", "mine"), clock=CLOCK, deadline_s=10)
    assert found.decision_id == "d2"
    eventually(lambda: names(log.requests({})) == {"mine"})


def test_who_gets_no_answer_is_told_that_control_is_silent(kafka: str, topics: Topics) -> None:
    with pytest.raises(DeadlineExceeded, match="control is not answering"):
        ask(kafka, topics, request("retrain", "m"), clock=CLOCK, deadline_s=0.5)


class Mill:
    """A loop on the broker, ticking in its own thread; runs and traffic are doubles."""

    def __init__(self, kafka: str, topics: Topics, name: str) -> None:
        self.resource = example_resource(name, model={"codec": "a:B", "trainer": "a:C"})
        self.kafka, self.topics = kafka, topics
        self.store = MemoryResourceStore()
        self.store.put(self.resource)
        self.runner, self.registry = ScriptedRunner(), MemoryRegistry(CLOCK)
        self.driver = MemoryTrafficDriver(ready_at_once=True)
        self._stop = threading.Event()

    def start(self) -> None:
        log = KafkaLog(self.kafka, self.topics)
        parts = Parts(log, self.runner, self.driver, self.registry, lambda since: 0, log.close)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(Loop(self.resource.id, self.store, parts, CLOCK),))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def ask(self, kind: str, name: str | None = None, **arguments: object) -> Decision:
        asked = request(kind, self.resource.id, name, **arguments)
        return ask(self.kafka, self.topics, asked, clock=CLOCK, deadline_s=20)

    def run(self, run: str) -> Decision:
        self.runner.show(RunSeen(run=run, state="running"))
        grant = self.ask("claim", f"{run}-claim", run=run)
        self.registry.register(self.resource.id, run, f"/artifacts/{run}")
        token = grant.figures["token"]
        return self.ask("propose", f"{run}-propose", run=run, token=token, version=run, artifact=f"/artifacts/{run}")

    def _run(self, loop: Loop) -> None:
        while not self._stop.is_set():
            loop.tick()
            self._stop.wait(0.05)
        loop.close()


@pytest.fixture
def mill(kafka: str, topics: Topics, topic_prefix: str) -> Iterator[Mill]:
    mill = Mill(kafka, topics, topic_prefix)
    mill.start()
    yield mill
    mill.stop()


def test_a_story_on_the_log_survives_restarts_and_the_loss_of_the_status(mill: Mill, writer: RecordWriter) -> None:
    first = mill.ask("retrain", reason="the first").subject
    assert mill.run(first).kind == "start-rollout"
    eventually(lambda: mill.registry.aliases(mill.resource.id) == {"champion": first})
    mill.stop()
    mill.store.lose_status(mill.resource.id)
    mill.start()
    asked = mill.ask("retrain", "again", reason="the second")
    second = asked.subject
    assert second > first
    mill.run(second)
    mill.stop()
    mill.start()
    eventually(lambda: [one.share for one in mill.driver.observe().revisions] == [95, 5])
    assert mill.ask("promote", reason="seen enough").kind == "set-traffic"
    eventually(lambda: mill.registry.aliases(mill.resource.id) == {"champion": second, "previous": first})
    signal = Signal(
        signal_id="s", kind="drift", feature="x", time=to_ms(CLOCK.now()), version=second, evidence=2.0, message="moved"
    )
    write(writer, mill.topics.signals, signal)
    eventually(lambda: b'"moved"' in (mill.store.get(mill.resource.id).status or b""))
    with RecordReader(mill.kafka, mill.topics.decisions, Decision) as reader:
        decided: dict[str, Decision] = {}

        def all_read() -> bool:
            decided.update({one.record.decision_id: one.record for one in reader.poll(timeout_s=0.1)})
            return reader.at_end()

        eventually(all_read)
    kinds = [one.kind for one in sorted(decided.values(), key=lambda one: one.time)]
    assert [kind for kind in kinds if kind in {"start-run", "grant", "start-rollout", "promote", "rebuild"}] == [
        "start-run",
        "grant",
        "start-rollout",
        "promote",
        "rebuild",
        "start-run",
        "grant",
        "start-rollout",
        "promote",
    ]
