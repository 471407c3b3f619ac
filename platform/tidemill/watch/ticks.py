"""Window ticks: the votes of all sources merged by tick and entity, closed by a watermark. Pure.

The watermark is the least over non-idle sources of (largest event time - allowedLateness). A source is idle when it
has not been heard of for 2 window ticks; time is told by when sketches reached the log, never by a clock, so that a
replay closes the same ticks at the same records.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from tidemill.events.records import FeatureSketch, Sketch
from tidemill.watch.plan import WatchPlan
from tidemill.watch.votes import TickVotes, merged

__all__ = ["Arrived", "ClosedTick", "SourceSeen", "Ticks", "Votes", "merge", "without_open"]

IDLE_TICKS = 2

Votes = Mapping[str, Mapping[str, FeatureSketch]]
"""By entity and feature."""


@dataclass(frozen=True)
class Arrived:
    """A sketch, and when it reached the log (milliseconds)."""

    sketch: Sketch
    at: int


@dataclass(frozen=True)
class ClosedTick:
    """A tick that is over: its end (milliseconds of event time) and its votes."""

    end: int
    votes: Votes


class SourceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How far one source of events was seen."""

    last_offset: int = -1
    max_event_time: int = 0
    """0: it had no event yet, and does not count in the watermark."""
    heard: int = 0
    """When its last sketch reached the log."""


class Ticks(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks that are not over, and what decides when they are."""

    tick_ms: int
    sources: Mapping[str, SourceSeen] = {}
    open: Mapping[int, TickVotes] = {}
    """Votes by number of the tick (event time // tick)."""
    closed: int = 0
    """End of the last tick that is over; what comes for it or an earlier one is late."""
    late: int = 0
    """Rows that were late, one for each of their features."""
    out_of_order: int = 0
    """Sketches dropped because they overlap what was used."""


def without_open(ticks: Ticks) -> Ticks:
    """Forget the votes of ticks that are not over."""
    return msgspec.structs.replace(ticks, open={})


def merge(
    ticks: Ticks, arrived: Arrived, plan: WatchPlan, labels: Mapping[str, Collection[str]] | None = None
) -> tuple[Ticks, list[ClosedTick]]:
    """Take in one sketch; returns the ticks that are over now, in order.

    Used is a sketch whose last offset is above those used of its source. One that begins below that can only follow
    a lake that was lost or restored, and is dropped whole (see `Sketch`); one of another tick length says nothing.
    `labels` are the values of categories that are told apart (see `merged`).
    """
    sketch = arrived.sketch
    seen = ticks.sources.get(sketch.source, SourceSeen())
    if sketch.last_offset <= seen.last_offset:
        return ticks, []
    overlaps = sketch.first_offset <= seen.last_offset
    now = SourceSeen(
        last_offset=sketch.last_offset,
        max_event_time=max(seen.max_event_time, sketch.max_event_time),
        heard=arrived.at,
    )
    ticks = msgspec.structs.replace(
        ticks, sources={**ticks.sources, sketch.source: now}, out_of_order=ticks.out_of_order + overlaps
    )
    if sketch.tick_ms == plan.tick_ms and not overlaps:
        ticks = _add(ticks, sketch, labels)
    return _close(ticks, arrived.at, plan.lateness_ms)


def _add(ticks: Ticks, sketch: Sketch, labels: Mapping[str, Collection[str]] | None) -> Ticks:
    opened, late = dict(ticks.open), ticks.late
    for number, brought in sketch.votes.items():
        if (number + 1) * ticks.tick_ms <= ticks.closed:
            late += sum(feature.count for features in brought.values() for feature in features.values())
            continue
        added = TickVotes(brought, sketch.kept.get(number, 1.0))
        opened[number] = merged(number, opened.get(number, TickVotes()), added, labels)
    return msgspec.structs.replace(ticks, open=opened, late=late)


def _close(ticks: Ticks, at: int, lateness_ms: int) -> tuple[Ticks, list[ClosedTick]]:
    largest = [
        seen.max_event_time
        for seen in ticks.sources.values()
        if seen.max_event_time and at - seen.heard <= IDLE_TICKS * ticks.tick_ms
    ]
    watermark = min(largest, default=0) - lateness_ms
    over = sorted(number for number in ticks.open if (number + 1) * ticks.tick_ms <= watermark)
    closed = max(ticks.closed, watermark // ticks.tick_ms * ticks.tick_ms)
    left = {number: tick for number, tick in ticks.open.items() if (number + 1) * ticks.tick_ms > watermark}
    ended = [ClosedTick((number + 1) * ticks.tick_ms, ticks.open[number].votes) for number in over]
    return msgspec.structs.replace(ticks, open=left, closed=closed), ended
