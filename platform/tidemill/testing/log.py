"""A model's log in memory, as control meets it."""

from collections.abc import Sequence
from typing import TypeVar

from tidemill.control.log import Batch
from tidemill.control.state import Offsets
from tidemill.core.errors import Unavailable
from tidemill.events.kafka import Stamped
from tidemill.events.records import Decision, LabelAgreement, Outcome, Prediction, Record, Request, Signal
from tidemill.events.sources import Source

__all__ = ["MemoryLog"]

R = TypeVar("R", bound=Record)


class _Topic(list[R]):
    """One topic with one partition."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.source = Source("memory", name, 0)

    def read(self, since: Offsets) -> Batch[R]:
        first = since.get(str(self.source), 0)
        found = tuple(Stamped(self.source, first + number, 0, record) for number, record in enumerate(self[first:]))
        return Batch(found, {str(self.source): len(self)}, lambda: True)


class MemoryLog:
    """A model's topics in lists; implements `LoopLog`. While `unavailable`, every call fails."""

    def __init__(self) -> None:
        self.asked: _Topic[Request] = _Topic("requests")
        self.signalled: _Topic[Signal] = _Topic("signals")
        self.judged: _Topic[Outcome | LabelAgreement] = _Topic("outcomes")
        self.copied: _Topic[Prediction] = _Topic("copies")
        self.published: list[Decision] = []
        self.unavailable = False

    def requests(self, since: Offsets) -> Batch[Request]:
        """What is asked of control."""
        self._answer()
        return self.asked.read(since)

    def signals(self, since: Offsets) -> Batch[Signal]:
        """What the watch found."""
        self._answer()
        return self.signalled.read(since)

    def outcomes(self, since: Offsets | None) -> Batch[Outcome | LabelAgreement]:
        """Predictions at the age at which they may be judged, and how far labellers agree."""
        self._answer()
        return self.judged.read(since or {})

    def copies(self, since: Offsets | None) -> Batch[Prediction]:
        """What candidates answered to copies of requests; None: what comes from now on."""
        self._answer()
        return self.copied.read({str(self.copied.source): len(self.copied)} if since is None else since)

    def decisions(self) -> Sequence[Decision]:
        """All decisions, each once."""
        self._answer()
        return list({one.decision_id: one for one in reversed(self.published)}.values())[::-1]

    def publish(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions."""
        self._answer()
        self.published += decisions

    def _answer(self) -> None:
        if self.unavailable:
            raise Unavailable("the log does not answer")
