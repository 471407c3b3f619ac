"""Runs under faults: killed whole, one step of them killed, control killed between a request and its grant.

A real control process, broker, registry and supervisor, the compiled pipeline on KFP's local runner, and a small
model. Each fault meets a new model. After it the grant is free, nothing is left of a version but a whole one, the
token of the run that is over is refused, and the next run's version is proposed.
"""

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Literal

from benchmarks.faults.plant import Model, Plant, group, open_plant
from benchmarks.report import Figure, Report, environment
from rich.console import Console

from tidemill.retrain.steps import STEPS
from tidemill.stack.launch import signal_group
from tidemill.testing import eventually

__all__ = ["SIZES", "Case", "Found", "once", "run"]

SEED = 20_250_602
PACKAGES = ("kfp", "kafka-python", "mlflow", "torch")
GRANT_FREE_S = 15.0
"""Goal: a dead run is seen by its runner, its own word is waited for (5 s), and the grant is free."""
ENDED_S = 30.0
"""Within so long of its end nothing of a run is at work any more."""
LATEST_S = 0.3
"""A kill comes at most so long after its step has begun: the shortest ones take little longer."""
_ENDS = {"run-failed", "start-rollout"}


@dataclass(frozen=True)
class Case:
    """One fault: what is killed, and while which step is at work."""

    what: Literal["run", "step", "control", "control and run"]
    step: str

    @property
    def heals(self) -> bool:
        """Whether the run itself goes on: KFP tries a step again, but for the one that judges the dataset."""
        return self.what == "control" or (self.what == "step" and self.step != "validate")


@dataclass
class Found:
    """What became of a case."""

    case: Case
    met: str = ""
    """Step that was at work when the kill came."""
    end: str = ""
    reason: str = ""
    free_s: float = 0.0
    """From the kill until the grant was free."""
    half: list[str] = field(default_factory=list)
    stale_refused: bool | None = None
    left: int = 0
    """Processes of the run that outlived it."""
    next_end: str = ""

    @property
    def ended_well(self) -> bool:
        """Whether the run came to the end that its fault allows."""
        if self.case.heals:
            return self.end == "start-rollout"
        # A run may be killed when its proposal is on its way: then it is proposed.
        return self.end == "run-failed" or (self.met == "propose" and self.end in _ENDS)


SIZES: dict[str, list[Case]] = {
    "small": [Case("run", "train"), Case("run", "register"), Case("step", "train"), Case("control", "claim")],
    "full": [
        *(Case("run", step) for step in STEPS),
        *(Case("step", step) for step in STEPS),
        Case("control", "claim"),
        Case("control and run", "train"),
    ],
}


def run(size: str) -> Report:
    """Every case, one after another."""
    rng, console = random.Random(SEED), Console()
    found: list[Found] = []
    with open_plant() as plant:
        for number, case in enumerate(SIZES[size], 1):
            found.append(once(plant, plant.model(f"faults-{number}"), case, rng))
            console.print(f"{found[-1]}")
    cases = [f"{case.what}: {case.step}" for case in SIZES[size]]
    ran = {"seed": SEED, "cases": cases, "kill at most s into a step": LATEST_S}
    return Report("faults", "retrain", size, ran, figures(found), environment(PACKAGES))


def once(plant: Plant, model: Model, case: Case, rng: random.Random) -> Found:
    """One fault, what became of its run, and the run after it."""
    found, name = Found(case), model.start()
    leader = eventually(lambda: model.leader(name), 60)
    if case.what == "control":
        _kill_control(plant, model, name, found)
        killed_at = plant.clock.monotonic()
    else:
        eventually(lambda: _step(model, name) == case.step, 120, every_s=0.002)
        if case.what != "step":
            plant.clock.sleep(rng.uniform(0.0, LATEST_S))
        killed_at = _kill_run(plant, model, name, leader, found)
    end = model.end_of(name)
    found.end, found.reason = end.kind, end.reason
    found.free_s = plant.clock.monotonic() - killed_at
    found.half = model.half(name)
    found.stale_refused = model.stale_refused(name)
    found.left = len(_left(plant, leader))
    eventually(lambda: model.status.rollout is None, 60)
    following = model.start()
    found.next_end = model.end_of(following).kind
    if found.next_end == "start-rollout" and len(model.registered(following)) != 1:
        found.next_end = "proposed, not registered once"
    found.half += model.half(following)
    return found


def _left(plant: Plant, leader: int) -> list[int]:
    """The processes of a run that are there although it has had the time to end them: it says that it failed first."""
    until = plant.clock.monotonic() + ENDED_S
    while (found := group(leader)) and plant.clock.monotonic() < until:
        plant.clock.sleep(0.1)
    return found


def _step(model: Model, name: str) -> str | None:
    seen = model.seen(name)
    return seen.step if seen else None


def _kill_run(plant: Plant, model: Model, name: str, leader: int, found: Found) -> float:
    """Kill the run's group, or the process of the step at work; when."""
    if found.case.what == "control and run":
        plant.kill_control()
    if found.case.what == "step":
        (process, *_) = eventually(lambda: model.at_work(leader), 30, every_s=0.002)
        _kill_process(process)
    else:
        signal_group(leader, SIGKILL)
    killed_at = plant.clock.monotonic()
    found.met = _step(model, name) or ""
    if found.case.what == "control and run":
        plant.start_control()
    return killed_at


def _kill_control(plant: Plant, model: Model, name: str, found: Found) -> None:
    """Kill control before the run's claim, and start another once that waits in the log."""
    eventually(lambda: model.seen(name), 60, every_s=0.002)
    plant.kill_control()
    eventually(lambda: any(one.kind == "claim" for one in model.requests()), 60, every_s=0.1)
    granted = any(one.kind == "grant" for one in model.decisions())
    found.met = "granted before" if granted else _step(model, name) or ""
    plant.start_control()


def _kill_process(pid: int) -> None:
    """SIGKILL to one process, unless it has just ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)


def figures(found: Sequence[Found]) -> list[Figure]:
    """One for each case, and the promises over all of them."""
    cases = [
        Figure(
            f"{one.case.what} killed in {one.case.step}",
            one.end,
            "",
            "start-rollout" if one.case.heals else "run-failed",
            one.ended_well,
            f"{one.free_s:.1f} s after it, in {one.met}: {one.reason}"[:160],
        )
        for one in found
    ]
    met = sum(one.met == one.case.step for one in found)
    failed = [one for one in found if one.end == "run-failed"]
    dead = [one.free_s for one in failed if "control" not in one.case.what]
    anew = [one.free_s for one in failed if "control" in one.case.what]
    half = [problem for one in found for problem in one.half]
    stale = [one.stale_refused for one in found if one.stale_refused is not None]
    left, following = sum(one.left for one in found), sum(one.next_end == "start-rollout" for one in found)
    slowest, within = max(dead, default=0.0), f"<= {GRANT_FREE_S:g}"
    return [
        *cases,
        Figure("kills that met their step", met, f"of {len(found)}"),
        Figure("longest until a dead run's grant is free", slowest, "s", within, slowest <= GRANT_FREE_S),
        *(Figure("the same, control having died with it: its start included", one, "s") for one in anew),
        Figure("versions that are half there", len(half), "", "0", not half, "; ".join(half)[:160]),
        Figure("stale tokens refused", sum(stale), f"of {len(stale)}", "all", all(stale) and bool(stale)),
        Figure("processes that outlived their run", left, "", "0", left == 0),
        Figure("next runs proposed", following, f"of {len(found)}", "all", following == len(found)),
    ]
