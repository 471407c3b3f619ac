"""The figures of `simulate canary` that take thousands of rollouts, and those of others beside them."""

import random
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from benchmarks.canary_peers import Counts, counted, fixed_size, flagger, kayenta, peeking
from benchmarks.canary_worlds import Ended, World, always, simulate
from benchmarks.report import Figure

from tidemill.rollout.cells import Fold
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.rollout.verdict import judge
from tidemill.testing.rollout import EPOCH_MS, example_plan, judged_outcome

__all__ = ["dependent_labels", "many_rollouts", "peers", "sticky_users"]

RISK, ERROR, MARGIN = 0.05, 0.10, 0.02
PLANNED = 2800
"""Outcomes at 5 % by which an equal candidate passes a z-test at margin 0.02 with 80 % probability."""
RATE_S = 10
"""Requests a second for which hours are told."""

Bools = npt.NDArray[np.bool_]


def falling(second: float) -> float:
    """A world that becomes easier within a minute and a half, while the shares rise."""
    return 0.4 - 0.3 * min(1.0, second / 90)


def limit_of(runs: int) -> float:
    """The risk and two standard errors of a share measured in so many runs."""
    return float(RISK + 2 * (RISK * (1 - RISK) / runs) ** 0.5)


def part_of(name: str, found: Bools, note: str = "", *, bounded: bool = True) -> Figure:
    """How often something happened that must not happen more often than the risk says."""
    part, limit = float(found.mean()), limit_of(len(found))
    if not bounded:
        return Figure(name, part, "of runs", note=note)
    return Figure(name, part, "of runs", f"<= {RISK:g} (+ 2 s.e. = {limit:.3f})", part <= limit, note)


def many_rollouts(runs: int, seed: int) -> list[Figure]:
    """Both promises at their boundary and away from it, in steady worlds, in drift, and with late labels."""
    one_step, steps = example_plan(weights=(5, 100)), example_plan()
    figures = []
    for name, plan, seconds in (("5 % share", one_step, 300), ("steps 5/25/50", steps, 150)):
        for worse in (MARGIN, 0.0, 0.05):
            world = World(always(ERROR + worse), always(ERROR), seconds=seconds)
            figures += _verdicts(f"{name}, {_worse(worse)}", simulate(plan, world, runs, seed), worse)
    drift = World(lambda second: falling(second) + 0.05, falling, per_second=100, seconds=180)
    ended = simulate(example_plan(margin=0.05, weights=(5, 50, 100)), drift, runs, seed)
    figures.append(part_of("promoted: errors fall 0.4 to 0.1 while the share rises, worse by 0.05", ended.promoted))
    return [*figures, *_late(runs, seed)]


def _late(runs: int, seed: int) -> list[Figure]:
    """60 % of the labels of errors come after the age of the verdict: only the visible errors are seen by then."""
    figures = []
    world = World(always(0.4 * 0.15), always(0.4 * 0.10), seconds=40)
    for visible, bounded in ((0.4, True), (1.0, False)):
        plan = example_plan(weights=(50, 100), margin=0.05, visible={"ok": 1.0, "scratch": visible})
        name = "promoted: 60 % of the errors found late, worse by 0.05" + ("" if bounded else ", margin not shrunk")
        figures.append(part_of(name, simulate(plan, world, runs, seed).promoted, bounded=bounded))
    return figures


def _verdicts(name: str, ended: Ended, worse: float) -> list[Figure]:
    figures = [part_of(f"promoted: {name}", ended.promoted, bounded=worse >= MARGIN)]
    figures.append(part_of(f"rolled back: {name}", ended.rolled_back, bounded=worse <= MARGIN))
    if worse == MARGIN:
        return figures
    rightly = ended.rolled_back if worse > MARGIN else ended.promoted
    outcomes, requests = (np.median(values[rightly]) for values in (ended.candidate, ended.requests))
    hours = f"{requests / RATE_S / 3600:.1f} h at {RATE_S} requests/s"
    name = f"outcomes of the candidate: {name}"
    return [*figures, Figure(name, float(outcomes), "outcomes", note=f"median; {hours}")]


def _worse(worse: float) -> str:
    return f"worse by {worse:g}" if worse else "equal"


def peers(runs: int, seed: int) -> list[Figure]:
    """What others promote of candidates that are equal, at the margin, and in a world that becomes easier."""
    deciders: dict[str, Callable[[Counts], Bools]] = {
        "z-test with peeking": lambda seen: peeking(seen, MARGIN),
        "fixed size, one look": lambda seen: fixed_size(seen, MARGIN, PLANNED),
        "thresholds as in Flagger": lambda seen: flagger(seen, ERROR + MARGIN),
        "Mann-Whitney as in Kayenta": kayenta,
    }
    fixed, rising = [5] * 150, [5] * 30 + [25] * 30 + [50] * 90
    worlds: Sequence[tuple[str, World, list[int]]] = (
        ("equal", World(always(ERROR), always(ERROR)), fixed),
        ("worse by 0.02", World(always(ERROR + MARGIN), always(ERROR)), fixed),
        ("worse by 0.05", World(always(ERROR + 0.05), always(ERROR)), fixed),
        ("errors fall while the share rises, worse by 0.05", World(lambda at: falling(at) + 0.05, falling), rising),
    )
    figures = []
    for name, world, weights in worlds:
        seen = counted(world, weights, runs, seed)
        figures += [
            part_of(f"peer, promoted: {peer}, {name}", decide(seen), bounded=False) for peer, decide in deciders.items()
        ]
    return figures


def dependent_labels(runs: int, seed: int) -> list[Figure]:
    """Labels that come only where somebody complains of the answer: the candidate's errors are complained of less."""
    held, promoted = np.zeros(runs, bool), np.zeros(runs, bool)
    plan, spans = example_plan(weights=(50, 100)), (Span(step=0, weight=50, since=EPOCH_MS),)
    unknown = msgspec.structs.replace(plan, control=0.5)
    refused = np.zeros(runs, bool)
    for run in range(runs):
        fold, rng = Fold(plan), random.Random(seed + run)
        for number in range(4000):
            is_candidate = rng.random() < 0.5
            wrong = rng.random() < (0.25 if is_candidate else 0.10)
            seen = rng.random() < (0.2 if wrong and is_candidate else 0.9)
            loss = float(wrong) if seen else None
            fold.add(0, judged_outcome("v2" if is_candidate else "v1", EPOCH_MS + number * 25, loss, name=str(number)))
            if number % 400 == 399:
                evidence = fold.evidence(spans)
                kind = judge(plan, evidence, 0).kind
                held[run] |= kind == "hold"
                promoted[run] |= kind == "promote" and not held[run]
                refused[run] |= judge(unknown, evidence, 0).kind == "hold"
    note = "errors of the candidate 0.25, of which 20 % are labelled; the champion's 0.10, 90 %"
    return [
        part_of("promoted: labels depend on the answer, labels.control says 1", promoted, note),
        part_of("held: labels depend on the answer, labels.control says 1", held, "labelling differs", bounded=False),
        part_of("held: the same, labels.control 0.5", refused, "no verdict at all", bounded=False),
    ]


def sticky_users(runs: int, seed: int) -> list[Figure]:
    """Users that keep their version, of whom some are wronged nearly always, others never; worse by the margin."""
    plan = example_plan(weights=(50, 100), margin=0.05)
    keyed = msgspec.structs.replace(plan, cohort="x-user")
    found = [[_sticky_promotes(one, random.Random(seed + run)) for run in range(runs)] for one in (keyed, plan)]
    note = "100 users, errors by user Beta(0.2, 1.8), 4,000 requests, share 50 %, worse by 0.05"
    return [
        part_of("promoted: sticky users, each counts once", np.array(found[0]), note),
        part_of("promoted: sticky users, each request counts", np.array(found[1]), note, bounded=False),
    ]


def _sticky_promotes(plan: RolloutPlan, rng: random.Random) -> bool:
    fold, spans = Fold(plan), (Span(step=0, weight=50, since=EPOCH_MS),)
    users = [(rng.random() < 0.5, rng.betavariate(0.2, 1.8)) for _ in range(100)]
    for number in range(4000):
        user = rng.randrange(len(users))
        is_candidate, error = users[user]
        loss = float(rng.random() < error + 0.05 * is_candidate * (1 - error) / 0.9)
        outcome = judged_outcome("v2" if is_candidate else "v1", EPOCH_MS + number * 25, loss, name=str(number))
        fold.add(0, msgspec.structs.replace(outcome, cohort=str(user)))
        if number % 100 == 99 and judge(plan, fold.evidence(spans), 0).kind == "promote":
            return True
    return False
