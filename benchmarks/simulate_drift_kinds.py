"""Drift of categories, missing rates and losses: false alarms per 30 days, and how long a change takes to find.

As `simulate_drift` for numbers: references by the product's own code from simulated rows, the product's detectors, many
streams at a time, each a model with one quantity. Of each kind there is a stream without memory, one in which an entity
keeps what it had with probability 0.9 from tick to tick, and one everywhere as far off as is allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from benchmarks.drift_alarms import false_alarms
from benchmarks.report import Figure, Report, environment

from tidemill.spec.model import DriftTrigger
from tidemill.stats.drift import MISSING, ROWS, Detectors, feature_evidence, grow, reset, start
from tidemill.watch.measure import measure
from tidemill.watch.quantity import FeatureReference, watched
from tidemill.watch.votes import FeatureVotes, category_votes, votes_of

__all__ = ["run"]

SEED = 20_251_127
TICK_MS = 10_000
PERIOD_MS = 30 * 86_400_000.0
ENTITIES = 30
"""Each votes in every tick."""
STICKY = 0.9
SHARES = (0.4, 0.25, 0.15, 0.1, 0.07, 0.03)
"""Of a category's values; the last of them is what is missing of a number, or the mean of a loss."""
TRIGGER = DriftTrigger.model_validate({"tolerance": 0.1, "rise": 0.1, "every": "10s"})

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    streams: int
    references: int
    days: float


SIZES = {"small": Size(streams=60, references=4, days=1.55), "full": Size(streams=60, references=20, days=30.0)}


class Draws:
    """Which of the values each entity of each stream has, tick after tick."""

    def __init__(self, rng: np.random.Generator, streams: int, keeps: float, shares: Sequence[float] = SHARES) -> None:
        self._rng, self._keeps, self._bounds = rng, keeps, np.cumsum(shares)[:-1]
        self._now = self._fresh((streams, ENTITIES))

    def tick(self) -> Ints:
        """The next tick's (streams, entities)."""
        fresh = self._fresh(self._now.shape)
        stays = self._rng.random(self._now.shape) < self._keeps
        self._now = np.where(stays, self._now, fresh) if self._keeps else fresh
        return self._now

    def _fresh(self, shape: tuple[int, ...]) -> Ints:
        return np.searchsorted(self._bounds, self._rng.random(shape), side="right").astype(np.int64)


def reference(kind: str, rng: np.random.Generator, keeps: float, votes: int) -> FeatureReference:
    """One reference of a kind from as many votes."""
    draws, ticks = Draws(rng, 1, keeps), votes // ENTITIES
    values = np.concatenate([draws.tick()[0] for _ in range(ticks)])
    times = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(milliseconds=TICK_MS * tick) for tick in range(ticks)]
    names = pl.Series([f"e{number:02}" for number in range(ENTITIES)] * ticks)
    frame = pl.DataFrame({"entity": names, "event_time": pl.Series(times).gather(np.arange(votes) // ENTITIES)})
    return measure(_votes(kind, frame, values, rng), TRIGGER, quantities=1)[0]


def _votes(kind: str, frame: pl.DataFrame, values: Ints, rng: np.random.Generator) -> list[FeatureVotes]:
    last = values == len(SHARES) - 1
    if kind == "category":
        return category_votes(frame.with_columns(x=pl.Series(values)), ["x"], TICK_MS)
    if kind == "loss":
        return votes_of(frame.with_columns(x=pl.Series(last.astype(np.float64))), ["x"], TICK_MS, kind="loss")
    number = np.where(last, np.nan, rng.standard_normal(len(values)))
    return votes_of(frame.with_columns(x=pl.Series(number)), ["x"], TICK_MS)


def counting(kind: str, found: Sequence[FeatureReference], draws: Draws, streams: int) -> Callable[[], Floats]:
    """The next tick's hits (streams, rows): of a number the missing rate alone."""
    if kind != "category":
        row = 0 if kind == "loss" else MISSING

        def last() -> Floats:
            hits = np.zeros((streams, ROWS))
            hits[:, row] = (draws.tick() == len(SHARES) - 1).sum(axis=1)
            return hits

        return last
    places = np.array([[_place(of, value) for value in range(len(SHARES))] for of in _dealt(found, streams)])

    def counts() -> Floats:
        hits = np.zeros((streams, ROWS))
        rows = np.take_along_axis(places, draws.tick(), axis=1)
        np.add.at(hits, (np.arange(streams)[:, None], rows), 1.0)
        return hits

    return counts


def _place(feature: FeatureReference, value: int) -> int:
    return feature.labels.index(str(value)) if str(value) in feature.labels else len(feature.labels)


def _dealt(found: Sequence[FeatureReference], streams: int) -> list[FeatureReference]:
    return [found[stream % len(found)] for stream in range(streams)]


def against(kind: str, found: Sequence[FeatureReference], streams: int) -> Detectors:
    """One detector a stream; of a number only the missing rate is bet on."""
    one = replace(watched(_dealt(found, streams)), weights=np.ones(streams))
    if kind != "missing":
        return one
    on = one.on.copy()
    on[:, :MISSING] = False
    count = np.maximum(on.sum(axis=(1, 2)) * one.hit.shape[-1], 1).reshape(-1, 1, 1)
    return replace(one, on=on, mixture=(on / count)[..., None])


def play(detectors: Detectors, counts: Callable[[], Floats], ticks: int, *, until_first: bool = False) -> Floats:
    """Alarms of each stream, or the tick of its first one (the last where there is none)."""
    state, streams = start(detectors), len(detectors.weights)
    alarms, first = np.zeros(streams), np.full(streams, float(ticks))
    votes = np.full(streams, float(ENTITIES))
    for number in range(ticks):
        end = (number + 1) * TICK_MS
        state = grow(detectors, state, counts(), votes, end=end, tick=TICK_MS, period=PERIOD_MS)
        over = feature_evidence(detectors, state) >= 1
        if over.any():
            alarms += over
            first = np.where(over, np.minimum(first, number + 1), first)
            state = reset(state, over, end)
        if until_first and (first < ticks).all():
            break
    return first if until_first else alarms


def boundary(kind: str, feature: FeatureReference) -> list[float]:
    """Shares whose last is as far above the reference's as is allowed; the others are less in proportion."""
    share, slack = feature.shares[0], feature.c_ref
    if kind == "category":
        row = feature.labels.index(str(len(SHARES) - 1))
        share, slack = feature.shares[row], feature.margins[row]
    elif kind == "missing" and feature.missing is not None:
        share, slack = feature.missing.share, feature.missing.c_ref
    last = share + feature.tolerance + slack
    rest = np.array(SHARES[:-1]) / sum(SHARES[:-1]) * (1 - last)
    return [*map(float, rest), last]


def _not_tempered(feature: FeatureReference) -> FeatureReference:
    missing = feature.missing and msgspec.structs.replace(feature.missing, tau=0.5)
    return msgspec.structs.replace(feature, tau=0.5, missing=missing)


def simulate(kind: str, size: Size, rng: np.random.Generator) -> list[Figure]:
    """One kind's false alarms and delays."""
    ticks, days, figures = round(size.days * 86_400_000 / TICK_MS), size.streams * size.days, list[Figure]()

    def source(
        found: Sequence[FeatureReference], keeps: float, shares: Sequence[float] = SHARES
    ) -> Callable[[], Floats]:
        return counting(kind, found, Draws(rng, size.streams, keeps, shares), size.streams)

    for memory, keeps, votes in (("no memory", 0.0, 6_000), ("keeps its value with 0.9", STICKY, 90_000)):
        name, drawn = f"{kind}, {memory}", [reference(kind, rng, keeps, votes) for _ in range(size.references)]
        found = [of for of in drawn if of.state == "ok" and (kind != "missing" or of.missing is not None)]
        taus = [of.missing.tau if kind == "missing" and of.missing else of.tau for of in found]
        note = f"tau {np.mean(taus):.1f}, {len(found)} of {len(drawn)} references promise"
        detectors, one = against(kind, found, size.streams), against(kind, found[:1], size.streams)
        alarms = int(play(detectors, source(found, keeps), ticks).sum())
        figures.append(false_alarms(name, alarms, days, note=note))
        edge = boundary(kind, found[0])
        alarms = int(play(one, source(found[:1], keeps, edge), ticks).sum())
        figures.append(false_alarms(f"{name}, on the exact boundary", alarms, days))
        if keeps:
            bare = against(kind, [_not_tempered(found[0])], size.streams)
            alarms = int(play(bare, source(found[:1], keeps, edge), ticks // 20).sum())
            what = f"{name}, on the exact boundary, not tempered"
            figures.append(false_alarms(what, alarms, days / 20, control=True))
        moved = [*(0.5 * share for share in SHARES[:-1]), 1 - 0.5 * sum(SHARES[:-1])]
        took = float(np.mean(play(detectors, source(found, keeps, moved), 5_000, until_first=True)))
        figures.append(Figure(f"{name}: half move to the rarest", took * ENTITIES, "votes until found"))
    return figures


def run(size_name: str) -> Report:
    """Run it all at one size."""
    size, rng = SIZES[size_name], np.random.default_rng(SEED)
    kinds: tuple[str, ...] = ("category", "missing", "loss")
    figures = [figure for kind in kinds for figure in simulate(kind, size, rng)]
    ran: dict[str, Any] = {
        "seed": SEED,
        "streams": size.streams,
        "references": size.references,
        "days": size.days,
        "votes_a_tick": ENTITIES,
        "tick_ms": TICK_MS,
        "tolerance": TRIGGER.tolerance,
        "rise": TRIGGER.rise,
        "shares": list(SHARES),
    }
    return Report("simulate", "drift-kinds", size_name, ran, figures, environment(("numpy", "polars")))
