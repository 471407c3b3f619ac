"""A predictor under faults: its broker stopped, itself killed; what the log then says is missing, and what is.

The clients know every prediction that was answered, the topic every one that was logged: the difference is the loss.
What the outcomes worker makes of the log (`lost`, `maybe_lost`) is held against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.faults.outcome_worker import OutcomeWorker
from benchmarks.faults.site import Site
from benchmarks.serving.asking import Answer, Clients, Served

from tidemill.core.clock import Clock
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Outcome, Prediction
from tidemill.testing import eventually

__all__ = ["EVERY_S", "Counted", "Outage", "Predictor"]

R = TypeVar("R", Outcome, Prediction)

EVERY_S = 0.5
"""How often the servers of a run say how far they are; a process is silent after three times that."""


@dataclass(frozen=True)
class Counted:
    """After one fault: rows answered that are not on the topic, and what the outcomes say of it."""

    what: str
    answered: int
    missing: int
    lost: int
    maybe_lost: int
    unanswered: int
    """Rows of requests that got no answer: the process may have counted them."""

    @property
    def exact(self) -> bool:
        """Whether the loss that is told is the one there was, but for rows whose answer was cut off."""
        return self.missing <= self.lost <= self.missing + self.unanswered and self.maybe_lost == 0

    @property
    def bounded(self) -> bool:
        """Whether the loss is not larger than is told."""
        return self.missing <= self.lost + self.maybe_lost


@dataclass(frozen=True)
class Outage:
    """Requests before, while and after the broker was away."""

    before: Sequence[Answer]
    during: Sequence[Answer]
    after: Sequence[Answer]


@dataclass
class Predictor:
    """One model's server and its clients, whose worker writes outcomes."""

    site: Site
    served: Served
    clients: Clients
    worker: OutcomeWorker
    clock: Clock
    counted: list[Counted] = field(default_factory=list)
    _logged: set[str] = field(default_factory=set)

    def options(self, capacity: int, *, keeps: bool = True, mute: bool = False) -> list[str]:
        """Of a server: how many rows may wait, and whether its counts outlive it."""
        counts = ["--counts", str(Path(self.site.folder) / "counts")] if keeps else []
        return ["--capacity", str(capacity), "--every", str(EVERY_S), *counts, *["--mute"] * mute]

    def outage(self, away_s: float, around_s: float, capacity: int) -> Outage:
        """Ask while the broker is stopped; the server lives, and ends in order."""
        self.served.start(*self.options(capacity))
        with self.clients.asking():
            began = self.clock.monotonic()
            self.clock.sleep(around_s)
            stopped = self.clock.monotonic()
            self.site.kafka.end()
            self.clock.sleep(away_s)
            self.site.kafka.start()
            again = self.clock.monotonic()
            self.clock.sleep(around_s)
        end = self.clock.monotonic()
        self.site.wait_for_kafka()
        self.clock.sleep(3)  # what waited is written
        self.served.end()
        self._account("the broker stopped", capacity)
        of = self.clients.between
        return Outage(of(began, stopped), of(stopped, again), of(again, end))

    def kill(
        self, under_load_s: float, capacity: int, *, away_s: float = 0.0, keeps: bool = True, mute: bool = False
    ) -> None:
        """Kill the server under load, where it says so with the broker away for that long."""
        self.served.start(*self.options(capacity, keeps=keeps, mute=mute))
        with self.clients.asking():
            self.clock.sleep(under_load_s)
            if away_s:
                self.site.kafka.end()
                self.clock.sleep(away_s)
            self.served.kill()
        if away_s:
            self.site.kafka.start()
            self.site.wait_for_kafka()
        words = f"killed{f' with the broker away for {away_s:g} s' if away_s else ''}"
        self._account(words + ("" if keeps else ", its counts gone"), capacity)

    def _account(self, what: str, capacity: int) -> None:
        """Let the next server begin, and read what its outcomes say once the dead one is silent for long."""
        self.served.start(*self.options(capacity))
        self.clock.sleep(6 * EVERY_S)
        with self.clients.asking():
            self.clock.sleep(1.0)
        newest = max(self.clients.answers, key=lambda answer: answer.at if answer.ids else 0.0).ids[0]

        def told() -> list[Outcome]:
            with RecordReader(self.site.bootstrap, self.site.topics.outcomes, Outcome) as reader:
                return [one for one in _all(reader) if one.prediction_id == newest]

        (outcome, *_) = eventually(told, 90, every_s=0.5)
        self.served.end()
        with RecordReader(
            self.site.bootstrap, self.site.topics.predictions, Prediction, on_bad=lambda *_: None
        ) as reader:
            self._logged = {one.prediction_id for one in _all(reader)}
        answers = self.clients.ids()
        self.counted.append(
            Counted(
                what=what,
                answered=len(answers),
                missing=len(answers - self._logged),
                lost=outcome.lost,
                maybe_lost=outcome.maybe_lost,
                unanswered=self.clients.rows * sum(not answer.ids for answer in self.clients.answers),
            )
        )


def _all(reader: RecordReader[R]) -> list[R]:
    return [stamped.record for stamped in reader.rest()]
