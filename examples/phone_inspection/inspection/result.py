"""`result.json`: every figure measured, and each goal with what was measured and whether it holds."""

import os
import platform
from typing import Any

import msgspec

from .books import Books
from .factory import Counts
from .figures import Moments, Phase, RolloutSeen, accuracies, phases, rollout_after, runs, seconds_between
from .recording import Recording

__all__ = ["Goal", "Result", "make_result"]

GIB = 1 << 30


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be shown."""

    name: str
    measured: str
    holds: bool
    fatal: bool = True
    """Whether the demo fails without it. Time and memory depend on the machine: they are shown."""


class Result(msgspec.Struct, kw_only=True):
    """All of `result.json`. Shares are in [0, 1] unless they are weights, which are in percent."""

    passed: bool = False
    drift_expected: bool
    """False for a stationary run (`--no-drift`)."""
    seed: int
    size: str
    sizes: dict[str, float]
    accuracy: dict[str, float | None]
    """Share of right answers before the change of light, after it until a candidate got traffic, and when the
    promoted version had all of it."""
    answers: dict[str, int]
    """How many answers each of these rests on."""
    drift: dict[str, Any]
    rollout: dict[str, Any]
    """`weights`: the candidate's shares in percent as seen at the proxy, in their order."""
    promoted_after_s: float | None
    """From the change of light until the new version was seen to have all traffic."""
    bad_candidate: dict[str, Any]
    runs: list[dict[str, Any]]
    events: dict[str, int]
    predictions: dict[str, int]
    labels: dict[str, int]
    lost: int
    phases: list[Phase]
    total_s: float
    memory: dict[str, float]
    """Resident, of all processes together; pages that they share are counted for each."""
    disk: dict[str, float]
    machine: dict[str, Any]
    goals: list[Goal] = []
    troubles: list[str] = []
    """What could not be observed, and how often the factory had to try again."""


def make_result(
    recording: Recording,
    moments: Moments,
    books: Books,
    counts: Counts,
    *,
    seed: int,
    size: str,
    sizes: dict[str, float],
    drift_expected: bool,
    disk_bytes: int,
) -> Result:
    """What the demo says at its end."""
    good, bad = rollout_after(recording, moments.light_changed), rollout_after(recording, moments.returned_sent)
    accuracy, answers = accuracies(recording, moments, good, bad)
    result = Result(
        drift_expected=drift_expected,
        seed=seed,
        size=size,
        sizes=sizes,
        accuracy=accuracy,
        answers=answers,
        drift=_drift(recording, moments.light_changed, good),
        rollout=_rollout(good),
        promoted_after_s=seconds_between(
            moments.light_changed, good.ended_at if good and good.result == "promoted" else None
        ),
        bad_candidate=_bad_candidate(bad),
        runs=runs(recording),
        events={"sent": counts.events, "ingested": books.ingested, "repeated": books.repeated},
        predictions={"sent": counts.answered, "logged": books.logged, "unanswered": counts.unanswered},
        labels={"sent": counts.labels, "joined": books.joined, "archived": counts.archived},
        lost=_lost(books, counts),
        phases=phases(recording, moments, good, bad),
        total_s=seconds_between(moments.started, moments.ended) or 0.0,
        memory={"peak_gib": round(recording.peak_memory / GIB, 2), "processes": recording.peak_processes},
        disk={"state_mib": round(disk_bytes / (1 << 20), 1)},
        machine={"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        troubles=[*recording.troubles, *([f"{counts.failures} tries were repeated"] if counts.failures else [])],
    )
    result.goals = _goals(result) if drift_expected else _stationary_goals(result)
    result.passed = all(goal.holds for goal in result.goals if goal.fatal)
    return result


def _lost(books: Books, counts: Counts) -> int:
    """Events, answers and labels that are nowhere."""
    events = max(0, counts.events - books.ingested) + books.quarantined
    return events + max(0, counts.answered - books.logged) + max(0, counts.answered - books.joined)


def _drift(recording: Recording, changed: int | None, good: RolloutSeen | None) -> dict[str, Any]:
    """What the watch signalled until a candidate got traffic; in a stationary run, ever."""
    until = good.first_share_at if good else None
    signals = [
        (at, one)
        for at, one in recording.signals
        if one.kind == "drift" and (changed is None or at >= changed) and (until is None or at < until)
    ]
    return {
        "detected_after_s": seconds_between(changed, min((at for at, _ in signals), default=None)),
        "features": list(dict.fromkeys(name for _, one in signals for name in (one.feature, *one.also))),
        "messages": list(dict.fromkeys(one.message for _, one in signals)),
    }


def _rollout(good: RolloutSeen | None) -> dict[str, Any]:
    if good is None:
        return {"weights": []}
    return {
        "version": good.version,
        "weights": [step.weight for step in good.steps],
        "steps": good.steps,
        "result": good.result,
        "reason": good.reason,
    }


def _bad_candidate(bad: RolloutSeen | None) -> dict[str, Any]:
    if bad is None:
        return {"verdict": None, "max_share": None}
    return {
        "version": bad.version,
        "verdict": "roll back" if bad.result == "rolled back" else bad.result,
        "max_share": max((step.weight for step in bad.steps), default=0),
        "steps": bad.steps,
        "reason": bad.reason,
        "gates_skipped": bad.gates_skipped,
        "rolled_back_after_s": seconds_between(bad.first_share_at, bad.ended_at),
    }


def _goals(result: Result) -> list[Goal]:
    """What the story is to show."""
    before, drifted, after = (result.accuracy[name] for name in ("before", "drifted", "after"))
    drop = None if before is None or drifted is None else before - drifted
    left = None if before is None or after is None else before - after
    features, found = result.drift["features"], result.drift["detected_after_s"]
    causes = [run["cause"] for run in result.runs]
    weights, bad = result.rollout["weights"], result.bad_candidate
    share = bad["max_share"]
    return [
        _goal("accuracy falls by at least 0.10 in the new light", _number(drop), drop is not None and drop >= 0.10),
        _goal(
            "drift is signalled, and what has moved is named",
            f"{', '.join(features) or 'nothing'}, after {_number(found, 1)} s",
            found is not None and bool(features),
        ),
        _goal("drift starts one run", f"runs: {', '.join(causes)}", causes == ["initial", "drift", "manual"]),
        _goal(
            "traffic moves in steps, from 5 to 100 %",
            " → ".join(map(str, weights)) or "it did not",
            _rises(weights) and weights[0] == 5 and weights[-1] == 100,
        ),
        _goal("accuracy is back within 0.03", _number(left), left is not None and left <= 0.03),
        _goal(
            "the bad candidate is rolled back by its verdict",
            f"{bad['verdict']}, at most {share} % of the traffic",
            bad["verdict"] == "roll back" and share is not None and share < 100,
        ),
        *_kept(result),
        _shown("from the change of light to 100 % in under 60 s", result.promoted_after_s, 60, "s"),
        _shown("the whole story in under 4 minutes", result.total_s, 240, "s"),
        _shown("under 6 GiB of memory", result.memory["peak_gib"], 6, "GiB"),
    ]


def _stationary_goals(result: Result) -> list[Goal]:
    """What a run without a change of light is to show."""
    causes = [run["cause"] for run in result.runs]
    messages = result.drift["messages"]
    return [
        _goal("nothing but the first version starts a run", f"runs: {', '.join(causes)}", causes == ["initial"]),
        _goal("no drift is signalled", "; ".join(messages) or "none", not messages),
        *_kept(result),
        _shown("under 6 GiB of memory", result.memory["peak_gib"], 6, "GiB"),
    ]


def _kept(result: Result) -> list[Goal]:
    """That nothing was lost."""
    measured = (
        f"{result.events['ingested']:,} of {result.events['sent']:,} events, "
        f"{result.predictions['logged']:,} of {result.predictions['sent']:,} predictions, "
        f"{result.labels['joined']:,} of {result.labels['sent']:,} labels"
    )
    whole = result.lost == 0 and result.events["ingested"] == result.events["sent"]
    return [_goal("nothing is lost", measured, whole)]


def _goal(name: str, measured: str, holds: bool) -> Goal:
    return Goal(name=name, measured=measured, holds=holds)


def _shown(name: str, value: float | None, limit: float, unit: str) -> Goal:
    measured = f"{_number(value, 1)} {unit}"
    return Goal(name=name, measured=measured, holds=value is not None and value < limit, fatal=False)


def _rises(weights: list[int]) -> bool:
    return bool(weights) and weights == sorted(set(weights))


def _number(value: float | None, digits: int = 3) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
