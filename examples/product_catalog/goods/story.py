"""One day of the marketplace: two kinds of products appear, about the first of which the desks differ for a while."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from tidemill.control.triggers import why_not_now
from tidemill.events.records import Decision
from tidemill.spec.model import ContinualModel

from .marketplace import Marketplace
from .products import DECLARED, Product, draw

__all__ = ["Arrival", "Result", "VersionSeen", "tell"]

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HISTORY = 5000
_TESTED = 500
"""Products of each kind on which every version is judged in the end; none of them was ever listed."""
_TOLD = {"start-run", "start-rollout", "finish-run", "promote", "roll-back", "rolled-back", "hold-runs", "release-runs"}
_SHARES = {"other": 0.3, "phone": 0.2, "tablet": 0.15, "laptop": 0.15, "camera": 0.2}


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """How a new kind came into production. Times are of the day, ISO 8601."""

    kind: str
    listed_from: str
    enough_at: str
    """When `minExamples` were counted."""
    held_from: str | None = None
    released_at: str | None = None
    promoted_at: str
    minutes: float
    """From the later of `enough_at` and `released_at` to the promotion of a version that answers it."""
    recall: float
    """Of the version that serves in the end."""


class VersionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One version that served."""

    version: str
    classes: tuple[str, ...]
    run_seconds: float
    """Snapshot, training and evaluation, in this process."""
    errors: dict[str, float]
    """By kind, those that the version before knew already."""
    lost: float
    """Rise of the mean error on the kinds that the version before knew; below zero it fell."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the day showed."""

    seed: int
    arrivals: list[Arrival]
    versions: list[VersionSeen]
    listed: int
    took_s: float


class _Day:
    """Tells as it goes, and remembers when what happened."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.decided: list[tuple[datetime, Decision]] = []

    def decision(self, at: datetime, one: Decision) -> None:
        self.decided.append((at, one))
        if one.kind in _TOLD:
            self.tell(at, f"{one.kind} {one.subject}: {one.reason}")

    def tell(self, at: datetime, what: str) -> None:
        self._say(f"{at:%H:%M:%S}  {what}")

    def first(self, kind: str, after: datetime) -> datetime | None:
        return next((at for at, one in self.decided if one.kind == kind and at >= after), None)


def tell(folder: Path, resource: ContinualModel, *, seed: int = 1, say: Callable[[str], None] = print) -> Result:
    """Let the day pass, and judge it. `folder` keeps lake and versions."""
    begun, day = perf_counter(), _Day(say)
    market = Marketplace(folder, resource, seed=seed, start=START, on_decision=day.decision)
    market.archive(HISTORY, _SHARES)
    market.shares = dict(_SHARES)

    def until(minute: float) -> None:
        while market.clock.now() < START + timedelta(minutes=minute):
            market.turn()

    until(12)
    watches = market.clock.now()
    market.shares["smartwatch"], market.desks.mistaken["smartwatch"] = 0.25, ("cleo", "phone")
    day.tell(watches, "smartwatches are listed; cleo takes them for phones, ann and bo do not")
    until(50)
    for reason in why_not_now(resource, market.status, market.clock.now()):
        day.tell(market.clock.now(), f"no run starts: {reason}")
    again = market.relabel("smartwatch")
    day.tell(market.clock.now(), f"the desks have talked it over: cleo labels {again} smartwatches anew")
    until(75)
    buds = market.clock.now()
    market.shares["earbuds"] = 0.15
    day.tell(buds, "earbuds are listed; everyone knows them")
    until(105)

    promoted = [one.subject for _, one in day.decided if one.kind == "promote"]
    versions = _versions(market, promoted, seed)
    arrivals = [
        _arrival(kind, since, day, market, promoted, _recall(promoted[-1], kind, market, seed))
        for kind, since in (("smartwatch", watches), ("earbuds", buds))
    ]
    return Result(
        seed=seed,
        arrivals=arrivals,
        versions=versions,
        listed=market.listed,
        took_s=round(perf_counter() - begun, 1),
    )


def _arrival(
    kind: str,
    since: datetime,
    day: _Day,
    market: Marketplace,
    versions: Sequence[str],
    recall: float,
) -> Arrival:
    knows = next(name for name in versions if kind in market.model(name).manifest.prediction.classes)
    at = next(at for at, one in day.decided if one.kind == "promote" and one.subject == knows)
    held = day.first("hold-runs", since)
    released = day.first("release-runs", held) if held is not None else None
    enough = market.enough[kind]
    begin = max(enough, released or enough)
    return Arrival(
        kind=kind,
        listed_from=since.isoformat(),
        enough_at=enough.isoformat(),
        held_from=held.isoformat() if held else None,
        released_at=released.isoformat() if released else None,
        promoted_at=at.isoformat(),
        minutes=round((at - begin).total_seconds() / 60, 1),
        recall=recall,
    )


def _versions(market: Marketplace, names: Sequence[str], seed: int) -> list[VersionSeen]:
    found: list[VersionSeen] = []
    known: tuple[str, ...] = DECLARED
    for number, name in enumerate(names):
        errors = {kind: round(1 - _recall(name, kind, market, seed), 4) for kind in known}
        before = {kind: 1 - _recall(names[number - 1], kind, market, seed) for kind in known} if number else errors
        lost = float(np.mean(list(errors.values())) - np.mean(list(before.values())))
        classes = market.model(name).manifest.prediction.classes
        seconds = round(market.run_seconds[name], 2)
        found.append(
            VersionSeen(version=name, classes=classes, run_seconds=seconds, errors=errors, lost=round(lost, 4))
        )
        known = classes
    return found


def _recall(name: str, kind: str, market: Marketplace, seed: int) -> float:
    """Share of a kind's products that a version answers rightly."""
    products = _tested(kind, seed)
    rows = [{"title": one.title, "price": one.price, "grams": one.grams} for one in products]
    return float(np.mean([answer["class"] == kind for answer in market.model(name).answers(rows)]))


def _tested(kind: str, seed: int) -> list[Product]:
    return draw(np.random.default_rng((seed, 7)), _TESTED, {kind: 1.0})
