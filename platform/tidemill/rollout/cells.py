"""Outcomes into matched blocks, and blocks into evidence (STATISTICS 2, "Matched blocks").

A cell is time window × step (× label age, which a plan fixes). In a closed cell the smaller arm makes as many
blocks as it has outcomes, the larger arm is dealt out evenly over them by arrival, and each block gives
D = mean loss of the candidate − mean loss of the champion. So both arms are compared at the same time and under
the same weight: pooled means promote a worse candidate whenever weight and error move together.

In a span of copies a block is a request: D = loss of the copy's answer − loss of the champion's, by the same label. A
copy without an answer counts as wrong where evidence promotes, and as right where it rolls back: who fails on what is
hard must not look better for it, nor a lost copy make it look worse. Both kinds of D feed the same processes.

The fold depends only on the plan, the spans and the order of the outcomes in each partition from the plan's
offsets on. A control process that lost it reads them again and stands where it stood. With several partitions
the same holds as long as none of them is more than two windows (at least 30 s) behind the others.
"""

import math
from collections.abc import Sequence

import msgspec

from tidemill.events.records import Outcome
from tidemill.rollout.copies import WAIT_MS, Copies, Judged, PairEvidence
from tidemill.rollout.plan import SHADOW, RolloutPlan, Span
from tidemill.stats.betting import Mixture, against_harm, for_promotion, for_sign
from tidemill.stats.multinomial import log_ratio_evidence

__all__ = ["Arm", "Evidence", "Fold", "StepEvidence", "differences"]

_IDLE_MS = 30_000


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One version's outcomes in closed cells.

    An outcome is a request: its rows share an arm. With a sticky key it is a key, by what it was answered in the first
    cell in which it was seen, and never again: `requests` are keys then.
    """

    requests: int = 0
    judged: int = 0
    """Requests with a loss: all of them where the margin shrinks, else the labelled ones."""
    labelled: float = 0.0
    """Sum over requests of the share of their rows that is labelled."""
    loss: float = 0.0
    """Sum of losses over the judged."""

    @property
    def mean(self) -> float | None:
        """Mean loss; None without outcomes."""
        return self.loss / self.judged if self.judged else None


class StepEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One step's own test of "no great harm", and what it saw."""

    step: int
    process: Mixture
    candidate: int = 0
    """Judged requests of the candidate in this step."""
    requests: tuple[int, int] = (0, 0)
    """Requests of candidate and champion, for the sample ratio."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that verdicts rest on. Immutable; grows by whole cells."""

    promotion: Mixture
    harm: Mixture
    labelling: tuple[Mixture, Mixture]
    """Against "the candidate is labelled no more often" and "no less often"."""
    steps: tuple[StepEvidence, ...] = ()
    candidate: Arm = Arm()
    champion: Arm = Arm()
    pairs: PairEvidence = PairEvidence()
    """What copies showed; the arms have what users were answered."""
    blocks: int = 0
    log_ratio: float = 0.0
    log_ratio_peak: float = 0.0
    late: int = 0
    """Outcomes that came after their cell was closed; they count nowhere."""
    lost: int = 0
    """Predictions known to be missing from the log."""
    maybe_lost: int = 0
    """How many more may be, at most, when the newest of the outcomes was due."""

    @classmethod
    def none(cls, plan: RolloutPlan) -> "Evidence":
        """Before any outcome."""
        return cls(
            promotion=for_promotion(plan.promotion_margin),
            harm=against_harm(plan.harm_margin),
            labelling=(for_sign(), for_sign()),
        )

    def of_step(self, step: int) -> StepEvidence | None:
        """The evidence of one step; None before its first cell."""
        return next((found for found in self.steps if found.step == step), None)

    @property
    def log_labelling_peak(self) -> float:
        """Log of the evidence that the labelled shares differ: each direction has half of the risk."""
        up, down = (process.log_peak for process in self.labelling)
        return max(up, down) - math.log(2)


class _Request:
    """The rows of one request in one arm."""

    __slots__ = ("first", "key", "losses", "rows")

    def __init__(self, key: tuple[bool, str], first: int) -> None:
        self.key, self.first = key, first
        self.rows: dict[str, Outcome | None] = {}
        """By prediction; the outcomes only where copies are to be paired with them."""
        self.losses: list[float] = []

    @property
    def order(self) -> tuple[int, tuple[bool, str]]:
        return self.first, self.key

    @property
    def labelled(self) -> float:
        return len(self.losses) / len(self.rows)

    def loss(self, labelled_only: bool) -> float | None:
        if not labelled_only:
            return math.fsum(self.losses) / len(self.rows)
        return math.fsum(self.losses) / len(self.losses) if self.losses else None


class Fold:
    """Takes outcomes, closes cells, keeps the evidence. One per rollout; not shared between threads.

    Args:
        plan: the rollout.
        copies: the answers to copies; None: spans of copies are left out.
    """

    def __init__(self, plan: RolloutPlan, copies: Copies | None = None) -> None:
        self._plan, self._copies = plan, copies
        self._open: dict[int, dict[tuple[bool, str], _Request]] = {}
        self._closed_before = 0
        self._heads: dict[int, int] = {}
        self._evidence = Evidence.none(plan)
        self._counted: set[str] = set()
        """The keys that have had their cell, where keys are counted."""
        self._late = 0
        self._lost = 0
        self._maybe_lost = (0, 0)
        """When it was due of which outcome, and how many."""

    def add(self, partition: int, outcome: Outcome) -> None:
        """Take one outcome of `.outcomes`, in the order of its partition's offsets, from the plan's offsets on.

        Corrections (revision > 0), other versions, and repeats count nowhere.
        """
        plan, champion = self._plan, self._plan.champion
        is_candidate = outcome.version == plan.candidate.name
        if outcome.revision or not (is_candidate or (champion is not None and outcome.version == champion.name)):
            return
        head = self._heads[partition] = max(self._heads.get(partition, 0), outcome.predicted_at)
        self._lost = max(self._lost, outcome.lost)
        self._maybe_lost = max(self._maybe_lost, (outcome.eligible_at, outcome.maybe_lost))
        window = outcome.predicted_at // plan.window_ms
        # By the partition's own order first: it is the same however often the evidence was asked for.
        if window < (head - plan.slack_ms) // plan.window_ms or window < self._closed_before:
            self._late += 1
            return
        key = (is_candidate, plan.unit_of(outcome))
        cell = self._open.setdefault(window, {})
        request = cell.setdefault(key, _Request(key, outcome.predicted_at))
        if outcome.prediction_id not in request.rows:
            request.rows[outcome.prediction_id] = None if self._copies is None else outcome
            if outcome.loss is not None:
                request.losses.append(outcome.loss)

    def evidence(self, spans: Sequence[Span]) -> Evidence:
        """Close the cells that are complete, and return the evidence of all closed ones.

        Call it when the reader has reached the end of the log, with the spans of the rollout so far.
        """
        ready = self._watermark() // self._plan.window_ms
        for window in sorted(window for window in self._open if window < ready):
            self._close(self._open.pop(window), spans)
        self._closed_before = max(ready, self._closed_before)
        if self._copies is not None:
            self._copies.forget(self._closed_before * self._plan.window_ms)
        told = {"late": self._late, "lost": self._lost, "maybe_lost": self._maybe_lost[1]}
        if any(getattr(self._evidence, name) != count for name, count in told.items()):
            self._evidence = msgspec.structs.replace(self._evidence, **told)
        return self._evidence

    def _watermark(self) -> int:
        """Time before which every outcome has come: that of the slowest partition that is not idle."""
        newest = max(self._heads.values(), default=0)
        idle = max(2 * self._plan.window_ms, _IDLE_MS)
        slowest = min((head for head in self._heads.values() if head > newest - idle), default=0)
        # Outcomes have the plan's age when they come: what is left of the time in which a copy may be answered.
        waits = max(0, WAIT_MS - self._plan.age_ms) if self._copies is not None else 0
        return slowest - self._plan.slack_ms - waits

    def _close(self, cell: dict[tuple[bool, str], _Request], spans: Sequence[Span]) -> None:
        for span in spans:
            found = sorted((one for one in cell.values() if span.covers(one.first)), key=lambda one: one.order)
            found = [one for one in found if not self._plan.keyed or self._is_new(one.key[1])]
            candidate = [one for one in found if one.key[0]]
            champion = [one for one in found if not one.key[0]]
            if span.step == SHADOW:
                self._evidence = self._with_copies(candidate, champion)
            elif found:
                self._evidence = _with_cell(self._plan, self._evidence, span.step, candidate, champion)

    def _with_copies(self, candidate: list[_Request], champion: list[_Request]) -> Evidence:
        if self._copies is None:
            return self._evidence
        requests = [(one.key[1], filter(None, one.rows.values())) for one in champion]
        judged = [self._copies.judge(name, rows) for name, rows in requests if self._copies.is_drawn(name)]
        return _with_pairs(self._plan, self._evidence, judged, len(candidate))

    def _is_new(self, key: str) -> bool:
        """Whether the key has not counted before; it has from now on."""
        if key in self._counted:
            return False
        self._counted.add(key)
        return True


def differences(candidate: Sequence[float], champion: Sequence[float]) -> list[float]:
    """D of each matched block of a cell, both sides in order of arrival.

    There are min(n, n') blocks. The larger side is cut into that many runs whose lengths differ by at most one,
    so that a block holds what arrived at about the same time.
    """
    count = min(len(candidate), len(champion))
    return [_mean_of(candidate, block, count) - _mean_of(champion, block, count) for block in range(count)]


def _mean_of(values: Sequence[float], block: int, count: int) -> float:
    part = values[block * len(values) // count : (block + 1) * len(values) // count]
    return math.fsum(part) / len(part)


def _with_pairs(plan: RolloutPlan, evidence: Evidence, judged: list[Judged], unmarked: int) -> Evidence:
    losses = [(one.champion, one.candidate) for one in judged if one.champion is not None]
    both = [(champion, candidate) for champion, candidate in losses if candidate is not None]
    at_worst = [(1.0 if candidate is None else candidate) - champion for champion, candidate in losses]
    at_best = [(candidate or 0.0) - champion for champion, candidate in losses]
    old = evidence.pairs
    pairs = PairEvidence(
        requests=old.requests + len(judged),
        answered=old.answered + sum(one.is_answered for one in judged),
        differ=old.differ + sum(one.differs for one in judged),
        judged=old.judged + len(both),
        labelled=old.labelled + math.fsum(one.labelled for one in judged),
        champion=old.champion + math.fsum(champion for champion, _ in both),
        candidate=old.candidate + math.fsum(candidate for _, candidate in both),
        unmarked=old.unmarked + unmarked,
    )
    return msgspec.structs.replace(
        evidence,
        promotion=evidence.promotion.update_all(plan.promotion_margin - value for value in at_worst),
        harm=evidence.harm.update_all(value - plan.harm_margin for value in at_best),
        pairs=pairs,
    )


def _with_cell(
    plan: RolloutPlan, evidence: Evidence, step: int, candidate: list[_Request], champion: list[_Request]
) -> Evidence:
    losses = [_losses(arm, plan.labelled_only) for arm in (candidate, champion)]
    found = differences(*losses)
    labelled = differences([one.labelled for one in candidate], [one.labelled for one in champion])
    up, down = evidence.labelling
    steps = _with_step(plan, evidence, step, found, len(losses[0]), (len(candidate), len(champion)))
    log_ratio = _log_ratio(plan, steps)
    return msgspec.structs.replace(
        evidence,
        promotion=evidence.promotion.update_all(plan.promotion_margin - value for value in found),
        harm=evidence.harm.update_all(value - plan.harm_margin for value in found),
        labelling=(up.update_all(labelled), down.update_all(-value for value in labelled)),
        steps=steps,
        candidate=_grown(evidence.candidate, candidate, losses[0]),
        champion=_grown(evidence.champion, champion, losses[1]),
        blocks=evidence.blocks + len(found),
        log_ratio=log_ratio,
        log_ratio_peak=max(evidence.log_ratio_peak, log_ratio),
    )


def _losses(arm: list[_Request], labelled_only: bool) -> list[float]:
    return [loss for one in arm if (loss := one.loss(labelled_only)) is not None]


def _with_step(
    plan: RolloutPlan, evidence: Evidence, step: int, found: list[float], judged: int, requests: tuple[int, int]
) -> tuple[StepEvidence, ...]:
    margin = plan.step_margin(step)
    old = evidence.of_step(step) or StepEvidence(step=step, process=for_promotion(margin))
    new = StepEvidence(
        step=step,
        process=old.process.update_all(margin - value for value in found),
        candidate=old.candidate + judged,
        requests=(old.requests[0] + requests[0], old.requests[1] + requests[1]),
    )
    return (*(one for one in evidence.steps if one.step != step), new)


def _log_ratio(plan: RolloutPlan, steps: tuple[StepEvidence, ...]) -> float:
    shares = ((one.requests, plan.weights[one.step] / 100) for one in steps)
    return math.fsum(log_ratio_evidence(counts, (share, 1 - share)) for counts, share in shares)


def _grown(arm: Arm, requests: list[_Request], losses: list[float]) -> Arm:
    return Arm(
        requests=arm.requests + len(requests),
        judged=arm.judged + len(losses),
        labelled=arm.labelled + math.fsum(one.labelled for one in requests),
        loss=arm.loss + math.fsum(losses),
    )
