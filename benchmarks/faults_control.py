"""The operator under faults: killed after each of its writes in turn, and over an API server that refuses.

Its real service, stores and gateway driver over an API server, KServe and a gateway in memory; time is turned by hand.
Each kill meets a new model's life: from its declaration through a first version and a promotion to its deletion. What
it must come to is what a life without a kill comes to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import Figure, Report, environment

from tidemill.cluster import Foreign
from tidemill.control.cluster_kinds import DEPLOYMENT
from tidemill.core.errors import Conflict, TidemillError, Unavailable
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.testing.operator_world import OperatorWorld

__all__ = ["SIZES", "End", "life", "run"]

SIZES = {"small": 8, "full": 1}
"""Every so many-th write is followed by a kill."""
_IDLE_S = 600
_REFUSALS: dict[str, TidemillError] = {
    "409": Conflict("it has been changed meanwhile"),
    "429": Unavailable("too many requests"),
    "an edit": Foreign("somebody's", managers=["kubectl"], fields=[".spec"]),
}


@dataclass(frozen=True)
class End:
    """What a life came to."""

    decisions: tuple[str, ...]
    """The kinds of all decisions, in order."""
    objects: tuple[str, ...]
    """Kinds of what was there after the promotion."""
    shares: tuple[int, ...]
    """Seen at the route then."""
    left: tuple[str, ...]
    """Routes that were there after the deletion."""


def life(world: OperatorWorld) -> End:
    """A model's life from its declaration to its deletion."""
    bench = world.bench
    first = bench.bootstrap()
    second = world.candidate()
    world.judged(lambda status: status.rollout is None and status.champion is not None, {first: 0.4, second: 0.05})
    bench.until(lambda status: len(world.cluster.list(INFERENCE_SERVICE)) == 1)
    kinds = (DEPLOYMENT, INFERENCE_SERVICE, HTTP_ROUTE)
    objects = tuple(one["kind"] for kind in kinds for one in world.cluster.list(kind))
    (route,) = world.cluster.list(HTTP_ROUTE)
    shares = tuple(one.get("weight", 100) for rule in route["spec"]["rules"] for one in rule["backendRefs"])
    decisions = tuple(bench.kinds())
    world.delete()
    return End(decisions, objects, shares, tuple(one["metadata"]["name"] for one in world.cluster.list(HTTP_ROUTE)))


def run(size: str) -> Report:
    """Kill the operator after every so many-th of its writes, then let the API server refuse, then let it rest."""
    whole = OperatorWorld()
    wanted = life(whole)
    writes = -whole.fuse[0]
    others = []
    numbers = range(1, writes + 1, SIZES[size])
    for number in numbers:
        world = OperatorWorld()
        world.fuse[0] = number
        if (end := life(world)) != wanted:
            others.append(f"{number}: {_differs(wanted, end)}")
    refused = {name: _refused(error) for name, error in _REFUSALS.items()}
    calls, written = _idle()
    figures = [
        Figure("writes to the API server in a life", writes, "calls"),
        Figure("kills", len(numbers), "kills"),
        Figure(
            "ends that differ from one without a kill",
            len(others),
            "ends",
            "0",
            not others,
            "; ".join(others[:3]),
        ),
        *(
            Figure(f"tries a minute while each write is answered {name}", tries, "calls/min", "≤ 60", tries <= 60)
            for name, tries in refused.items()
        ),
        Figure("reads a minute of an idle model's own, all answered from memory", calls, "calls/min"),
        Figure("writes a minute of an idle model", written, "calls/min", "≤ 0.1", written <= 0.1),
    ]
    return Report("faults", "control", size, {"every": SIZES[size]}, figures, environment(("kubernetes", "kopf")))


def _differs(wanted: End, end: End) -> str:
    pairs: Sequence[tuple[str, Any, Any]] = [
        (name, getattr(wanted, name), getattr(end, name)) for name in End.__dataclass_fields__
    ]
    return ", ".join(f"{name} {found} for {expected}" for name, expected, found in pairs if found != expected)


def _refused(error: TidemillError) -> float:
    """Writes that are tried in a minute in which each is refused so."""
    world = OperatorWorld()
    world.bench.bootstrap()
    world.cluster.delete(DEPLOYMENT, "default", "phones-watch")
    before = len(world.cluster.calls)
    for _ in range(4 * 60):
        world.bench.clock.advance(0.25)
        _round(world, error)
    return sum(1 for verb, _ in world.cluster.calls[before:] if verb in {"apply", "delete"})


def _round(world: OperatorWorld, error: TidemillError) -> None:
    """One round of the operator in which every write is refused."""
    real = type(world.cluster).apply
    cluster: Any = world.cluster

    def refuse(manifest: Any, kind: Any, **options: Any) -> Any:
        cluster.calls.append(("apply", kind.kind))
        raise error

    cluster.apply = refuse
    try:
        world.bench.bench.service.round()
    finally:
        cluster.apply = real.__get__(cluster)


def _idle() -> tuple[float, float]:
    """Calls a minute of a model that serves and of which nothing is news: reads, and writes."""
    world = OperatorWorld()
    world.bench.bootstrap()
    world.bench.tick(200)
    before = len(world.cluster.calls)
    for _ in range(4 * _IDLE_S):
        world.bench.clock.advance(0.25)
        world.bench.bench.service.round()
    calls = world.cluster.calls[before:]
    written = sum(1 for verb, _ in calls if verb in {"apply", "delete"})
    return (len(calls) - written) / (_IDLE_S / 60), written / (_IDLE_S / 60)
