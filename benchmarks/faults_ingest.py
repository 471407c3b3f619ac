"""Ingest under faults: workers killed and held, Kafka and Redis ended and emptied, partitions added, the topic anew.

Real workers against a real broker, Redis and Delta lake, with a producer under load. At the end each event is in the
lake once, each bad record in quarantine once, and every online row, window and sketch is what a recomputation makes
of what was produced. The control runs workers whose fences are by batch: the same account must find them out.
"""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.faults.account import Account, read_log, reconcile
from benchmarks.faults.load import Load
from benchmarks.faults.recovery import Recovery, answers_dropped, in_mid_batch, recovery
from benchmarks.faults.site import SESSION_MS, Site, open_site, the_resource
from benchmarks.faults.story import KILL, PARTITIONS, Done, Story, make_topic, plan
from benchmarks.faults.workers import POLLS, Workers
from benchmarks.report import Figure, Report, environment
from kafka import KafkaAdminClient, TopicPartition
from rich.console import Console

from tidemill.core.clock import Clock, SystemClock
from tidemill.events.cluster import Cluster
from tidemill.testing import eventually

__all__ = ["SIZES", "Outcome", "Size", "once", "run"]

SEED = 20_250_411
PACKAGES = ("deltalake", "kafka-python", "polars", "redis")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    kills: int
    control_kills: int
    workers: int = 3
    per_second: int = 300
    pause_s: tuple[float, float] = (0.3, 3.5)
    """Shortest and longest time between two faults."""
    drop: float = 0.05
    """Share of Delta's answers that are lost."""


SIZES = {"small": Size(kills=20, control_kills=8), "full": Size(kills=100, control_kills=10, per_second=500)}


@dataclass(frozen=True)
class Outcome:
    """What one run did and found."""

    done: Sequence[Done]
    account: Account
    killed: int
    in_mid_batch: int
    fillings_killed: int
    dropped: int
    recovery: Recovery
    statuses: Sequence[int]
    """Exit statuses of the workers that were asked to end, and of any that ended by themselves."""

    @property
    def well(self) -> bool:
        """Whether nothing is missing, doubled or wrong."""
        return not any(self.account.wrong.values())


def run(size: str) -> Report:
    """The run and its control."""
    sizes = SIZES[size]
    found = once(sizes, plan(random.Random(SEED), sizes.kills), SEED)
    control = once(sizes, [KILL] * sizes.control_kills, SEED, fence_by_batch=True)
    ran = {"seed": SEED, "partitions": PARTITIONS, "session_ms": SESSION_MS, "polls": POLLS}
    ran |= {name: getattr(sizes, name) for name in Size.__dataclass_fields__}
    ran["faults"] = [f"{fault.at:.1f} s: {fault.what}" for fault in found.done]
    return Report("faults", "ingest", size, ran, figures(sizes, found, control), environment(PACKAGES))


def once(size: Size, faults: Sequence[str], seed: int, *, fence_by_batch: bool = False) -> Outcome:
    """One run: servers, workers, load, the faults, the end of the lag, the account. Leaves nothing behind."""
    clock, console = SystemClock(), Console()
    rng = random.Random(seed)
    with ExitStack() as stack:
        site = stack.enter_context(open_site(the_resource()))
        eventually(lambda: make_topic(site), 60, every_s=0.2)
        workers = Workers(site, rng, clock, size.drop, fence_by_batch)
        stack.callback(workers.end)
        for _ in range(size.workers):
            workers.start()
        load = Load(site.bootstrap, site.topics.events, per_second=size.per_second, seed=seed, clock=clock)
        story = Story(site, workers, load, clock, rng, size.pause_s)
        began = clock.monotonic()
        story.run(faults, lambda fault: console.print(f"{fault.at - began:7.1f} s  {fault.what}"))
        statuses = [*workers.ended(), *workers.finish()]
        for _ in range(size.workers):  # those with small polls would take long to catch up
            workers.start(POLLS[-1])
        wait_for_the_end(site, workers, clock)
        statuses += [*workers.ended(), *workers.finish()]
        others = [fault.at for fault in story.done if fault.what != KILL]
        return Outcome(
            done=[Done(fault.at - began, fault.what) for fault in story.done],
            account=reconcile(site, story.gone, read_log(site), load.acknowledged),
            killed=len(story.killed),
            in_mid_batch=in_mid_batch(story.killed),
            fillings_killed=story.fillings_killed,
            dropped=answers_dropped(workers.everyone()),
            recovery=recovery(story.killed, workers.everyone(), others),
            statuses=statuses,
        )


def wait_for_the_end(site: Site, workers: Workers, clock: Clock, deadline_s: float = 150.0) -> None:
    """Until the group has committed all there is, or so long: what is missing then, the account tells."""
    admin = KafkaAdminClient(bootstrap_servers=site.bootstrap)
    group, topic = f"{site.resource.id}.ingest", site.topics.events
    end_by = clock.monotonic() + deadline_s
    try:
        with Cluster(site.bootstrap) as cluster:
            ends = cluster.ends(topic, cluster.sources(topic))
        while clock.monotonic() < end_by and not workers.ended():
            committed = admin.list_group_offsets(group)[group]
            at = {number: committed.get(TopicPartition(topic, number)) for number, end in ends.items() if end}
            if all(found is not None and found.offset >= ends[number] for number, found in at.items()):
                return
            clock.sleep(0.5)
    finally:
        admin.close()


def figures(size: Size, found: Outcome, control: Outcome) -> list[Figure]:
    """What was done, counted, and found wrong, of the run; and whether its control was found out."""
    others = [fault.what for fault in found.done if fault.what != KILL]
    done = [
        Figure("workers killed", found.killed, "times", f">= {size.kills}", found.killed >= size.kills),
        Figure("of these in the middle of a batch", found.in_mid_batch, "times"),
        Figure("other faults", len(others), "times", note=", ".join(sorted(set(others)))),
        Figure(
            "fillings of the online rows killed half-way",
            found.fillings_killed,
            "times",
            "> 0",
            found.fillings_killed > 0,
        ),
        Figure("answers of Delta dropped", found.dropped, "times", "> 0", found.dropped > 0),
        Figure(
            "longest recovery from a kill",
            found.recovery.alone,
            "s",
            note="until one of its partitions is committed again",
        ),
        Figure("the same, with another fault meanwhile", found.recovery.at_all, "s"),
        Figure("workers that ended badly", sum(map(bool, found.statuses)), "", "0", not any(found.statuses)),
    ]
    counted = [Figure(name, count, "") for name, count in found.account.counted.items()]
    wrong = [Figure(name, count, "", "0", count == 0) for name, count in found.account.wrong.items()]
    seen = ", ".join(f"{count} {name}" for name, count in control.account.wrong.items() if count)
    bites = Figure(
        "bites",
        "no" if control.well else "yes",
        "",
        "yes",
        not control.well,
        f"with a fence by batch: {seen or 'nothing'}",
    )
    return [*done, *counted, *wrong, bites]
