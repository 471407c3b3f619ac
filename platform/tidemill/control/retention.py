"""What may go of all that a model's runs have left: versions, snapshots, folders of runs. Pure.

It never goes, however old it is, what serves or may serve again: champion, candidate, previous, whatever a rollout, its
watch, an alias or the traffic names. Nor does what a version that stays needs: the snapshot that it was trained on and
its run's folder; nor what was frozen. While a run is in flight nothing goes: it may learn from any snapshot. Nor where
nothing serves: the loop may have lost what it knew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from tidemill.control.state import LoopStatus
from tidemill.core.clock import to_ms
from tidemill.registry import Alias

__all__ = ["Going", "Kept", "KeptVersion", "Rule", "in_use", "may_go"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes once nothing needs it."""

    older_than: timedelta
    newest: int
    """So many of the newest versions stay whatever their age."""


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """A version that lies among the artifacts."""

    made_at: int | None
    """Milliseconds since the epoch; None: its manifest cannot be read, nor what it was trained on."""
    snapshot: str = ""
    """Digest of the snapshot that it was trained on."""


@dataclass(frozen=True, slots=True)
class Kept:
    """All that there is of a model, by name. Times are milliseconds since the epoch."""

    versions: Mapping[str, KeptVersion] = field(default_factory=dict)
    snapshots: Mapping[str, int | None] = field(default_factory=dict)
    """When each was taken, by digest; None: its record cannot be read."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """When each last said something in its folder."""
    frozen: Collection[str] | None = ()
    """Digests of the snapshots that rows were frozen of; None: that cannot be read."""


@dataclass(frozen=True, slots=True)
class Going:
    """What goes, in the order in which it does: a version that stays is never without what it needs."""

    versions: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.versions or self.snapshots or self.runs)


def in_use(status: LoopStatus, aliases: Mapping[Alias, str]) -> frozenset[str]:
    """The versions that serve, have just served, or may come to serve without another run."""
    named = set(aliases.values())
    for place in (status.champion, status.candidate, status.previous):
        named |= {place.version} if place is not None else set()
    for plan in (part.plan for part in (status.rollout, status.watching) if part is not None):
        named |= {plan.candidate.name} | ({plan.champion.name} if plan.champion is not None else set())
    named |= {one.version for one in status.traffic.revisions}
    named |= {one.version for one in status.seen.traffic.revisions}
    return frozenset(named | set(status.stopping))


def may_go(kept: Kept, status: LoopStatus, aliases: Mapping[Alias, str], rule: Rule, now: datetime) -> Going:
    """What may go now.

    Args:
        kept: what there is. It must have been looked at before the status was read, or by who writes that: a version
            that came later may be a candidate by now.
        status: of the loop.
        aliases: of the registry, which may lag behind the status.
        rule: what is kept although nothing needs it.
        now: the time, aware.
    """
    if status.run is not None or status.champion is None:
        return Going()
    before, used = to_ms(now - rule.older_than), in_use(status, aliases)
    by_age = sorted(kept.versions, key=lambda name: (kept.versions[name].made_at or 0, name))
    newest = set(by_age[max(0, len(by_age) - rule.newest) :])
    made = {name: one.made_at for name, one in kept.versions.items()}
    versions = _old(made, before, besides=used | newest)
    stay = kept.versions.keys() - set(versions)
    needed = {kept.versions[name].snapshot for name in stay}
    # What cannot be read, or is not there, may need any of them.
    blind = kept.frozen is None or not used <= stay or any(made[name] is None for name in stay)
    snapshots = () if blind else _old(kept.snapshots, before, besides=needed | set(kept.frozen or ()))
    return Going(versions, snapshots, _old(kept.runs, before, besides=used | stay))


T = TypeVar("T", int, int | None)


def _old(at: Mapping[str, T], before: int, *, besides: Collection[str]) -> tuple[str, ...]:
    """The names whose time is known and was before, but for those that stay; in their order."""
    found = (name for name, time in at.items() if time is not None and time < before)
    return tuple(sorted(name for name in found if name not in besides))
