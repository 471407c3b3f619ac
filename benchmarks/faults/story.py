"""Which faults come when: a plan by seed, and how each is done."""

import random
from collections.abc import Callable, Sequence
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
from tidemill.testing import eventually

__all__ = ["MAKE_ANEW", "OTHERS", "PARTITIONS", "Done", "Story", "make_topic", "plan"]

PARTITIONS = 4
_MORE = 2
KILL, MAKE_ANEW, ADD_PARTITIONS = "kill a worker", "make the topic anew", "add partitions"
OTHERS = (
    MAKE_ANEW,
    ADD_PARTITIONS,
    *("hold a worker", "hold a worker"),
    *("end Kafka", "kill Kafka"),
    *("end Redis", "kill Redis"),
    *("empty Redis", "empty Redis"),
)
"""What else is done. Redis comes back empty: it keeps nothing on disk."""


@dataclass(frozen=True)
class Done:
    """One fault as it was done."""

    at: float
    """Seconds since the load began."""
    what: str


def plan(rng: random.Random, kills: int, others: Sequence[str] = OTHERS) -> list[str]:
    """The faults in their order: kills and `others` mixed, and the topic made anew in the middle if it is among them.

    Partitions are added after that, so that all that lies in them has to be read.
    """
    order = [KILL] * kills + [what for what in others if what not in (MAKE_ANEW, ADD_PARTITIONS)]
    rng.shuffle(order)
    middle = len(order) // 2
    first, second = order[:middle], order[middle:]
    if ADD_PARTITIONS in others:
        second.insert(rng.randrange(len(second)), ADD_PARTITIONS)
    return [*first, MAKE_ANEW, *second] if MAKE_ANEW in others else [*first, *second]


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
    gone: Log | None = None
    """The topic as it was when it was deleted."""

    def run(self, faults: Sequence[str], tell: Callable[[Done], None]) -> None:
        """All faults, each after a random pause."""
        began = self.clock.monotonic()
        at = faults.index(MAKE_ANEW) if MAKE_ANEW in faults else len(faults)
        for part in (faults[:at], faults[at:]):
            if part and part[0] == MAKE_ANEW:  # without load: what the old topic holds at its end must be known
                self._told(MAKE_ANEW, began, tell)
            with self.load.running():
                self.workers.wait_until_working()
                for what in part:
                    if what != MAKE_ANEW:
                        self.clock.sleep(self.rng.uniform(*self.pause_s))
                        self._told(what, began, tell)
                self.clock.sleep(self.pause_s[1])

    def _told(self, what: str, began: float, tell: Callable[[Done], None]) -> None:
        self.done.append(Done(self.clock.monotonic() - began, what))
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
            MAKE_ANEW: self._make_topic_anew,
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
        """While the workers run and lag, and one sleeps over it; what the log held is noted first."""
        self.gone = read_log(self.site)
        with self.workers.held():
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
