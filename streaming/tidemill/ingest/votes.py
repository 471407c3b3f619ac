"""From rows of the events table to the sketch of their offset range.

A pure function, so that whoever comes later and reads the rows back writes the same sketch.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from tidemill.events.lake import Span
from tidemill.events.records import FeatureSketch, Sketch
from tidemill.events.sources import Source
from tidemill.spec.model import ContinualModel, DriftTrigger

__all__ = ["Voting", "sketch"]

Votes = dict[int, dict[str, dict[str, FeatureSketch]]]


class Voting:
    """What counts as a vote: the features, the length of a window tick, and how late an event may arrive."""

    def __init__(self, resource: ContinualModel) -> None:
        drift = resource.spec.triggers.drift or DriftTrigger()
        self.features: Sequence[str] = resource.watched_features
        self.tick_ms = _ms(drift.every)
        self.lateness_ms = _ms(resource.spec.events.allowed_lateness)


def sketch(voting: Voting, source: Source, span: Span, rows: pl.DataFrame) -> Sketch:
    """The sketch of one span; `rows` are the events table's rows of that source and span, in any order."""
    frame = rows.sort("offset").select(
        pl.col("event_time").dt.epoch("ms"),
        pl.col("available_at").dt.epoch("ms"),
        "entity",
        *voting.features,
    )
    votes: dict[int, dict[str, list[list[float]]]] = {}
    latest = 0
    # A plain loop in offset order: parallel sums would add up in another order each time.
    for event_time, available_at, entity, *values in frame.iter_rows():
        latest = max(latest, event_time)
        if available_at - event_time > voting.lateness_ms:
            continue
        cell = votes.setdefault(event_time // voting.tick_ms, {}).get(entity)
        if cell is None:
            cell = votes[event_time // voting.tick_ms][entity] = [[0, 0.0, 0] for _ in voting.features]
        for sums, value in zip(cell, values, strict=True):
            if value is None:
                sums[2] += 1
            else:
                sums[0] += 1
                sums[1] += value
    return Sketch(
        source=str(source),
        first_offset=span.after + 1,
        last_offset=span.upto,
        max_event_time=latest,
        tick_ms=voting.tick_ms,
        votes=_named(votes, voting.features),
    )


def _named(votes: dict[int, dict[str, list[list[float]]]], features: Sequence[str]) -> Votes:
    return {
        tick: {
            entity: {
                name: FeatureSketch(count=int(count), total=total, missing=int(missing))
                for name, (count, total, missing) in zip(features, cell, strict=True)
            }
            for entity, cell in entities.items()
        }
        for tick, entities in votes.items()
    }


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
