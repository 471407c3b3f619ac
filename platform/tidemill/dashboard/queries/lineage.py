"""What made a version and what it went into, as `tidemill lineage` tells it: run, snapshots, versions, answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.dashboard.queries.versions import VersionRow, lineage_of
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.training.catalogue import all_datasets

__all__ = ["Step", "lineage_steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on the way."""

    way: Literal["made from", "went into"]
    kind: Literal["run", "snapshot", "version", "predictions", "outcomes"]
    id: str
    told: str
    """What is known of it, in words."""
    since: int | None = None
    """Time of the first of several, or of the one; milliseconds since the epoch."""


def lineage_steps(lake: str, folder: Path, model: str, version: str, known: Sequence[VersionRow]) -> tuple[Step, ...]:
    """Both ways from a version, the nearest first.

    Args:
        lake: where its answers are.
        folder: of any version of the model, beside which its snapshots lie.
        model: the model's id.
        version: the version.
        known: the versions of the registry.

    Raises `Unavailable`.
    """
    by_name = {one.version: one for one in known}
    snapshots = {one.digest: one for one in all_datasets(folder) if one.digest}
    back, forth = lineage_of(version, known)
    steps = []
    for name in (version, *back):
        row = by_name.get(name)
        if name != version:
            steps.append(_version("made from", name, row))
        elif row is not None:
            steps.append(Step("made from", "run", name, f"{row.cause}: {row.reason}", row.created_at))
        if row is not None and row.snapshot:
            steps.append(_snapshot(row.snapshot, snapshots.get(row.snapshot)))
    steps += [_version("went into", name, by_name.get(name)) for name in forth]
    return (*steps, *_answers(lake, model, version))


def _version(way: Literal["made from", "went into"], name: str, row: VersionRow | None) -> Step:
    if row is None:
        return Step(way, "version", name, "neither the registry nor the artifacts have it")
    words = "its weights were the beginning" if way == "made from" else "it began with these weights"
    return Step(way, "version", name, f"{row.place}, {words}" if row.place else words, row.created_at)


def _snapshot(digest: str, found: Any) -> Step:
    if found is None:
        return Step("made from", "snapshot", digest, "it is not there any more")
    if found.record is None:
        return Step("made from", "snapshot", digest, found.problem, found.at)
    rows = ", ".join(f"{count:,} rows {part}" for part, count in found.record.rows.items())
    read = f"events {_offsets(found.record.events.offsets)}; labels {_offsets(found.record.labels.offsets)}"
    return Step("made from", "snapshot", digest, f"{rows}; {read}", found.at)


def _offsets(offsets: Mapping[str, Any]) -> str:
    parts = [f"{Source.parse(source).partition} up to {offset:,}" for source, offset in offsets.items()]
    return f"of partition {', '.join(parts)}" if parts else "none"


def _answers(lake: str, model: str, version: str) -> Iterator[Step]:
    mine = pl.col("version") == version
    predictions = LakeTable(table_uri(lake, model, "predictions"))
    if predictions.exists:
        at = pl.col("predicted_at")
        rows = predictions.scan().filter(mine).select(pl.len(), at.min().alias("first"), at.max().alias("last"))
        count, first, last = predictions.collect(rows).row(0)
        if count:
            hours = (last - first).total_seconds() / 3600
            yield Step("went into", "predictions", f"{count:,}", f"within {hours:,.1f} hours", to_ms(first))
    outcomes = LakeTable(table_uri(lake, model, "outcomes"))
    if outcomes.exists:
        rows = outcomes.scan().filter(mine, pl.col("revision") == 0).select(pl.len(), pl.col("loss").mean())
        count, loss = outcomes.collect(rows).row(0)
        if count:
            told = "none is labelled yet" if loss is None else f"mean loss {loss:.4f} of those with a label"
            yield Step("went into", "outcomes", f"{count:,}", told)
