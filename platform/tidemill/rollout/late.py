"""The watch of a rollout: after the promotion its own outcomes are judged once more, with the labels that came late.

A verdict takes labels at one age and freezes them then. An error that is found later, and a label that is corrected,
reach it too late; the watch is for them. The cells of the rollout are closed again when they are as old as the watch is
long, each outcome with its newest label, and their matched blocks feed a fresh process against "worse by no more than
the margin", with a risk of its own (STATISTICS 2, "Promote"): evidence enough brings back `previous`.

The fold depends only on the watch and on the outcomes from the plan's offsets on, as the rollout's own fold does.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from tidemill.events.records import Outcome
from tidemill.rollout.cells import differences
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.stats.betting import Mixture, against_harm

__all__ = ["MOST_REQUESTS", "LateEvidence", "LateFold", "RolloutWatch", "watch_of"]

MOST_REQUESTS = 200_000
"""Requests of a rollout that are held in memory until their cells are closed; of more a random share is."""


class RolloutWatch(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched, fixed at the promotion. Times are milliseconds."""

    plan: RolloutPlan
    spans: tuple[Span, ...]
    since: int
    """When all requests were seen to go to the candidate."""
    until: int
    share: float = 1.0
    """Of the rollout's requests that are looked at, drawn without regard to what was answered."""

    @property
    def age_ms(self) -> int:
        """The age of the labels with which the outcomes are judged once more."""
        return max(self.plan.age_ms, self.until - self.since)


class LateEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the cells that are closed again show."""

    harm: Mixture
    blocks: int = 0
    changed: int = 0
    """Outcomes of closed cells whose loss is no longer the one that the verdict saw."""
    candidate: tuple[int, float] = (0, 0.0)
    """Judged requests, and the sum of their losses."""
    champion: tuple[int, float] = (0, 0.0)
    complete: bool = False
    """Whether every cell of the rollout has been closed again."""

    def words(self) -> str:
        """Both versions' errors, as people read them."""
        told = [f"{total / count:.3f} in {count} outcomes" for count, total in (self.candidate, self.champion) if count]
        errors = "no outcomes of both versions yet"
        if len(told) == 2:
            errors = f"error {told[0]} against {told[1]} of the version before"
        return f"with late and corrected labels ({self.changed} changed) {errors}"


def watch_of(plan: RolloutPlan, spans: Sequence[Span], *, now: int, length_ms: int, requests: int) -> RolloutWatch:
    """The watch of a rollout that was promoted now; `requests` are those it took, of both versions."""
    share = min(1.0, MOST_REQUESTS / max(1, requests))
    return RolloutWatch(plan=plan, spans=tuple(spans), since=now, until=now + length_ms, share=share)


class _Loss(msgspec.Struct):
    revision: int
    first: float | None
    """As the verdict saw it; None: unlabelled then."""
    now: float | None


class _Request(msgspec.Struct):
    first: int
    """Time of its first row."""
    rows: dict[str, _Loss] = {}


class LateFold:
    """Takes outcomes, of any revision, and closes the rollout's cells at the age of the watch. One thread."""

    def __init__(self, watch: RolloutWatch) -> None:
        self._watch = watch
        self._open: dict[int, dict[tuple[bool, str], _Request]] = {}
        self._heads: dict[int, int] = {}
        self._counted: set[str] = set()
        self._closed_before = 0
        self._evidence = LateEvidence(harm=against_harm(watch.plan.margin))

    def add(self, partition: int, outcome: Outcome) -> None:
        """Take one outcome of `.outcomes`, in the order of its partition's offsets, from the plan's offsets on."""
        plan = self._watch.plan
        if outcome.revision == 0:
            self._heads[partition] = max(self._heads.get(partition, 0), outcome.predicted_at)
        is_candidate = outcome.version == plan.candidate.name
        if not is_candidate and (plan.champion is None or outcome.version != plan.champion.name):
            return
        window = outcome.predicted_at // plan.window_ms
        name = plan.unit_of(outcome)
        if window < self._closed_before or not self._is_in_a_span(outcome.predicted_at) or not self._is_drawn(name):
            return
        requests = self._open.setdefault(window, {})
        request = requests.setdefault((is_candidate, name), _Request(outcome.predicted_at))
        known = request.rows.get(outcome.prediction_id)
        if known is None:
            first = outcome.loss if outcome.revision == 0 else None
            request.rows[outcome.prediction_id] = _Loss(outcome.revision, first, outcome.loss)
        elif outcome.revision > known.revision:
            known.revision, known.now = outcome.revision, outcome.loss

    def evidence(self) -> LateEvidence:
        """Close the cells that are old enough. Call it when the reader has reached the end of the log."""
        ready = self._watermark() // self._watch.plan.window_ms
        for window in sorted(window for window in self._open if window < ready):
            self._close(self._open.pop(window))
        self._closed_before = max(ready, self._closed_before)
        last = max((span.until or self._watch.since for span in self._watch.spans), default=0)
        complete = self._closed_before > last // self._watch.plan.window_ms
        if complete != self._evidence.complete:
            self._evidence = msgspec.structs.replace(self._evidence, complete=complete)
        return self._evidence

    def _watermark(self) -> int:
        """Time of prediction before which outcomes have the age of the watch.

        Outcomes are first told at the plan's age, so that the newest of them says what time it is.
        """
        plan = self._watch.plan
        return min(self._heads.values(), default=0) - plan.slack_ms - (self._watch.age_ms - plan.age_ms)

    def _is_in_a_span(self, moment: int) -> bool:
        return any(span.covers(moment) for span in self._watch.spans)

    def _is_drawn(self, name: str) -> bool:
        if self._watch.share >= 1:
            return True
        digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"rollout-watch").digest()
        return int.from_bytes(digest) < self._watch.share * 2**64

    def _close(self, cell: dict[tuple[bool, str], _Request]) -> None:
        for span in self._watch.spans:
            found = sorted(
                ((request.first, key, request) for key, request in cell.items() if span.covers(request.first)),
                key=lambda one: one[:2],
            )
            found = [one for one in found if self._counts(one[1][1])]
            candidate = self._losses(request for _, (is_candidate, _), request in found if is_candidate)
            champion = self._losses(request for _, (is_candidate, _), request in found if not is_candidate)
            blocks = differences(candidate, champion)
            changed = sum(row.first != row.now for *_, request in found for row in request.rows.values())
            old, margin = self._evidence, self._watch.plan.margin
            self._evidence = msgspec.structs.replace(
                old,
                harm=old.harm.update_all(value - margin for value in blocks),
                blocks=old.blocks + len(blocks),
                changed=old.changed + changed,
                candidate=_grown(old.candidate, candidate),
                champion=_grown(old.champion, champion),
            )

    def _counts(self, unit: str) -> bool:
        """Whether this request counts, or this key for the first time."""
        is_new = not self._watch.plan.keyed or unit not in self._counted
        if self._watch.plan.keyed:
            self._counted.add(unit)
        return is_new

    def _losses(self, requests: Iterable[_Request]) -> list[float]:
        """The mean loss of each request; unlabelled rows are left out, or no errors, as in the verdict."""
        losses = []
        for request in requests:
            known = [row.now for row in request.rows.values() if row.now is not None]
            if not self._watch.plan.labelled_only:
                losses.append(math.fsum(known) / len(request.rows))
            elif known:
                losses.append(math.fsum(known) / len(known))
        return losses


def _grown(arm: tuple[int, float], losses: Sequence[float]) -> tuple[int, float]:
    return arm[0] + len(losses), arm[1] + math.fsum(losses)
