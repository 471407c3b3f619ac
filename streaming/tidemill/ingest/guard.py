"""When most of a source is bad, the schema is wrong and not the events: reading stops before all is quarantined."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from tidemill.events.records import Quarantined
from tidemill.events.sources import Source
from tidemill.ingest.batch import Batch

__all__ = ["NEWEST", "Guard", "Stop"]

NEWEST = 200
"""Records that a share is taken of, at least: a few bad ones never stop a source."""


@dataclass(frozen=True)
class Stop:
    """Why a source is stopped: the share of bad ones among its newest records, and the reason most often given."""

    share: float
    of: int
    reason: str


class Guard:
    """Judges each batch with what came before it. Replays do not count: they say nothing about what is sent now.

    Args:
        stop_above: share of bad records above which a source is stopped (`events.quarantine.stopAbove`).
    """

    def __init__(self, stop_above: float) -> None:
        self._stop_above = stop_above
        self._taken: dict[Source, deque[tuple[int, int]]] = {}

    def judge(self, batch: Batch) -> dict[Source, Stop]:
        """The sources of a batch that are mostly bad: at least its own records count, and at least `NEWEST`."""
        stops = {}
        for source, (total, bad) in _counts(batch).items():
            of, share = self._share(source, total, bad)
            if of >= NEWEST and share > self._stop_above:
                stops[source] = Stop(share, of, _most_common(_of(batch, source)))
        return stops

    def took(self, batch: Batch) -> None:
        """Remember a batch that had its effects."""
        for source, counted in _counts(batch).items():
            taken = self._taken.setdefault(source, deque())
            taken.append(counted)
            while sum(total for total, _ in taken) - taken[0][0] >= NEWEST:
                taken.popleft()

    def _share(self, source: Source, total: int, bad: float) -> tuple[int, float]:
        for earlier, earlier_bad in reversed(self._taken.get(source, ())):
            if total >= NEWEST:
                break
            wanted = min(earlier, NEWEST - total)
            total, bad = total + wanted, bad + earlier_bad * wanted / earlier
        return total, bad / total


def _counts(batch: Batch) -> Mapping[Source, tuple[int, int]]:
    """Records and bad ones by source; sources without records are left out."""
    good = dict(batch.events.filter(pl.col("origin").is_null())["source"].value_counts().iter_rows())
    counts = {source: (good.get(str(source), 0), len(_of(batch, source))) for source in batch.upto}
    return {source: (well + bad, bad) for source, (well, bad) in counts.items() if well + bad}


def _of(batch: Batch, source: Source) -> list[Quarantined]:
    return [record for record in batch.quarantined if record.source == str(source) and record.origin is None]


def _most_common(records: list[Quarantined]) -> str:
    said = Counter(f"{record.field}: {record.reason}" if record.field else record.reason for record in records)
    return said.most_common(1)[0][0]
