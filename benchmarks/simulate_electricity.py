"""Real data: the New South Wales electricity market, played through the product's own reference and detectors.

One row each half hour from 7 May 1996 on. At row 17,425 the market of Victoria opens: its price and demand and the
transfer between the states, constant until then, begin to move. That is to be found, soon, and nothing before it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
from benchmarks.report import Figure, Report, environment

from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch, Signal
from tidemill.spec.model import DriftTrigger
from tidemill.watch.detection import begin, judge
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reference import Reference, budget_period_ms, build_reference
from tidemill.watch.ticks import ClosedTick

__all__ = ["FEATURES", "OPENING", "Watching", "market", "run", "watch"]

FEATURES = ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
OPENING = 17_425
"""The first row of the second market, counted from 1."""
AFTER = 336
"""Rows that are played after it: a week."""
HALF_HOUR_MS = 1_800_000
WEEK = 336
TRIGGER = DriftTrigger.model_validate({"tolerance": 0.2, "every": "30m"})
WEEKS = {"small": (8,), "full": (8, 16, 26, 39)}
"""How many of the first weeks make the reference."""


@dataclass(frozen=True)
class Watching:
    """What a watch of the market said."""

    reference: Reference
    states: Sequence[Signal]
    """Said at the beginning: what is not watched as declared."""
    alarms: Sequence[tuple[int, Signal]]
    """Row (from 1) and signal."""


def market() -> pl.DataFrame | None:
    """The file with an entity and times; None where `TIDEMILL_DATA` has none."""
    file = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
    if not os.environ.get("TIDEMILL_DATA") or not file.is_file():
        return None
    since = pl.lit(datetime(1996, 5, 7, tzinfo=UTC)).dt.cast_time_unit("ms")
    times = since + pl.duration(milliseconds=pl.int_range(pl.len()) * HALF_HOUR_MS)
    return pl.read_csv(file).with_columns(entity=pl.lit("nsw"), event_time=times)


def watch(rows: pl.DataFrame, reference: Reference, *, since: int, until: int) -> Watching:
    """Play rows `since` to `until` (from 0, without the last) against a reference."""
    plan = WatchPlan(
        model="default.market",
        entity="state",
        tick_ms=HALF_HOUR_MS,
        lateness_ms=0,
        period_ms=budget_period_ms(TRIGGER),
        tolerance=TRIGGER.tolerance,
    )
    played = rows[since:until]
    ends = [at + HALF_HOUR_MS for at in played["event_time"].dt.epoch("ms")]
    state, states = begin("1", reference, ends[0] - HALF_HOUR_MS, plan)
    alarms: list[tuple[int, Signal]] = []
    for row, (end, votes) in enumerate(zip(ends, _votes(played), strict=True), since + 1):
        state, signals = judge(state, ClosedTick(end, named({"nsw": votes})), plan)
        alarms += [(row, signal) for signal in signals]
    return Watching(reference, states, alarms)


def _votes(rows: pl.DataFrame) -> Iterator[dict[str, FeatureSketch]]:
    for row in rows.select(FEATURES).iter_rows(named=True):
        yield {name: FeatureSketch(count=1, total=value) for name, value in row.items()}


def regardless(reference: Reference) -> Reference:
    """The reference with the two features that cannot promise watched all the same, as if nothing spoke against it."""
    features = [
        msgspec.structs.replace(feature, state="ok", tau=0.5, tolerance=TRIGGER.tolerance, c_ref=0.05, season=None)
        if feature.name.startswith("nsw")
        else msgspec.structs.replace(feature, state="cannot-promise")
        for feature in reference.features
    ]
    return msgspec.structs.replace(reference, features=tuple(features))


def figures_of(rows: pl.DataFrame, weeks: int) -> list[Figure]:
    """Of a reference from the first weeks."""
    since = weeks * WEEK
    reference = build_reference(rows[:since], FEATURES, TRIGGER)
    found = watch(rows, reference, since=since, until=OPENING + AFTER)
    early = [(row, signal) for row, signal in found.alarms if row < OPENING]
    first = next(((row, signal) for row, signal in found.alarms if row >= OPENING), None)
    name, length = f"reference of {weeks} weeks", f"in {(OPENING - 1 - since) / 48:.0f} days"
    figures = [Figure(f"{name}: alarms before the opening", len(early), length, "0", not early)]
    figures += [Figure(f"{name}: alarm at row {row:,}", None, "", note=_told(signal)) for row, signal in early]
    took = None if first is None else first[0] - OPENING + 1
    told = "" if first is None else _told(first[1])
    goal = "<= 48, a day"
    figures.append(Figure(f"{name}: opening found", took, "rows", goal, took is not None and took <= 48, told))
    figures += [Figure(f"{name}: said of it", signal.feature, "", note=signal.message) for signal in found.states]
    control = watch(rows, regardless(reference), since=since, until=OPENING - 1)
    what = "nswprice and nswdemand watched regardless, season and dependence ignored"
    return [*figures, Figure(f"control: {name}, {what}", len(control.alarms), f"alarms {length}")]


def _told(signal: Signal) -> str:
    return f"{signal.message} (evidence {signal.evidence:.2g})"


def run(size: str) -> Report:
    """Run it with one reference, or with several."""
    rows = market()
    figures = [Figure("electricity market", None, "", note="skipped: TIDEMILL_DATA has no elec.csv")]
    if rows is not None:
        figures = [figure for weeks in WEEKS[size] for figure in figures_of(rows, weeks)]
    ran = {"weeks": WEEKS[size], "tolerance": TRIGGER.tolerance, "tick_ms": HALF_HOUR_MS, "features": FEATURES}
    return Report("simulate", "electricity", size, ran, figures, environment(("numpy", "polars")))
