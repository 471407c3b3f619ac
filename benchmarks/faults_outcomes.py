"""Outcomes under faults: the worker killed, held, its index emptied; a predictor killed; the broker stopped.

Two parts, each with servers of its own. In the first, workers are killed at random moments while predictions and
labels are written: at the end the outcomes are those of a batch over both logs, each once, in topic and lake. In the
second a real `tidemill serve` answers clients that know every answer they got: while the broker is away answers go
on; the loss that outcomes tell is the loss there was, exactly where the server's own count can be told, and within
the bound where it cannot. The control is a server that says nothing of itself: its loss must not be told.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from benchmarks.faults.labelled import Labelled, settled_differences
from benchmarks.faults.outcome_worker import OutcomeWorker
from benchmarks.faults.predictor import EVERY_S, Counted, Outage, Predictor
from benchmarks.faults.site import Site, open_site
from benchmarks.report import Figure, Report, environment
from benchmarks.serving.asking import Clients, Served, served_model
from rich.console import Console

from tidemill.core.clock import Clock, SystemClock
from tidemill.events.cluster import ensure_topics
from tidemill.testing import eventually

__all__ = ["CAPACITY", "SIZES", "Size", "Workers", "open_predictor", "predictor_faults", "run", "worker_faults"]

SEED = 20_250_517
PACKAGES = ("deltalake", "kafka-python", "kserve", "redis")
CAPACITY = 400
"""Rows that may wait in the predictor: so few that an outage loses some."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    kills: int
    zombies: int
    emptied: int
    predictor_kills: int
    per_second: int = 100
    away_s: float = 20.0
    around_s: float = 10.0


SIZES = {
    "small": Size(kills=20, zombies=2, emptied=3, predictor_kills=2),
    "full": Size(kills=100, zombies=8, emptied=12, predictor_kills=6, per_second=200),
}


@dataclass
class Workers:
    """What became of the workers of a run, and of what they wrote."""

    killed: int = 0
    while_working: int = 0
    zombies: int = 0
    zombies_refused: int = 0
    emptied: int = 0
    predictions: int = 0
    outcomes: int = 0
    wrong: dict[str, int] | None = None


def run(size: str) -> Report:
    """Both parts."""
    sizes, clock, console = SIZES[size], SystemClock(), Console()
    workers = worker_faults(sizes, clock, console)
    outage, counted, control = predictor_faults(sizes, clock, console)
    ran = {"seed": SEED, "capacity": CAPACITY, "server speaks every s": EVERY_S}
    ran |= {name: getattr(sizes, name) for name in Size.__dataclass_fields__}
    figures = [*_of_workers(sizes, workers), *_of_outage(outage), *_of_predictor(counted, control)]
    return Report("faults", "outcomes", size, ran, figures, environment(PACKAGES))


def worker_faults(size: Size, clock: Clock, console: Console) -> Workers:
    """Workers killed, held and robbed of their index, under load."""
    rng, found = random.Random(SEED), Workers()
    faults = ["kill"] * size.kills + ["hold"] * size.zombies + ["empty Redis"] * size.emptied
    rng.shuffle(faults)
    with ExitStack() as stack:
        site = stack.enter_context(_site())
        alive = OutcomeWorker(site, 0)
        stack.callback(lambda: alive.kill())
        load = Labelled(site, per_second=size.per_second, seed=SEED, clock=clock)
        with load.running():
            for number, fault in enumerate(faults, 1):
                console.print(f"{fault} ({number} of {len(faults)})")
                if fault == "empty Redis":
                    clock.sleep(rng.uniform(0.2, 1.5))
                    site.empty_redis()
                    found.emptied += 1
                    continue
                _wait_before(alive, rng, clock)
                if fault == "kill":
                    found.while_working += alive.works
                    alive.kill()
                    found.killed += 1
                    alive = OutcomeWorker(site, number)
                else:
                    alive = _replaced_while_held(site, number, alive, found, clock)
            clock.sleep(2.0)
        found.predictions, found.outcomes, found.wrong = settled_differences(site, clock)
        if any(found.wrong.values()):
            console.print(alive.told())
        return found


def predictor_faults(size: Size, clock: Clock, console: Console) -> tuple[Outage, Sequence[Counted], Counted]:
    """The broker stopped, then the server killed in several ways; last the control."""
    with open_predictor(clock) as predictor:
        rng = random.Random(SEED)
        outage = predictor.outage(size.away_s, size.around_s, CAPACITY)
        for _ in range(size.predictor_kills):
            predictor.kill(rng.uniform(1.0, 4.0), CAPACITY)
            predictor.kill(rng.uniform(1.0, 3.0), CAPACITY, away_s=rng.uniform(2.0, 9.0))
        for _ in range(size.predictor_kills):
            predictor.kill(rng.uniform(1.0, 4.0), CAPACITY, keeps=False)
        told = list(predictor.counted)
        predictor.kill(rng.uniform(2.0, 4.0), CAPACITY, away_s=2.0, keeps=False, mute=True)
        for one in predictor.counted:
            console.print(f"{one}")
        return outage, told, predictor.counted[-1]


@contextmanager
def open_predictor(clock: Clock) -> Iterator[Predictor]:
    """A predictor that is not started yet, with servers and an outcomes worker of its own."""
    with ExitStack() as stack:
        site = stack.enter_context(_site())
        worker = OutcomeWorker(site, 0)
        stack.callback(worker.kill)
        served = Served(site.folder, site.resource, site.resource_file, kafka=site.bootstrap)
        stack.callback(served.kill)
        yield Predictor(site, served, Clients(served, clock), worker, clock)


@contextmanager
def _site() -> Iterator[Site]:
    """Servers of a part's own, with the topics of one model."""
    with open_site(served_model("faults")) as site:
        ensure_topics(site.bootstrap, {site.topics.predictions: 1, site.topics.labels: 1, site.topics.outcomes: 1})
        yield site


def _wait_before(worker: OutcomeWorker, rng: random.Random, clock: Clock) -> None:
    """A quarter of the kills meet a worker that starts, the others one at work."""
    if rng.random() < 0.25:
        clock.sleep(rng.uniform(0.0, 3.0))
        return
    eventually(lambda: worker.works, 60, every_s=0.02)
    clock.sleep(rng.uniform(0.0, 1.5))


def _replaced_while_held(site: Site, number: int, held: OutcomeWorker, found: Workers, clock: Clock) -> OutcomeWorker:
    """Another takes over while one is held; that one goes on, and must end without effect."""
    eventually(lambda: held.works, 60)
    held.hold()
    found.zombies += 1
    another = OutcomeWorker(site, number)
    eventually(lambda: another.works, 60)
    clock.sleep(1.0)
    held.let_go()
    try:
        eventually(lambda: held.status is not None, 30)
        found.zombies_refused += 1
    except AssertionError:
        held.kill()
    return another


def _of_workers(size: Size, found: Workers) -> list[Figure]:
    wrong = found.wrong or {}
    return [
        Figure("workers killed", found.killed, "times", f">= {size.kills}", found.killed >= size.kills),
        Figure("of these at work", found.while_working, "times"),
        Figure("workers held while another took over", found.zombies, "times"),
        Figure("of these refused", found.zombies_refused, "times", "all", found.zombies_refused == found.zombies),
        Figure("Redis emptied", found.emptied, "times"),
        Figure("predictions", found.predictions, ""),
        Figure("outcomes, with corrections", found.outcomes, ""),
        *(Figure(name, count, "", "0", count == 0) for name, count in wrong.items()),
    ]


def _of_outage(found: Outage) -> list[Figure]:
    parts = {"before": found.before, "while the broker was away": found.during, "after": found.after}
    failed = sum(not one.ids for part in parts.values() for one in part)
    figures = [Figure("requests without an answer", failed, "", "0", failed == 0)]
    for name, answers in parts.items():
        took = np.array([one.took_s for one in answers if one.ids]) * 1000
        p50, p99 = np.percentile(took, [50, 99])
        figures.append(Figure(f"answers {name}", len(took), "", note=f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"))
    return figures


def _of_predictor(counted: Sequence[Counted], control: Counted) -> list[Figure]:
    figures = []
    for one in counted:
        keeps = "counts gone" not in one.what
        told = f"{one.lost} told" + (f", ≤ {one.maybe_lost} more" if one.maybe_lost else "")
        figures.append(
            Figure(
                f"missing after: {one.what}",
                one.missing,
                f"of {one.answered}",
                "as told" if keeps else "<= what is told",
                one.exact if keeps else one.bounded,
                f"{told}; at most {one.unanswered} rows of requests that were cut off",
            )
        )
    last = counted[-1]
    silent = control.missing - last.missing, control.lost + control.maybe_lost - last.lost - last.maybe_lost
    note = f"a server that says nothing of itself: {silent[0]} more missing, {silent[1]} more told"
    return [*figures, Figure("bites", "yes" if silent[0] > silent[1] else "no", "", "yes", silent[0] > silent[1], note)]
