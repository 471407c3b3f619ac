"""Rollouts that begin with copies (`rollout.shadow`), by the product's own pairs, cells and verdicts.

Two versions answer the same requests, and share a part of their errors, as versions of one model do. What the copies
show gives the candidate its first share, in which users' labels go on feeding the same evidence until it is promoted.
"""

import random
import statistics
from collections.abc import Iterator
from typing import Any

import msgspec
from benchmarks.report import Figure

from tidemill.events.records import Outcome, Prediction
from tidemill.rollout.cells import Fold
from tidemill.rollout.copies import Copies
from tidemill.rollout.plan import SHADOW, RolloutPlan, Span
from tidemill.rollout.verdict import judge, judge_copies
from tidemill.testing.rollout import EPOCH_MS, example_plan, judged_outcome, outcomes_of

__all__ = ["shadow_rollouts"]

RISK, ERROR, MARGIN = 0.05, 0.10, 0.02
COMMON = 0.7
"""Share of the champion's errors that the candidate makes, too."""
PER_SECOND = 100
FOR_USERS = 0.10
"""What the candidate's answers do to users and no copy shows: just above the harm that a share of 5 % is to find."""


def shadow_rollouts(runs: int, most: int, seed: int) -> list[Figure]:
    """The promise at its boundary, and what an equal, a better and a worse candidate need; `most` requests each."""
    limit = RISK + 2 * (RISK * (1 - RISK) / runs) ** 0.5
    note = f"5/100 %, copies of {most:,} requests at most, error {ERROR:g}, of which {COMMON:.0%} are common to both"
    at_margin = [_rollout(random.Random(seed + run), ERROR + MARGIN, most) for run in range(runs)]
    figures = []
    for name, kind in (("promoted", "promote"), ("rolled back", "roll back")):
        part = sum(ended == kind for ended, *_ in at_margin) / runs
        goal = f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})"
        figures.append(Figure(f"{name}: copies first, worse by {MARGIN:g}", part, "of runs", goal, part <= limit, note))
    # What copies cannot show: the truth of what users do with the answer.
    with_users = [_rollout(random.Random(seed + run), ERROR, most, ERROR + FOR_USERS) for run in range(runs)]
    part = sum(ended == "promote" for ended, *_ in with_users) / runs
    name = f"promoted: equal in copies, worse by {FOR_USERS:g} for users"
    figures.append(Figure(name, part, "of runs", f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})", part <= limit, note))
    for name, worse, kind in (
        ("equal", 0.0, "promote"),
        ("0.02 better", -0.02, "promote"),
        ("0.10 worse", 0.10, "roll back"),
    ):
        found = [_rollout(random.Random(seed + run), ERROR + worse, 10 * most) for run in range(max(4, runs // 5))]
        right = [one for one in found if one[0] == kind]
        told = f"median; {len(right)} of {len(found)} ended so; {note}"
        copied, users, own = (statistics.median(counts) for counts in zip(*(one[1:] for one in right), strict=True))
        figures.append(
            Figure(f"copied requests to the first share or a rollback: {name}", copied, "requests", note=told)
        )
        figures.append(Figure(f"requests after the first share, till promoted: {name}", users, "requests", note=told))
        figures.append(
            Figure(f"users' requests that the candidate answered: copies first, {name}", own, "outcomes", note=told)
        )
    return figures


def _rollout(rng: random.Random, error: float, most: int, for_users: float | None = None) -> tuple[str, int, int, int]:
    """How one ends; the copied requests, those after them, and how many of these the candidate answered.

    `for_users` is its error there, where that is another one.
    """
    plan = example_plan(shadow=True, weights=(5, 100), age_ms=10_000)
    held = Copies(plan, _loss)
    fold, spans = Fold(plan, held), [Span(step=SHADOW, weight=0, since=plan.started_at)]
    for number, (outcome, copy) in enumerate(_pairs(rng, error, most), start=1):
        held.add(copy, copy.time)
        fold.add(0, outcome)
        kind = judge_copies(plan, fold.evidence(spans)).kind if number % PER_SECOND == 0 else ""
        if kind == "roll back":
            return kind, number, 0, 0
        if kind == "go on":
            return _canary(rng, plan, fold, spans[0], error if for_users is None else for_users, number, most)
    return "none", most, 0, 0


def _canary(
    rng: random.Random, plan: RolloutPlan, fold: Fold, copied: Span, error: float, number: int, most: int
) -> tuple[str, int, int, int]:
    at, taken = plan.started_at + number * 1000 // PER_SECOND, 0
    spans = [msgspec.structs.replace(copied, until=at), Span(step=0, weight=5, since=at)]
    while taken < most:
        world: dict[str, Any] = {"candidate": lambda _: error, "champion": lambda _: ERROR}
        for outcome in outcomes_of(rng, weight=5, **world, since_ms=at, seconds=1.0, per_second=PER_SECOND):
            fold.add(0, outcome)
            taken += 1
        at += 1000
        verdict = judge(plan, fold.evidence(spans), 0)
        if verdict.kind in {"promote", "roll back"}:
            return verdict.kind, number, taken, int(verdict.figures["candidate_outcomes"])
    return "none", number, taken, 0


def _pairs(rng: random.Random, error: float, count: int) -> Iterator[tuple[Outcome, Prediction]]:
    """The champion's outcomes, and what the candidate answered to copies of these requests."""
    alone = (error - COMMON * ERROR) / (1 - ERROR)
    for number in range(count):
        at, wrong = EPOCH_MS + number * 1000 // PER_SECOND, rng.random() < ERROR
        outcome = judged_outcome("v1", at, float(wrong), name=str(number), request=str(number))
        truth = (outcome.label or {})["defect"]
        is_wrong = rng.random() < (COMMON if wrong else alone)
        answer = {"ok": "scratch", "scratch": "ok"}[truth] if is_wrong else truth
        yield (
            outcome,
            Prediction(
                prediction_id=str(number),
                version="v2",
                entity="A",
                time=at,
                output={"class": answer},
                request_id=str(number),
                boot="b",
                seq=number,
            ),
        )


def _loss(output: Any, label: Any) -> float:
    return float(output["class"] != label["defect"])
