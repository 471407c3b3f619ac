"""The drifts that were seen before: what they changed is known by the rows on which the runs that answered them judged.

Each run keeps since when the drift grew that was pending as it began (`SnapshotRecord.since`). The fresh rows of its
snapshot from then on came with the drift, and its own version was not trained on them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import Corrupt, NotFound
from tidemill.training.snapshot import Snapshot, open_snapshot

__all__ = ["FEWEST", "Drifted", "earlier_drifts"]

FEWEST = 30
"""Of fewer rows nothing can be said, as of the groups of a slice."""


class Drifted(NamedTuple):
    """What came with one drift."""

    name: str
    snapshot: Snapshot
    rows: pl.DataFrame
    """Oldest event first."""


def earlier_drifts(folder: Path, taken: Snapshot, columns: Sequence[str]) -> Iterator[Drifted]:
    """The drifts that runs before this one answered, the newest first; of several runs for one drift, the last.

    Args:
        folder: of the model's snapshots.
        taken: of this run.
        columns: what a row must have; a drift of a time in which the resource had other fields is left out, and said.
    """
    found = []
    for path in folder.iterdir():
        try:
            found.append(open_snapshot(folder, path.name))
        except (Corrupt, NotFound):
            continue  # one that was damaged, or is being written, is no evidence
    found.sort(key=lambda one: (one.record.as_of, one.digest), reverse=True)
    played = {None, taken.record.since}
    for one in found:
        since = one.record.since
        if since is None or since in played or one.record.as_of >= taken.record.as_of:
            continue
        played.add(since)
        name = f"the drift since {from_ms(since):%Y-%m-%d %H:%M:%S} UTC"
        try:
            rows = one.frame().filter((pl.col("part") == "fresh") & (pl.col("event_time") >= from_ms(since)))
        except Corrupt as error:
            print(f"{name} is not played again: {error.message}", flush=True)
            continue
        if missing := set(columns) - set(rows.columns):
            print(f"{name} is not played again: its rows have no {', '.join(sorted(missing))}", flush=True)
        elif rows.height < FEWEST:
            print(f"{name} is not played again: {rows.height} rows, {FEWEST} are needed", flush=True)
        else:
            yield Drifted(name, one, rows)
