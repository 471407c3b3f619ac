"""One turn of the loop as a value: what is known, what is observed, and what was decided so far.

The stages of a decision take a Turn and return one. Nothing here has I/O or a clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from tidemill.control.protocols import RunSeen
from tidemill.control.state import KEPT_ANSWERS, KEPT_DECISIONS, LoopStatus, Offsets
from tidemill.core.clock import to_ms
from tidemill.core.ids import deterministic_id
from tidemill.events.records import Decision, LabelAgreement, Request, Signal
from tidemill.rollout.driver import TrafficSeen
from tidemill.rollout.late import LateEvidence
from tidemill.rollout.machine import Evidence, HistorySeen
from tidemill.spec.model import ContinualModel

__all__ = ["Observed", "Turn"]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a tick found. None: it could not be observed, and nothing is concluded from its absence."""

    requests: tuple[Request, ...] = ()
    requests_read: Offsets = field(default_factory=dict)
    """The next offsets of `.requests` after these."""
    signals: tuple[Signal, ...] = ()
    signals_read: Offsets = field(default_factory=dict)
    runs: tuple[RunSeen, ...] | None = None
    traffic: TrafficSeen | None = None
    sticky: bool = True
    """Whether the traffic driver keeps a key on its version."""
    mirrors: bool = True
    """Whether it can send copies of requests."""
    labelled: int | None = None
    """Labelled events that count to the next run (`tidemill.control.labelled`)."""
    new_classes: Mapping[str, int] | None = None
    """Labelled events by class that the champion does not know, as far as labellers agree on them."""
    agreement: LabelAgreement | None = None
    """The newest word on how far labellers agree."""
    outcomes_read: Offsets = field(default_factory=dict)
    """The next offsets of `.outcomes`; a rollout that starts now counts from there."""
    copies_read: Offsets = field(default_factory=dict)
    """Likewise of `.copies`."""
    history: HistorySeen = field(default_factory=HistorySeen)
    """The champion's outcomes before a rollout."""
    evidence: Evidence | None = None
    """The outcomes of the rollout under way, folded."""
    late: LateEvidence | None = None
    """Those of the rollout that is watched, with the labels that came late."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The state of one decision as it passes from stage to stage."""

    resource: ContinualModel
    status: LoopStatus
    observed: Observed
    now: datetime
    said: tuple[Decision, ...] = ()
    """The decisions of this turn."""

    @property
    def now_ms(self) -> int:
        """The turn's time in milliseconds."""
        return to_ms(self.now)

    @property
    def busy(self) -> str | None:
        """What keeps another run from starting, in words; None when nothing does."""
        if self.status.run is not None:
            return f"already running: {self.status.run.run}"
        if self.status.candidate is not None:
            return f"a rollout is under way: {self.status.candidate.version}"
        return None

    def change(self, **changes: Any) -> "Turn":
        """This turn with parts of its status replaced."""
        return replace(self, status=msgspec.structs.replace(self.status, **changes))

    def say(
        self,
        kind: str,
        subject: str,
        reason: str,
        figures: dict[str, Any] | None = None,
        *,
        answers: Request | None = None,
        name: tuple[str | int, ...] = (),
    ) -> "Turn":
        """This turn with one more decision.

        Its id is the same whenever the same is decided: an answer is named by its request, others by `name`, and
        what has none by the turn's time and its place in the turn, which the status carries through a crash.
        """
        if answers:
            name = ("answer", answers.request_id)
        name = name or (kind, subject, self.now_ms, len(self.said))
        decision = Decision(
            decision_id=deterministic_id(self.resource.id, *name),
            kind=kind,
            model=self.resource.id,
            time=self.now_ms,
            subject=subject,
            reason=reason,
            figures=figures or {},
            answers=answers.request_id if answers else None,
        )
        turn = replace(self, said=(*self.said, decision))
        if answers is None:
            return turn
        return turn.change(answered=(*self.status.answered, answers.request_id)[-KEPT_ANSWERS:])

    def close(self) -> LoopStatus:
        """The status after this turn, with its decisions in the outbox."""
        kept = (*self.status.decisions, *self.said)[-KEPT_DECISIONS:]
        outbox = self.said or self.status.outbox
        return msgspec.structs.replace(self.status, decisions=kept, outbox=outbox)
