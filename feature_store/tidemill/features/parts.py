"""Events cut into parts by their entities: so many rows are folded together."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from tidemill.features.partials import Ints

__all__ = ["Part", "by_entities"]

_FOLDED = 4096
"""So many entities at least are folded together: each round costs a few milliseconds, however few it has."""


class Part(NamedTuple):
    """All there are of some entities' events."""

    entities: list[str]
    events: pl.DataFrame
    """Their sources are an Enum."""
    owner: Ints
    """The entity of each event, by its number."""

    def some(self, at: Ints) -> tuple[pl.DataFrame, Ints]:
        """The events at these positions, and the entity of each."""
        if len(at) == len(self.owner) and (at[1:] > at[:-1]).all():  # the usual case: all, as they are
            return self.events, self.owner
        return self.events[at], self.owner[at]


def by_entities(events: pl.DataFrame) -> Iterator[Part]:
    """The events in parts of some thousand entities each; no entity is in two of them."""
    entities = events["entity"].unique(maintain_order=True)
    owner = events["entity"].cast(pl.Enum(entities)).to_physical().to_numpy().astype(np.int64)
    events = events.with_columns(pl.col("source").cast(pl.Enum(events["source"].unique())))
    names = entities.to_list()
    if len(names) < 2 * _FOLDED:
        if names:
            yield Part(names, events, owner)
        return
    bounds = np.linspace(0, len(names), len(names) // _FOLDED + 1).astype(np.int64).tolist()
    for first, end in pairwise(bounds):
        at = np.flatnonzero((owner >= first) & (owner < end))
        yield Part(names[first:end], events[at], owner[at] - first)
