"""The loop's side of the log: what it reads of requests, signals and outcomes, and where its decisions go.

What was read counts as consumed only when it is asked for from further on, so that a tick that could not be
written down reads the same records again.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from tidemill.control.state import Offsets
from tidemill.core.errors import TidemillError
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import Stamped
from tidemill.events.records import Decision, LabelAgreement, Outcome, Prediction, Record, Request, Signal, Topics
from tidemill.events.shared import FollowedTopic, SharedKafka
from tidemill.events.sources import Source

__all__ = ["Batch", "KafkaLog", "LoopLog"]

R = TypeVar("R", bound=Record)

_BATCH = 5000
_RECENT_OUTCOMES = 20_000
"""How many outcomes of each partition are read for the champion's history after a restart: an hour at 5 a second."""


@dataclass(frozen=True)
class Batch(Generic[R]):
    """Records in the order of each partition, and the offsets to ask for next."""

    records: tuple[Stamped[R], ...]
    read: Offsets
    at_end: Callable[[], bool]
    """Whether all has been read that was there when this last was so (or was first asked). Asks the brokers.

    Not "nothing is left": while records keep coming, something nearly always is.
    """


class LoopLog(Protocol):
    """One model's log as control meets it. Raises `Unavailable` where it does not answer, `NotFound` without topics.

    Each reading call gives what is there from the named offsets on, at once, and possibly less than all of it.
    """

    def requests(self, since: Offsets) -> Batch[Request]:
        """What is asked of control."""
        ...

    def signals(self, since: Offsets) -> Batch[Signal]:
        """What the watch found."""
        ...

    def outcomes(self, since: Offsets | None) -> Batch[Outcome | LabelAgreement]:
        """Predictions at the age at which they may be judged, and how far labellers agree; None: the recent ones."""
        ...

    def copies(self, since: Offsets | None) -> Batch[Prediction]:
        """What candidates answered to copies of requests (`rollout.shadow`); None: what comes from now on."""
        ...

    def decisions(self) -> Sequence[Decision]:
        """All decisions that are kept, oldest first; for a loop that has lost its status."""
        ...

    def publish(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions; returns when they are safe."""
        ...


class KafkaLog:
    """One model's topics on Kafka; implements `LoopLog`. One thread; connections are made when they are needed.

    Args:
        kafka: the connection that the logs of a process share, or the address to make one for this log alone.
        topics: the model's.
    """

    def __init__(self, kafka: SharedKafka | str, topics: Topics) -> None:
        self._owns = isinstance(kafka, str)
        self._kafka = SharedKafka(kafka) if isinstance(kafka, str) else kafka
        self._topics = topics
        self._requests = _Tail(self._kafka, topics.requests, Request)
        self._signals = _Tail(self._kafka, topics.signals, Signal)
        self._outcomes: _Tail[Outcome | LabelAgreement] = _Tail(
            self._kafka, topics.outcomes, Outcome, unkeyed=LabelAgreement
        )
        self._copies = _Tail(self._kafka, topics.copies, Prediction, keyed=True)

    def requests(self, since: Offsets) -> Batch[Request]:
        """What is asked of control."""
        return self._read(self._requests, since)

    def signals(self, since: Offsets) -> Batch[Signal]:
        """What the watch found."""
        return self._read(self._signals, since)

    def outcomes(self, since: Offsets | None) -> Batch[Outcome | LabelAgreement]:
        """Predictions at the age at which they may be judged, and how far labellers agree; None: the recent ones."""
        return self._read(self._outcomes, self._recent(self._topics.outcomes) if since is None else since)

    def copies(self, since: Offsets | None) -> Batch[Prediction]:
        """What candidates answered to copies of requests; None: what comes from now on."""
        return self._read(self._copies, self._recent(self._topics.copies, 0) if since is None else since)

    def decisions(self) -> Sequence[Decision]:
        """All decisions that are kept, oldest first."""
        found: dict[str, Decision] = {}
        with closing(self._kafka.follow(self._topics.decisions, Decision)) as kept:
            for stamped in kept.rest():
                found.setdefault(stamped.record.decision_id, stamped.record)
        return sorted(found.values(), key=lambda decision: decision.time)

    def publish(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions; returns when they are safe."""
        self._kafka.write(self._topics.decisions, ((decision.subject, decision) for decision in decisions))

    def close(self) -> None:
        """Follow the topics no longer."""
        self._let_go()
        if self._owns:
            self._kafka.close()

    def _read(self, tail: "_Tail[R]", since: Offsets) -> Batch[R]:
        try:
            return tail.read(since)
        except TidemillError:
            # A broker that went away, or a topic made anew: all begin anew. The turn ends here, so the others would be
            # followed, and read by nobody.
            self._let_go()
            raise

    def _let_go(self) -> None:
        for tail in (self._requests, self._signals, self._outcomes, self._copies):
            tail.close()

    def _recent(self, topic: str, count: int = _RECENT_OUTCOMES) -> Offsets:
        def ends(cluster: Cluster) -> Offsets:
            sources = cluster.sources(topic)
            found = cluster.ends(topic, sources)
            return {str(source): max(0, found[number] - count) for number, source in sources.items()}

        return self._kafka.ask(ends)


class _Tail(Generic[R]):
    """Follows one topic; keeps what was read until it is asked for from further on."""

    def __init__(
        self, kafka: SharedKafka, topic: str, kind: type[R], *, unkeyed: type[R] | None = None, keyed: bool = False
    ) -> None:
        self._open_at = partial(kafka.follow, topic, kind, unkeyed=unkeyed, keyed=keyed)
        self._reader: FollowedTopic[R] | None = None
        self._kept: list[Stamped[R]] = []
        self._given: Offsets = {}
        self._ends: dict[int, int] | None = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._kept, self._given, self._ends = None, [], {}, None

    def read(self, since: Offsets) -> Batch[R]:
        if any(since.get(source, 0) < offset for source, offset in self._given.items()):
            self.close()  # asked from further back than what is still kept
        reader = self._reader or self._open(since)
        self._given = {source: offset for source, offset in since.items() if source in self._names(reader)}
        self._kept = [one for one in self._kept if one.offset >= since.get(str(one.source), 0)]
        self._kept += reader.poll(_BATCH)
        positions = reader.offsets()
        read = {str(source): positions[number] for number, source in reader.sources.items()}
        return Batch(tuple(self._kept), read, partial(self._caught_up, reader, positions))

    def _caught_up(self, reader: FollowedTopic[R], positions: Mapping[int, int]) -> bool:
        now = reader.ends()
        aim = self._ends if self._ends is not None else now
        caught_up = any(all(positions[number] >= end for number, end in ends.items()) for ends in (aim, now))
        # The aim stands until it is reached: one that moved on with each question could outrun a slow reader for ever.
        self._ends = now if caught_up else aim
        return caught_up

    def _open(self, since: Offsets) -> FollowedTopic[R]:
        """A reader at those offsets; those of a topic that was made anew since say nothing, and it is read whole."""
        sources = {source.partition: offset for text, offset in since.items() if (source := Source.parse(text))}
        reader = self._open_at(sources)
        names = self._names(reader)
        if not all(text in names for text in since):
            known: Mapping[int, int] = {Source.parse(text).partition: since[text] for text in since if text in names}
            reader.close()
            reader = self._open_at(known)
        self._reader = reader
        return reader

    @staticmethod
    def _names(reader: FollowedTopic[R]) -> set[str]:
        return {str(source) for source in reader.sources.values()}
