"""From rows of the events table to the sketch of their offset range.

A pure function, so that whoever comes later and reads the rows back writes the same sketch.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.events.lake import Span
from tidemill.events.parts import in_parts
from tidemill.events.records import Sketch, Votes
from tidemill.events.sources import Source
from tidemill.events.tallies import Ints, tally
from tidemill.spec.model import ContinualModel, DriftTrigger

__all__ = ["Voting", "sketch", "sketches"]


class Voting:
    """What counts as a vote: the features, the length of a window tick, and how late an event may arrive.

    Without `triggers.drift`, or where it leaves out inputs, nothing is watched, and a sketch tells only how far the
    source was read.
    """

    def __init__(self, resource: ContinualModel) -> None:
        drift = resource.spec.triggers.drift
        watched = drift is not None and "inputs" in drift.watch
        self.numbers: Sequence[str] = resource.watched_features if watched else ()
        self.categories: Sequence[str] = resource.watched_categories if watched else ()
        self.features = (*self.numbers, *self.categories)
        self.tick_ms = to_ms((drift or DriftTrigger()).every)
        self.lateness_ms = to_ms(resource.spec.events.allowed_lateness)


def sketches(voting: Voting, source: Source, span: Span, rows: pl.DataFrame) -> list[Sketch]:
    """The sketch of one span, in parts where it would be too large."""
    return in_parts(partial(sketch, voting, source), span, rows)


def sketch(voting: Voting, source: Source, span: Span, rows: pl.DataFrame) -> Sketch:
    """The sketch of one span; `rows` are the events table's rows of that source and span, in any order."""
    if not rows["offset"].is_sorted():
        rows = rows.sort("offset")
    times = _microseconds(rows["event_time"])
    return Sketch(
        source=str(source),
        first_offset=span.after + 1,
        last_offset=span.upto,
        max_event_time=int(times.max(initial=0)) // 1000,
        tick_ms=voting.tick_ms,
        votes=_tally(voting, rows, times) if voting.features else {},
    )


def _tally(voting: Voting, rows: pl.DataFrame, times: Ints) -> Votes:
    lateness, most = _microseconds(rows["available_at"]) - times, 1000 * voting.lateness_ms
    if lateness.max(initial=0) > most:
        in_time = lateness <= most
        rows, times = rows.filter(pl.Series(in_time)), times[in_time]
    return tally(rows, times // (1000 * voting.tick_ms), numbers=voting.numbers, categories=voting.categories)


def _microseconds(times: pl.Series) -> Ints:
    return times.to_numpy().astype("datetime64[us]", copy=False).view(np.int64)
