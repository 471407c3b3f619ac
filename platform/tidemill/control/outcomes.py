"""The outcomes as control follows them: the champion's history before a rollout, and the evidence during one.

Between them stand the words on how far labellers agree; the newest is kept.

All of it is held in memory and computed again from the log: after a restart from the offsets in the rollout's
plan, so that the same outcomes give the same evidence and no risk is spent twice.
"""

from contextlib import suppress
from typing import NamedTuple

from tidemill.control.log import LoopLog
from tidemill.control.state import LoopStatus, Offsets
from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.records import LabelAgreement, Outcome
from tidemill.outcomes.session import truth_of
from tidemill.rollout.cells import Evidence, Fold
from tidemill.rollout.copies import Copies
from tidemill.rollout.history import ChampionHistory, HistorySeen
from tidemill.rollout.late import LateEvidence, LateFold
from tidemill.spec.model import ContinualModel

__all__ = ["Followed", "OutcomeFollower"]


class Followed(NamedTuple):
    """What the outcomes say now."""

    read: Offsets
    """The next offsets."""
    history: HistorySeen
    evidence: Evidence | None
    """None without a rollout, and until its outcomes have been read again up to the end of the log."""
    copies_read: Offsets
    """The next offsets of `.copies`; none where no rollout makes copies."""
    agreement: LabelAgreement | None = None
    """The newest word on how far labellers agree, of those read so far."""
    late: LateEvidence | None = None
    """Likewise of the rollout that is watched."""


class OutcomeFollower:
    """Reads one model's `.outcomes`. One thread."""

    def __init__(self, log: LoopLog) -> None:
        self._log = log
        self._read: Offsets | None = None
        self._history: ChampionHistory | None = None
        self._fold: Fold | None = None
        self._rollout: str | None = None
        self._evidence: Evidence | None = None
        self._agreement: LabelAgreement | None = None
        self._late_fold: LateFold | None = None
        self._watched: str | None = None
        self._late: LateEvidence | None = None
        self._copies: Copies | None = None
        self._copies_read: Offsets | None = None

    def follow(self, resource: ContinualModel, status: LoopStatus) -> Followed:
        """Read on. Without a champion there is nothing to compare yet."""
        version = status.champion.version if status.champion else ""
        if self._history is None or self._history.version != version:
            self._history, self._read = ChampionHistory(resource, version), None
        self._take_up(resource, status)
        self._take_up_watch(status)
        batch = self._log.outcomes(self._read)
        for stamped in batch.records:
            self._take(stamped.record, stamped.source.partition)
        self._read = batch.read
        if self._late_fold is not None and batch.at_end():
            self._late = self._late_fold.evidence()
        # After the outcomes: the copies of these requests were answered before, or count as unanswered.
        has_copies = self._follow_copies(resource)
        if self._fold is not None and status.rollout is not None and has_copies and batch.at_end():
            self._evidence = self._fold.evidence(status.rollout.spans)
        history, copies_read = self._history.seen(), self._copies_read or {}
        return Followed(self._read, history, self._evidence, copies_read, self._agreement, self._late)

    def _follow_copies(self, resource: ContinualModel) -> bool:
        """Read on in the answers to copies; whether all have been read that there are, or none are needed."""
        if self._copies is None:
            # No rollout needs them yet: a log of them that is not there must keep the loop from nothing else.
            with suppress(NotFound, Unavailable):
                shadow = resource.spec.rollout.shadow
                self._copies_read = self._log.copies(self._copies_read).read if shadow else None
            return True
        batch = self._log.copies(self._copies_read)
        for stamped in batch.records:
            self._copies.add(stamped.record, stamped.timestamp_ms)
        self._copies_read = batch.read
        return batch.at_end()

    def _take(self, record: Outcome | LabelAgreement, partition: int) -> None:
        if isinstance(record, LabelAgreement):
            if self._agreement is None or record.through >= self._agreement.through:
                self._agreement = record
            return
        if self._history is not None:
            self._history.add(record)
        for fold in (self._fold, self._late_fold):
            if fold is not None:
                fold.add(partition, record)

    def _take_up(self, resource: ContinualModel, status: LoopStatus) -> None:
        """Begin a new fold for a rollout that is not followed yet, from where its outcomes begin."""
        name = status.rollout.plan.rollout if status.rollout else None
        if name == self._rollout:
            return
        self._rollout, self._fold, self._evidence = name, None, None
        self._copies = None
        if status.rollout is not None:
            plan = status.rollout.plan
            if plan.shadow:
                self._copies, self._copies_read = Copies(plan, truth_of(resource).loss), plan.copies
            self._fold = Fold(plan, self._copies)
            self._read = status.outcomes

    def _take_up_watch(self, status: LoopStatus) -> None:
        """Likewise for a rollout that is watched: all of its outcomes are read again, from where they begin."""
        name = status.watching.plan.rollout if status.watching else None
        if name == self._watched:
            return
        self._watched, self._late_fold, self._late = name, None, None
        if status.watching is not None:
            self._late_fold = LateFold(status.watching)
            self._read = status.outcomes
