"""What was seen while the story went on: answers, traffic, decisions, signals, image statistics, memory.

Everything here was measured. Times are milliseconds since the epoch.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tidemill.control.protocols import RunSeen
from tidemill.events.cells import by_name
from tidemill.events.records import Decision, Signal, Sketch

from .inspector import Inspected

__all__ = ["Answer", "Recording", "StepSeen"]

_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the endpoint; `taken` is when the picture was taken."""

    taken: int
    version: str
    right: bool


@dataclass(frozen=True, slots=True)
class StepSeen:
    """A step of a run, from when until when it was seen at work."""

    run: str
    step: str
    since: int
    until: int


@dataclass
class Recording:
    """Filled by several threads, read by one; lists only grow."""

    answers: list[Answer] = field(default_factory=list)
    prediction_ids: set[str] = field(default_factory=set)
    samples: dict[str, list[Inspected]] = field(default_factory=dict)
    """The first answers of each part of the story that shows pictures."""
    traffic: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """The proxy's weights in percent, each time they were seen to change."""
    decisions: list[Decision] = field(default_factory=list)
    signals: list[tuple[int, Signal]] = field(default_factory=list)
    """With the time at which they reached the log."""
    steps: list[StepSeen] = field(default_factory=list)
    statistics: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)
    """By image statistic and window tick: how many pictures, and their total."""
    tick_ms: int = 1000
    peak_memory: int = 0
    """Bytes, resident, of all processes together."""
    peak_processes: int = 0
    troubles: list[str] = field(default_factory=list)
    """What could not be observed."""
    _sampling: str | None = None
    _sampled_since: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sample(self, name: str, since: int) -> None:
        """Keep the answers about the first pictures taken from then on, under this name, right or wrong."""
        with self._lock:
            self._sampling, self._sampled_since = name, since
            self.samples.setdefault(name, [])

    def take_answer(self, inspected: Inspected) -> None:
        """One answer."""
        with self._lock:
            self.answers.append(Answer(inspected.phone.captured_at, inspected.version, inspected.right))
            self.prediction_ids.add(inspected.prediction_id)
            if self._sampling is not None and inspected.phone.captured_at >= self._sampled_since:
                kept = self.samples[self._sampling]
                kept.append(inspected)
                if len(kept) == _SAMPLES:
                    self._sampling = None

    def take_sketch(self, sketch: Sketch) -> None:
        """What ingest saw in some of the events."""
        self.tick_ms = sketch.tick_ms
        for tick, votes in sketch.votes.items():
            for features in by_name(votes).values():
                for name, seen in features.items():
                    count, total = self.statistics.setdefault(name, {}).get(tick, (0, 0.0))
                    self.statistics[name][tick] = (count + seen.count, total + seen.total)

    def take_run(self, seen: RunSeen, now: int) -> None:
        """The step that a run is at."""
        if seen.step is None or seen.state != "running":
            return
        last = self.steps[-1] if self.steps else None
        if last is not None and (last.run, last.step) == (seen.run, seen.step):
            self.steps[-1] = StepSeen(seen.run, seen.step, last.since, now)
        else:
            self.steps.append(StepSeen(seen.run, seen.step, now, now))

    def between(self, since: int, until: int | None = None) -> list[Answer]:
        """The answers about pictures taken in [since, until)."""
        answers = list(self.answers)
        return [one for one in answers if since <= one.taken and (until is None or one.taken < until)]

    def accuracy(self, since: int, until: int | None = None, *, version: str | None = None) -> tuple[float | None, int]:
        """Share of right answers about pictures taken in [since, until), and how many there were."""
        found = [one.right for one in self.between(since, until) if version is None or one.version == version]
        return (sum(found) / len(found) if found else None), len(found)

    def moving_accuracy(self, window_ms: int, every_ms: int) -> list[tuple[int, float]]:
        """Accuracy over the window before each moment, where there were answers."""
        answers = sorted(self.answers, key=lambda one: one.taken)
        if not answers:
            return []
        times = [one.taken for one in answers]
        sums = _running(one.right for one in answers)
        points = []
        for at in range(times[0] + window_ms, times[-1] + 1, every_ms):
            first, last = bisect_left(times, at - window_ms), bisect_left(times, at)
            if last - first >= _SAMPLES:
                points.append((at, (sums[last] - sums[first]) / (last - first)))
        return points

    def moving_statistic(self, name: str, since: int) -> list[tuple[int, float]]:
        """Mean of an image statistic by window tick, from `since` on."""
        ticks = sorted(self.statistics.get(name, {}).items())
        return [(tick * self.tick_ms, total / count) for tick, (count, total) in ticks if tick * self.tick_ms >= since]

    def decided(self, *kinds: str, after: int = 0, subject: str | None = None) -> list[Decision]:
        """Decisions of these kinds, made at `after` or later, oldest first."""
        return [
            one
            for one in list(self.decisions)
            if one.kind in kinds and one.time >= after and subject in (None, one.subject)
        ]

    def weights_of(self, version: str, since: int = 0, until: int | None = None) -> list[tuple[int, int]]:
        """The shares of a version above 0, as seen at the proxy, each with the time at which it was first seen."""
        found: list[tuple[int, int]] = []
        for at, shares in list(self.traffic):
            share = shares.get(version, 0)
            inside = at >= since and (until is None or at < until)
            if inside and share and (not found or found[-1][1] != share):
                found.append((at, share))
        return found


def _running(values: Iterable[bool]) -> Sequence[int]:
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    return sums
