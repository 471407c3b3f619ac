"""Which faults come when: a plan by seed, and how each is done."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM

from benchmarks.faults.account import Log, read_log
from benchmarks.faults.load import Load
from benchmarks.faults.site import SESSION_MS, Site
from benchmarks.faults.workers import Worker, Workers
from kafka import KafkaAdminClient

from tidemill.core.clock import Clock
from tidemill.core.errors import Unavailable
from tidemill.events.cluster import ensure_topics
from tidemill.ingest.tables import events_table
from tidemill.testing import eventually

__all__ = [
    "ADD_PARTITIONS",
    "KILL",
    "MAKE_ANEW",
    "MAKE_ANEW_AFTER_DEATH",
    "OTHERS",
    "PARTITIONS",
    "Done",
    "Story",
    "make_topic",
    "plan",
]

PARTITIONS = 4
_MORE = 2
KILL, ADD_PARTITIONS = "kill a worker", "add partitions"
KILL_FILLING = "empty Redis, and kill all workers while one fills it"
MAKE_ANEW, MAKE_ANEW_AFTER_DEATH = "make the topic anew", "kill all workers, and make the topic anew"
OTHERS = (
    *("hold a worker", "hold a worker"),
    *("end Kafka", "kill Kafka"),
    *("end Redis", "kill Redis"),
    *("empty Redis", "empty Redis"),
    *(KILL_FILLING, KILL_FILLING),
    *("compact the lake", "compact the lake"),
)
"""What else is done. Redis comes back empty: it keeps nothing on disk."""


@dataclass(frozen=True)
class Done:
    """One fault as it was done."""

    at: float
    """Seconds of the monotonic clock."""
    what: str


def plan(rng: random.Random, kills: int) -> list[str]:
    """All faults in their order: kills and others mixed, and in between the topic is made anew, twice.

    Partitions are added after that, so that all that lies in them has to be read.
    """
    order = [KILL] * kills + list(OTHERS)
    rng.shuffle(order)
    third = len(order) // 3
    last = order[2 * third :]
    last.insert(rng.randrange(len(last)), ADD_PARTITIONS)
    return [*order[:third], MAKE_ANEW, *order[third : 2 * third], MAKE_ANEW_AFTER_DEATH, *last]


@dataclass
class Story:
    """Does the faults of a plan, under load."""

    site: Site
    workers: Workers
    load: Load
    clock: Clock
    rng: random.Random
    pause_s: tuple[float, float]
    killed: list[Worker] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    fillings_killed: int = 0
    gone: list[Log] = field(default_factory=list)
    """The topic as it was each time that it was deleted."""

    def run(self, faults: Sequence[str], tell: Callable[[Done], None]) -> None:
        """All faults, each after a random pause."""
        with self.load.running():
            self.workers.wait_until_working()
            for what in faults:
                self.clock.sleep(self.rng.uniform(*self.pause_s))
                self._told(what, tell)
            self.clock.sleep(self.pause_s[1])

    def _told(self, what: str, tell: Callable[[Done], None]) -> None:
        self.done.append(Done(self.clock.monotonic(), what))
        tell(self.done[-1])
        self._do(what)

    def _do(self, what: str) -> None:
        site = self.site
        actions: dict[str, Callable[[], object]] = {
            KILL: lambda: self.killed.append(self.workers.kill()),
            "hold a worker": self._hold,
            "end Kafka": lambda: site.restart_kafka(SIGTERM),
            "kill Kafka": lambda: site.restart_kafka(SIGKILL),
            "end Redis": lambda: site.redis.restart(SIGTERM),
            "kill Redis": lambda: site.redis.restart(SIGKILL),
            "empty Redis": site.empty_redis,
            ADD_PARTITIONS: self._add_partitions,
            KILL_FILLING: self._kill_filling,
            "compact the lake": events_table(site.lake, site.resource).compact,
            MAKE_ANEW: self._make_topic_anew,
            MAKE_ANEW_AFTER_DEATH: self._make_topic_anew_after_death,
        }
        actions[what]()

    def _hold(self) -> None:
        with self.workers.held():
            self.clock.sleep(2 * SESSION_MS / 1000)

    def _add_partitions(self) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.site.bootstrap)
        try:
            admin.create_partitions({self.site.topics.events: PARTITIONS + _MORE})
        finally:
            admin.close()

    def _make_topic_anew(self) -> None:
        """While the workers run and lag, and one sleeps over it."""
        with self.workers.held():
            self._replace_topic()

    def _make_topic_anew_after_death(self) -> None:
        """No one is left to finish what was begun of the old topic."""
        with self._all_dead("taken events"):
            self._replace_topic()

    def _kill_filling(self) -> None:
        self.site.empty_redis()
        self.fillings_killed += self.workers.until(lambda: self.site.filling, 10.0)
        with self._all_dead():
            pass

    @contextmanager
    def _all_dead(self, aim: str | None = None) -> Iterator[None]:
        """All workers are killed, and as many are started after the block."""
        count = len(self.workers.running)
        self.killed += self.workers.kill_all(aim)
        yield
        for _ in range(count):
            self.workers.start()

    def _replace_topic(self) -> None:
        """Without load, so that what the old topic held at its end is known."""
        with self.load.paused():
            self.gone.append(read_log(self.site))
            admin = KafkaAdminClient(bootstrap_servers=self.site.bootstrap)
            try:
                admin.delete_topics([self.site.topics.events])
            finally:
                admin.close()
            eventually(lambda: make_topic(self.site), 60, every_s=0.2)


def make_topic(site: Site) -> bool:
    """Make the topic of events; returns whether it could be made: an older one of its name may still be going."""
    try:
        ensure_topics(site.bootstrap, {site.topics.events: PARTITIONS})
    except Unavailable:
        return False
    return True
