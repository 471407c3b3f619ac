"""A model's life on a cluster, from its declaration to its deletion, and what it came to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.control.cluster_kinds import DEPLOYMENT
from tidemill.control.cluster_objects import ROLE
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE, MODEL
from tidemill.testing.operator_world import World

__all__ = ["End", "differs", "life"]

_MINE = {MODEL: "phones"}
_STEPS = {"go-on", "step-began"}


@dataclass(frozen=True)
class End:
    """What a life came to."""

    decisions: tuple[str, ...]
    """The kinds of all decisions, in order, but for those of steps: how many it takes is chance."""
    objects: tuple[str, ...]
    """Kinds of what was there after the promotion."""
    shares: tuple[int, ...]
    """Seen at the route then."""
    left: tuple[str, ...]
    """Routes that were there after the deletion."""


def life(world: World) -> End:
    """A first version, a candidate that takes over, and the end."""
    bench = world.bench
    first = bench.bootstrap()
    second = world.candidate()
    bench.until(lambda status: bool(status.rollout and status.rollout.phase != "starting"))
    world.judged(lambda status: status.rollout is None and status.champion is not None, {first: 0.4, second: 0.05})
    bench.until(lambda status: len(world.objects(INFERENCE_SERVICE)) == 1)
    workers = [one for one in world.objects(DEPLOYMENT, **_MINE) if ROLE in one["metadata"]["labels"]]
    served = [one for kind in (INFERENCE_SERVICE, HTTP_ROUTE) for one in world.objects(kind, **_MINE)]
    objects = tuple(one["kind"] for one in (*workers, *served))
    (route,) = world.objects(HTTP_ROUTE, **_MINE)
    shares = tuple(one.get("weight", 100) for rule in route["spec"]["rules"] for one in rule["backendRefs"])
    decisions = tuple(kind for kind in bench.kinds() if kind not in _STEPS)
    world.delete()
    left = tuple(one["metadata"]["name"] for one in world.objects(HTTP_ROUTE, **_MINE))
    return End(decisions, objects, shares, left)


def differs(wanted: End, end: End) -> str:
    """In what two ends are not the same."""
    pairs: Sequence[tuple[str, Any, Any]] = [
        (name, getattr(wanted, name), getattr(end, name)) for name in End.__dataclass_fields__
    ]
    return ", ".join(f"{name} {found} for {expected}" for name, expected, found in pairs if found != expected)
