"""Window ticks of one stream: the votes of its sources merged by tick and entity, closed by a watermark. Pure.

The watermark is the least over non-idle sources of (largest event time - lateness). A source is idle when others of its
stream were heard for 2 window ticks and it was not; time is told by when records reached the log, never by a clock, so
that a replay closes the same ticks at the same records. While the whole stream is silent nobody becomes idle: else the
first source that is heard after a pause would close ticks over the heads of all others.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from tidemill.events.cells import EMPTY, grid, packed
from tidemill.events.records import Sketch, TickVotes
from tidemill.watch.votes import merged

__all__ = ["Arrived", "ClosedTick", "SourceSeen", "Ticks", "merge", "without_open"]

IDLE_TICKS = 2


@dataclass(frozen=True)
class Arrived:
    """A sketch, and when it reached the log (milliseconds)."""

    sketch: Sketch
    at: int


@dataclass(frozen=True)
class ClosedTick:
    """A tick that is over: its end (milliseconds of event time) and its votes."""

    end: int
    votes: TickVotes


class SourceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How far one source of events was seen."""

    last_offset: int = -1
    max_event_time: int = 0
    """0: it had no event yet, and does not count in the watermark."""
    heard: int = 0
    """What `Ticks.active` was when its last sketch with an event time came."""


class Ticks(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks that are not over, and what decides when they are."""

    tick_ms: int
    sources: Mapping[str, SourceSeen] = {}
    open: Mapping[int, TickVotes] = {}
    """Votes by number of the tick (event time // tick)."""
    active: int = 0
    """For how long the stream was heard: the times between its records, each counted as one tick at most."""
    last_at: int = 0
    """When its last record reached the log."""
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
    ticks: Ticks,
    arrived: Arrived,
    lateness_ms: int,
    labels: Mapping[str, Collection[str]] | None = None,
    *,
    one_row: bool = False,
) -> tuple[Ticks, list[ClosedTick]]:
    """Take in one sketch; returns the ticks that are over now, in order.

    Used is a sketch whose last offset is above those used of its source. One that begins below that can only follow
    a lake that was lost or restored, and is dropped whole (see `Sketch`); one of another tick length says nothing.
    `labels` are the values of categories that are told apart (see `merged`). `one_row`: of a number the first value
    that comes for an entity and tick is its vote, whatever follows.
    """
    sketch = arrived.sketch
    seen = ticks.sources.get(sketch.source, SourceSeen())
    if sketch.last_offset <= seen.last_offset:
        return ticks, []
    overlaps = sketch.first_offset <= seen.last_offset
    active = ticks.active + min(max(arrived.at - ticks.last_at, 0), ticks.tick_ms)
    now = SourceSeen(
        last_offset=sketch.last_offset,
        max_event_time=max(seen.max_event_time, sketch.max_event_time),
        heard=active if sketch.max_event_time else seen.heard,  # what has no time would hold up all others for ever
    )
    ticks = msgspec.structs.replace(
        ticks,
        sources={**ticks.sources, sketch.source: now},
        active=active,
        last_at=max(ticks.last_at, arrived.at),
        out_of_order=ticks.out_of_order + overlaps,
    )
    if sketch.votes and sketch.tick_ms == ticks.tick_ms and not overlaps:
        ticks = _add(ticks, sketch, labels, one_row=one_row)
    return _close(ticks, lateness_ms)


def _add(ticks: Ticks, sketch: Sketch, labels: Mapping[str, Collection[str]] | None, *, one_row: bool) -> Ticks:
    opened, late = dict(ticks.open), ticks.late
    for number, brought in sketch.votes.items():
        if (number + 1) * ticks.tick_ms <= ticks.closed:
            late += int(grid(brought)[0].sum())
            continue
        known = opened.get(number, EMPTY)
        new = _without_known(brought, known) if one_row and known.entities else brought
        opened[number] = merged(number, known, new, labels)
    return msgspec.structs.replace(ticks, open=opened, late=late)


def _without_known(brought: TickVotes, known: TickVotes) -> TickVotes:
    """The votes without the numbers of which there is one already."""
    rows = {entity: row for row, entity in enumerate(known.entities)}
    counts, cells = grid(known)[0], grid(brought).copy()
    both = [(row, rows[entity]) for row, entity in enumerate(brought.entities) if entity in rows]
    for column, name in enumerate(brought.features):
        if name in known.features and name not in {*known.values, *brought.values}:
            before = counts[:, known.features.index(name)]
            cells[:, [row for row, at in both if before[at]], column] = 0.0
    return packed(brought.entities, brought.features, cells, brought.values, brought.kept)


def _close(ticks: Ticks, lateness_ms: int) -> tuple[Ticks, list[ClosedTick]]:
    idle_since = ticks.active - IDLE_TICKS * ticks.tick_ms
    live = [seen.max_event_time for seen in ticks.sources.values() if seen.max_event_time and seen.heard >= idle_since]
    watermark = min(live, default=0) - lateness_ms
    closed = max(ticks.closed, watermark // ticks.tick_ms * ticks.tick_ms)
    if closed == ticks.closed:
        return ticks, []
    over = sorted(number for number in ticks.open if (number + 1) * ticks.tick_ms <= closed)
    left = {number: tick for number, tick in ticks.open.items() if (number + 1) * ticks.tick_ms > closed}
    ended = [ClosedTick((number + 1) * ticks.tick_ms, ticks.open[number]) for number in over]
    return msgspec.structs.replace(ticks, open=left, closed=closed), ended
