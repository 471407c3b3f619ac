"""Answers to copies of requests, held until the champion's outcomes of the same requests come: pairs for the evidence.

A copy's answer is judged by the label of the champion's answer to the same request: whichever way that label came, by
the prediction's id or by (entity, event id), it says what is true of the request. So both answers have the same label
at the same age, and their difference has none of the noise of two different sets of requests.

A request is told by its id, its rows by entity and event id, or by their place. A pair depends only on the two logs: an
answer that arrived later than `WAIT_MS` after the champion's is none, however often the logs are read.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tidemill.events.records import Outcome, Prediction
from tidemill.outcomes.join import Loss
from tidemill.rollout.plan import RolloutPlan

__all__ = ["MOST_COPIES", "WAIT_MS", "Copies", "Judged", "PairEvidence"]

MOST_COPIES = 100_000
"""Requests whose copies are expected to wait for their labels at once; of more a random share is drawn."""
WAIT_MS = 10_000
"""An answer that takes longer is none."""
_SKEW_MS = 60_000
"""By how much the clocks of two servers may differ before a copy is let go of too early."""


class PairEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the copies show. A request counts once, with the mean over its rows."""

    requests: int = 0
    """Of the champion, of which a copy should be there."""
    answered: int = 0
    """Those whose copy was answered."""
    differ: int = 0
    """Those of them in which a row got another class; 0 where there are no classes."""
    judged: int = 0
    """Those of the answered that have a loss."""
    labelled: float = 0.0
    """Sum over requests of the share of their rows that is labelled."""
    candidate: float = 0.0
    """Sum of the candidate's losses over the judged."""
    champion: float = 0.0
    unmarked: int = 0
    """Answers of the candidate, as if to users, while it got nothing but copies."""

    @property
    def errors(self) -> tuple[float, float] | None:
        """Mean losses of candidate and champion; None without a pair that is judged."""
        return (self.candidate / self.judged, self.champion / self.judged) if self.judged else None


class Judged(NamedTuple):
    """A request of the champion, and what its copy was worth."""

    champion: float | None
    """None: no label says."""
    candidate: float | None
    """None where the copy was not answered, too."""
    labelled: float
    """Share of its rows."""
    differs: bool = False
    """Whether a row got another class."""
    is_answered: bool = True


class _Copy(NamedTuple):
    at: int
    arrived: int
    row: Prediction


class Copies:
    """Holds answers to copies for one rollout. One thread.

    Args:
        plan: the rollout.
        loss: what an answer loses by a label.
    """

    def __init__(self, plan: RolloutPlan, loss: Loss) -> None:
        self._plan, self._loss = plan, loss
        self._held: dict[str, list[_Copy]] = {}

    def add(self, row: Prediction, arrived_at: int) -> None:
        """Take one answer of `.copies`, and when it arrived there; those of other versions are ignored."""
        name = row.request_id
        if row.version == self._plan.candidate.name and name is not None and self.is_drawn(name):
            # The log holds features, too, of which nothing is needed here.
            self._held.setdefault(name, []).append(
                _Copy(row.time, arrived_at, msgspec.structs.replace(row, features={}))
            )

    def is_drawn(self, request: str) -> bool:
        """Whether this request is one of those whose copies are held."""
        share = self._plan.copies_share
        if share >= 1:
            return True
        digest = hashlib.blake2b(request.encode(), digest_size=8, person=b"rollout-copies").digest()
        return int.from_bytes(digest) < share * 2**64

    def forget(self, before_ms: int) -> None:
        """Let go of copies whose requests were judged, or never came."""
        # In order of arrival, which is nearly that of their times.
        while self._held and self._held[name := next(iter(self._held))][0].at < before_ms - _SKEW_MS:
            del self._held[name]

    def judge(self, request: str, outcomes: Iterable[Outcome]) -> Judged:
        """The champion's rows of a request, and what the candidate answered in its copy."""
        rows = sorted(outcomes, key=lambda one: one.prediction_id)
        last = rows[0].predicted_at + WAIT_MS
        held = {one.row.prediction_id: one.row for one in self._held.pop(request, ()) if one.arrived <= last}
        answers = _matched(rows, [held[name] for name in sorted(held)])
        known = [place for place, one in enumerate(rows) if one.loss is not None]
        labelled = len(known) / len(rows)
        said = [one.output.get("class") for one in answers or ()]
        differs = answers is not None and said != [row.output.get("class") for row in rows]
        if self._plan.labelled_only and not known:
            return Judged(None, None, labelled, differs, answers is not None)
        count = len(known) if self._plan.labelled_only else len(rows)
        champion = math.fsum(rows[place].loss or 0.0 for place in known) / count
        if answers is None:
            return Judged(champion, None, labelled, is_answered=False)
        lost = [self._lost(answers[place], rows[place]) for place in known]
        return Judged(champion, math.fsum(lost) / count, labelled, differs)

    def _lost(self, answer: Prediction, judged: Outcome) -> float:
        found = None if judged.label is None else self._loss(answer.output, judged.label)
        return 1.0 if found is None else found


def _matched(rows: Sequence[Outcome], answers: Sequence[Prediction]) -> Sequence[Prediction] | None:
    """The answer to each row, both in the order of their ids, which is that in the request; None where that is open."""
    names = [(one.entity, one.event_id) for one in answers]
    if [(one.entity, one.event_id) for one in rows] == names:
        return answers
    # Rows that were not drawn for the log are missing among the champion's.
    by_name: Mapping[tuple[str, str | None], Prediction] = dict(zip(names, answers, strict=True))
    found = [by_name.get((one.entity, one.event_id)) for one in rows]
    if len(by_name) != len(answers) or len({(one.entity, one.event_id) for one in rows}) != len(rows):
        return None
    return [one for one in found if one is not None] if all(found) else None
