"""The operator under faults: killed after each of its writes in turn, and over an API server that refuses.

Its real service, stores and gateway driver over an API server, KServe and a gateway in memory, where time is turned by
hand; then, where the programs of `make cluster` are, over a real API server with KServe's controller. Each kill meets a
new model's life: from its declaration through a first version and a promotion to its deletion. What it must come to is
what a life without a kill comes to. In size small one real life is met by several kills; in size full each write is
followed by a kill there, too, in a life of its own.
"""

from typing import Any

from benchmarks.faults.control_plane import on_a_real_server
from benchmarks.faults.life import differs, life
from benchmarks.report import Figure, Report, environment

from tidemill.cluster import Foreign
from tidemill.control.cluster_kinds import DEPLOYMENT
from tidemill.core.errors import Conflict, TidemillError, Unavailable
from tidemill.testing.operator_world import OperatorWorld

__all__ = ["SIZES", "run"]

SIZES = {"small": 12, "full": 1}
"""Every so many-th write is followed by a kill."""
_IDLE_S = 300
_REFUSALS: dict[str, TidemillError] = {
    "409": Conflict("it has been changed meanwhile"),
    "429": Unavailable("too many requests"),
    "an edit": Foreign("somebody's", managers=["kubectl"], fields=[".spec"]),
}


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
            others.append(f"{number}: {differs(wanted, end)}")
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
        *on_a_real_server(size),
    ]
    return Report("faults", "control", size, {"every": SIZES[size]}, figures, environment(("kubernetes", "kopf")))


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
