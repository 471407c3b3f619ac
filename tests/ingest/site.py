"""A model's topics, lake and rows on real brokers and stores, and workers over them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.cells import by_name
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.records import Quarantined, Sketch, Topics
from tidemill.features.online import OnlineReader, Status
from tidemill.ingest.effects import Stage
from tidemill.ingest.tables import events_table, quarantine_table
from tidemill.ingest.worker import run
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually

EventJson = Callable[..., bytes]


class Crash(Exception):
    """The process ends here."""


class Site:
    """A model's topics, lake and rows, and workers over them."""

    def __init__(self, resource: ContinualModel, kafka: str, redis: str, lake: Path, event_json: EventJson) -> None:
        self.resource, self.kafka, self.redis, self.lake = resource, kafka, redis, str(lake)
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self.event_json = event_json
        self._sent = 0

    def send(self, count: int, **fields: Any) -> None:
        """Events of three stations on two partitions, each fourth without its exposure, which is required."""
        with RecordWriter(self.kafka) as writer:
            for number in range(self._sent, self._sent + count):
                time = to_ms(SystemClock().now())
                exposure = None if number % 4 == 3 else number
                made = {"station": "ABD"[number % 3], "event_id": f"e{number}", "captured_at": time, **fields}
                value = self.event_json(**{"exposure_ms": exposure, **made})
                writer.send(self.topics.events, value, key=str(made["station"]))
            writer.flush()
        self._sent += count

    def send_values(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Records as they are, each with its key."""
        with RecordWriter(self.kafka) as writer:
            for key, value in values:
                writer.send(self.topics.events, value, key=key)
            writer.flush(60)

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
            return self.ids() == self.expected() and self.announced() == len(self.expected())

        eventually(all_there, deadline_s, every_s=0.2)

    def check(self) -> None:
        """Each effect of each record is there once."""
        assert self.ids() == self.expected()
        quarantined = quarantine_table(self.lake, self.resource).scan().select("source", "offset").collect()
        assert quarantined.height == quarantined.unique().height == self.bad()
        assert len({(record.source, record.offset) for record in self.read("quarantine", Quarantined)}) == self.bad()
        self.check_rows()
        assert self.announced() == len(self.expected())

    def read(self, name: str, kind: type[Any]) -> list[Any]:
        """All records of one of our own topics."""
        try:
            with RecordReader(self.kafka, getattr(self.topics, name), kind) as reader:
                return [stamped.record for stamped in reader.rest()]
        except (NotFound, Unavailable):
            return []

    def announced(self) -> int:
        """Votes on exposure in the sketches, by the reader's rule."""
        have: dict[str, int] = {}
        counted = 0
        for sketch in self.read("sketches", Sketch):
            if sketch.last_offset > have.get(sketch.source, -1):
                assert sketch.first_offset == have.get(sketch.source, -1) + 1
                have[sketch.source] = sketch.last_offset
                cells = [entity for votes in sketch.votes.values() for entity in by_name(votes).values()]
                counted += sum(features["exposure_ms"].count for features in cells)
        return counted

    def has_rows(self) -> bool:
        """Whether the online rows are those of the lake."""
        try:
            self.check_rows()
        except (AssertionError, Unavailable):
            return False
        return True

    def check_rows(self) -> None:
        order = ["event_time", "source", "offset"]
        last = events_table(self.lake, self.resource).scan().sort(order).unique("entity", keep="last").collect()
        reader = OnlineReader(self.redis, self.resource.id)
        for row in last.iter_rows(named=True):
            (found,) = reader.read([row["entity"]])
            assert found.status is Status.PRESENT
            assert found.event_time == to_ms(row["event_time"])
            assert found.values["exposure_ms"] == row["exposure_ms"]
        reader.close()
