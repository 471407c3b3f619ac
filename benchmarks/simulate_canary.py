"""Canary: how often verdicts are wrong at the margin, and how many outcomes they need.

Cells, evidence and verdicts are the product's own; only the outcomes are simulated. Where thousands of rollouts are
needed, they are folded over arrays (`canary_worlds`), and others decide the same worlds (`canary_peers`). Rows marked
"control" leave a safeguard out, to show that the simulation would see its absence; they have no goal.
"""

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.canary_shadow import shadow_rollouts
from benchmarks.canary_tables import dependent_labels, many_rollouts, peers, sticky_users
from benchmarks.report import Figure, Report, environment

from tidemill.events.records import Outcome
from tidemill.rollout.cells import Fold
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.rollout.verdict import Verdict, judge
from tidemill.testing.rollout import EPOCH_MS, ErrorAt, example_plan, judged_outcome, outcomes_of, run_rollout

__all__ = ["run"]

SEED = 20_250_302
RISK = 0.05
PER_SECOND = 400.0


@dataclass(frozen=True)
class Size:
    """How much is simulated: runs of one kind, and the requests of each."""

    runs: int
    requests: int
    repeats: int
    many: int
    """Rollouts of each kind that are simulated over arrays."""


SIZES = {
    "small": Size(runs=60, requests=20_000, repeats=12, many=200),
    "full": Size(runs=60, requests=60_000, repeats=40, many=10_000),
}


def bound(runs: int) -> float:
    """The risk and two standard errors of a share measured in so many runs."""
    return RISK + 2 * math.sqrt(RISK * (1 - RISK) / runs)


def always(error: float) -> ErrorAt:
    """An error that does not change."""
    return lambda _: error


def easier(second: float) -> float:
    """A world whose error falls from 0.4 to 0.1 within a minute: while the shares rise."""
    return 0.4 - 0.3 * min(1.0, second / 60)


def rollouts(
    plan: RolloutPlan, size: Size, candidate: ErrorAt, champion: ErrorAt, per_second: float = PER_SECOND
) -> list[tuple[Verdict, int]]:
    """Many rollouts in one world."""
    return [
        run_rollout(
            plan,
            random.Random(SEED + number),
            candidate=candidate,
            champion=champion,
            requests=size.requests,
            per_second=per_second,
        )
        for number in range(size.runs)
    ]


def share(name: str, kind: str, found: list[tuple[Verdict, int]], note: str) -> Figure:
    """How often a verdict was given that was wrong."""
    part = sum(verdict.kind == kind for verdict, _ in found) / len(found)
    limit = bound(len(found))
    return Figure(name, part, "of runs", f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})", part <= limit, note)


def simulate_risks(size: Size) -> list[Figure]:
    """Candidates that are worse by exactly the margin: both promises at their boundary."""
    figures = []
    for name, plan in (
        ("5 % share", example_plan(weights=(5, 100))),
        ("steps 5/25/50", example_plan()),
        ("steps 5/25/50, margin 0.05", example_plan(margin=0.05)),
    ):
        found = rollouts(plan, size, always(0.10 + plan.margin), always(0.10))
        note = f"error 0.10, worse by {plan.margin:g}, {size.requests:,} requests, judged each second"
        figures.append(share(f"promoted at the margin, {name}", "promote", found, note))
        figures.append(share(f"rolled back at the margin, {name}", "roll back", found, note))
    moving = example_plan(margin=0.05, weights=(5, 50, 100))
    found = rollouts(moving, size, lambda second: easier(second) + 0.05, easier, per_second=100.0)
    figures.append(
        share("promoted at the margin, errors fall while the share rises", "promote", found, "0.4 to 0.1 in 60 s")
    )
    return figures


def simulate_controls(size: Size) -> list[Figure]:
    """What happens without the safeguards."""
    peeked = sum(z_test_promotes(random.Random(SEED + number), size.requests) for number in range(size.runs))
    pooled = sum(pooling_promotes(random.Random(SEED + number)) for number in range(size.runs))
    return [
        Figure(
            "control: promoted at the margin by a z-test that looks each second",
            peeked / size.runs,
            "of runs",
            note="5 % share, error 0.10, worse by 0.02",
        ),
        Figure(
            "control: promoted at the margin by pooled means",
            pooled / size.runs,
            "of runs",
            note="errors fall from 0.4 to 0.1 while the share rises from 5 to 50 %; one look at the end, z-test",
        ),
    ]


def z_test_promotes(rng: random.Random, requests: int) -> bool:
    """The usual test at the usual level, after every second."""
    counts, errors = [0, 0], [0.0, 0.0]
    world = outcomes_of(
        rng,
        weight=5,
        candidate=always(0.12),
        champion=always(0.10),
        since_ms=EPOCH_MS,
        seconds=requests / PER_SECOND,
        per_second=PER_SECOND,
    )
    for number, outcome in enumerate(world):
        add(outcome, counts, errors)
        if number % PER_SECOND == 0 and min(counts) >= 30 and z_score(counts, errors, 0.02) < -1.645:
            return True
    return False


def pooling_promotes(rng: random.Random) -> bool:
    """Means over all outcomes of each arm, of a world that becomes easier as the candidate's share grows."""
    counts, errors = [0, 0], [0.0, 0.0]
    for second, weight in ((0, 5), (60, 50)):
        for outcome in outcomes_of(
            rng,
            weight=weight,
            candidate=lambda at: easier(at) + 0.05,
            champion=easier,
            since_ms=EPOCH_MS + second * 1000,
            seconds=60,
            per_second=100.0,
        ):
            add(outcome, counts, errors)
    return z_score(counts, errors, 0.05) < -1.645


def add(outcome: Outcome, counts: list[int], errors: list[float]) -> None:
    """Count an outcome in its arm."""
    arm = outcome.version == "v2"
    counts[arm] += 1
    errors[arm] += outcome.loss or 0.0


def z_score(counts: list[int], errors: list[float], margin: float) -> float:
    """Of the difference of two means against the margin."""
    champion, candidate = (error / count for error, count in zip(errors, counts, strict=True))
    variance = champion * (1 - champion) / counts[0] + candidate * (1 - candidate) / counts[1]
    return (candidate - champion - margin) / math.sqrt(max(variance, 1e-12))


def simulate_late_labels(size: Size) -> list[Figure]:
    """60 % of the labels of the worse class come after the age of the verdict."""
    figures = []
    for visible, goal in ((0.4, True), (1.0, False)):
        plan = example_plan(weights=(50, 100), margin=0.05, visible={"ok": 1.0, "scratch": visible})
        part = sum(late_promotes(plan, random.Random(SEED + number)) for number in range(size.runs)) / size.runs
        limit = bound(size.runs)
        name = "promoted at the margin, 60 % of the errors found late"
        figures.append(
            Figure(
                name if goal else f"control: {name}, taken for successes",
                part,
                "of runs",
                f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})" if goal else "",
                part <= limit if goal else None,
                "margin shrunk by the visible share" if goal else "margin not shrunk",
            )
        )
    return figures


def late_promotes(plan: RolloutPlan, rng: random.Random) -> bool:
    """Whether it is promoted within 4,000 requests."""
    fold, spans = Fold(plan), (Span(step=0, weight=50, since=EPOCH_MS),)
    for number in range(4000):
        is_candidate = rng.random() < 0.5
        loss: float | None = float(rng.random() < (0.15 if is_candidate else 0.10))
        if loss and rng.random() < 0.6:
            loss = None
        fold.add(0, judged_outcome("v2" if is_candidate else "v1", EPOCH_MS + number * 25, loss, name=str(number)))
        if number % 40 == 0 and judge(plan, fold.evidence(spans), 0).kind == "promote":
            return True
    return False


def simulate_power(size: Size) -> list[Figure]:
    """How many outcomes verdicts need."""
    figures = []
    one_step = example_plan(weights=(5, 100))
    for name, error, kind in (
        ("promote, equal", 0.10, "promote"),
        ("promote, 0.01 better", 0.09, "promote"),
        ("promote, 0.02 better", 0.08, "promote"),
        ("roll back, 0.05 worse", 0.15, "roll back"),
        ("roll back, 0.10 worse", 0.20, "roll back"),
        ("roll back, 0.20 worse", 0.30, "roll back"),
    ):
        figures.append(median_outcomes(f"candidate outcomes to {name}", one_step, size, error, kind, in_all=False))
    figures.append(
        median_outcomes("outcomes in all, steps 5/25/50, equal", example_plan(), size, 0.10, "promote", in_all=True)
    )
    return figures


def median_outcomes(name: str, plan: RolloutPlan, size: Size, error: float, kind: str, *, in_all: bool) -> Figure:
    """The median over rollouts that may take as long as they need."""
    found = []
    for number in range(size.repeats):
        verdict, requests = run_rollout(
            plan,
            random.Random(SEED + number),
            candidate=always(error),
            champion=always(0.10),
            requests=300_000,
            per_second=PER_SECOND,
        )
        if verdict.kind == kind:
            found.append(requests if in_all else verdict.figures["candidate_outcomes"])
    right = f"{len(found)} of {size.repeats} ended so"
    return Figure(name, statistics.median(found) if found else None, "outcomes", note=f"median; {right}")


def run(size_name: str) -> Report:
    """Run it all at one size."""
    size = SIZES[size_name]
    parts: tuple[Callable[[Size], list[Figure]], ...] = (
        simulate_risks,
        simulate_late_labels,
        simulate_controls,
        simulate_power,
        lambda size: shadow_rollouts(min(size.many, 2000) // 5, size.requests // 5, SEED),
        lambda size: many_rollouts(size.many, SEED),
        lambda size: peers(size.many, SEED),
        lambda size: dependent_labels(min(size.many, 10 * size.runs) // 2, SEED),
        lambda size: sticky_users(min(size.many, 10 * size.runs), SEED),
    )
    ran: dict[str, Any] = {
        "seed": SEED,
        "runs": size.runs,
        "requests": size.requests,
        "repeats": size.repeats,
        "many": size.many,
        "risk": RISK,
        "requests_per_second": PER_SECOND,
    }
    return Report("simulate", "canary", size_name, ran, [one for part in parts for one in part(size)], environment(()))
