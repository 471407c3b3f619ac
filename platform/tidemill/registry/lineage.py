"""From any id of a model, what made it and what it went into: read of the registry, the artifacts and the lake.

The ways themselves are `tidemill.registry.trace`. The command line and the dashboard tell them by this.
"""

import difflib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.artifacts import Manifest, manifest_of, version_folders
from tidemill.core.clock import from_ms
from tidemill.core.errors import Corrupt, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.registry.protocol import CLEARED_TAG, RegisteredVersion, Registry
from tidemill.registry.trace import (
    Fact,
    Trace,
    VersionKnown,
    of_event,
    of_prediction,
    of_snapshot,
    of_version,
)
from tidemill.training.catalogue import all_datasets, the_one
from tidemill.training.snapshot import snapshots_folder

__all__ = ["Lineage"]

_SHORTEST = 6
"""Characters of a digest by which a snapshot is meant, and no event."""
_PREDICTIONS = 20
"""Predictions of one event that are named."""


class Lineage:
    """What there is of one model. Decisions are in its status.

    Args:
        lake: folder or URI of the lake.
        folder: of any version of the model, beside which its snapshots lie; it need not be there.
        registry: its versions.
        model: its id.
    """

    def __init__(self, lake: str, folder: Path, registry: Registry, model: str) -> None:
        self._lake, self._folder, self._registry, self._model = lake, folder, registry, model

    def of(self, identity: str) -> Trace:
        """The trace of an id, of whichever kind it is.

        Raises `NotFound` with near ones, `InvalidInput` for the beginning of several digests, `Unavailable`.
        """
        kinds: dict[str, Callable[[str], Trace | None]] = {
            "version": self.of_version,
            "snapshot": self._of_snapshot,
            "prediction": self._of_prediction,
            "event": self._of_event,
        }
        for look in kinds.values():
            if (found := look(identity)) is not None:
                return found
        near = difflib.get_close_matches(identity, [*self._versions, *self._snapshots], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`tidemill dataset list` shows snapshots and versions"
        raise NotFound(f"{self._model} has no {', '.join(kinds)} {identity!r}", hint=hint)

    def of_version(self, version: str) -> Trace | None:
        """The trace of a version; None of one that nobody knows. Raises `Unavailable`."""
        versions = self._versions
        if version not in versions:
            return None
        return of_version(versions, self._snapshots, version, self._answers(version))

    def _of_snapshot(self, identity: str) -> Trace | None:
        # The id of an event may look like the beginning of a digest where it is short.
        long_enough = len(identity) >= _SHORTEST
        digest = the_one(identity, {one: one for one in self._snapshots}) if long_enough else None
        return None if digest is None else of_snapshot(self._versions, self._snapshots, digest)

    def _of_prediction(self, identity: str) -> Trace | None:
        found = self._rows("predictions", pl.col("prediction_id") == identity)
        if found.is_empty():
            return None
        row = found.row(0, named=True)
        same = (pl.col("entity").cast(pl.String) == row["entity"]) & (pl.col("event_id") == row["event_id"])
        event = [] if row["event_id"] is None else self._events(same)
        mine = pl.col("prediction_id") == identity
        after = [_label(one) for one in self._rows("labels", mine).iter_rows(named=True)]
        after += [_outcome(one) for one in self._rows("outcomes", mine).sort("revision").iter_rows(named=True)]
        return of_prediction(self._versions, self._snapshots, _prediction(row), event, after)

    def _of_event(self, identity: str) -> Trace | None:
        source, _, offset = identity.rpartition("@")
        wanted = pl.col("event_id") == identity
        if source and offset.isdecimal():  # the id of an event may look like a place in the log
            wanted |= (pl.col("source") == source) & (pl.col("offset") == int(offset))
        found = self._events(wanted)
        if not found:
            return None
        event = found[-1]
        entity, event_id = str(event.told["entity"]), event.told["event_id"]
        same = (pl.col("entity").cast(pl.String) == entity) & (pl.col("event_id") == event_id)
        labels = [_label(row) for row in self._rows("labels", same).iter_rows(named=True)]
        predictions = self._rows("predictions", same).head(_PREDICTIONS)
        return of_event(
            self._versions,
            event,
            labels,
            self._held(entity, event_id),
            [_prediction(row) for row in predictions.iter_rows(named=True)],
        )

    def _held(self, entity: str, event_id: str) -> dict[str, str]:
        """The part of the event in each snapshot that has it."""
        found: dict[str, str] = {}
        for file in sorted(snapshots_folder(self._folder).glob("*/rows.parquet")):
            rows = pl.scan_parquet(file).filter((pl.col("entity") == entity) & (pl.col("event_id") == event_id))
            for (part,) in rows.select("part").head(1).collect().iter_rows():
                found[file.parent.name] = part
        return found

    def _events(self, where: pl.Expr) -> list[Fact]:
        columns = ["source", "offset", "entity", "event_id", "event_time", "available_at"]
        rows = self._rows("events", where, columns).sort("available_at", "source", "offset")
        return [
            Fact(kind="event", id=f"{row['source']}@{row['offset']}", told={name: row[name] for name in columns[2:]})
            for row in rows.iter_rows(named=True)
        ]

    def _answers(self, version: str) -> list[Fact]:
        """A version's predictions and outcomes, counted."""
        mine, told, at = pl.col("version") == version, [], pl.col("predicted_at")
        made = self._counted("predictions", mine, first=at.min(), last=at.max())
        if made:
            told.append(Fact(kind="prediction", id=f"of {version}", told=made))
        judged = self._counted("outcomes", mine & (pl.col("revision") == 0), mean_loss=pl.col("loss").mean())
        if judged:
            told.append(Fact(kind="outcome", id=f"of {version}", told=judged))
        return told

    def _counted(self, name: str, where: pl.Expr, **figures: pl.Expr) -> dict[str, Any]:
        """How many rows of a table there are, and figures of them; nothing without any."""
        table = LakeTable(table_uri(self._lake, self._model, name))
        if not table.exists:
            return {}
        found = table.collect(table.scan().filter(where).select(pl.len().alias("count"), **figures))
        row = found.row(0, named=True)
        return row if row["count"] else {}

    def _rows(self, name: str, where: pl.Expr, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Rows of a table of the lake; none where it is not there."""
        table = LakeTable(table_uri(self._lake, self._model, name))
        if not table.exists:
            return pl.DataFrame(schema=dict.fromkeys(columns or ["revision"], pl.String))
        rows = table.scan().filter(where)
        return table.collect(rows if columns is None else rows.select(columns))

    @cached_property
    def _versions(self) -> dict[str, VersionKnown]:
        """By name: those that lie with the artifacts, and those that only the registry still knows."""
        registered = {one.version: one for one in self._registry.versions(self._model)}
        aliases = {version: str(alias) for alias, version in self._registry.aliases(self._model).items()}
        found = {name: _cleared(one) for name, one in registered.items() if CLEARED_TAG in one.tags}
        for folder in version_folders(self._folder.parent):
            try:
                manifest = manifest_of(folder)
            except Corrupt:
                continue  # those who load it are told
            name = manifest.version
            found[name] = _lying(manifest, registered.get(name), aliases.get(name, ""))
        return found

    @cached_property
    def _snapshots(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for one in all_datasets(self._folder):
            if not one.digest:
                continue
            record = one.record
            told: dict[str, Any] = {"frozen_as": ", ".join(one.names), "problem": one.problem}
            if one.at:
                told["at"] = _iso(from_ms(one.at))
            if record is not None:
                told |= {"rows": record.rows, "events": record.events.offsets, "labels": record.labels.offsets}
                told |= {"delta_version": record.events.delta_version, "query": record.query}
            found[one.digest] = told
        return found


def _lying(manifest: Manifest, entry: RegisteredVersion | None, alias: str) -> VersionKnown:
    """A version by its manifest, with what the registry tells of it."""
    said = _said(entry)
    return VersionKnown(
        version=manifest.version,
        snapshot=manifest.snapshot,
        warm_from=manifest.warm_from,
        run=_run(said) | {"at": manifest.created_at},
        told={"alias": alias, "registered": entry is not None, "code": _code(said), "at": manifest.created_at},
    )


def _cleared(entry: RegisteredVersion) -> VersionKnown:
    """A version whose files are gone."""
    said, at = _said(entry), _iso(from_ms(entry.created_at))
    return VersionKnown(
        version=entry.version,
        snapshot=said.get("snapshot", ""),
        warm_from=said.get("warm_from", ""),
        run=_run(said),
        told={"registered": True, "files gone": said["cleared"], "code": _code(said), "at": at},
    )


def _run(said: dict[str, str]) -> dict[str, Any]:
    return {key: said[key] for key in ("cause", "reason") if key in said}


def _code(said: dict[str, str]) -> str:
    return said.get("code.commit") or said.get("code.digest", "")[:12]


def _said(entry: RegisteredVersion | None) -> dict[str, str]:
    """A version's tags, without our prefix."""
    return {key.removeprefix("tidemill."): text for key, text in (entry.tags if entry else {}).items()}


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _prediction(row: dict[str, Any]) -> Fact:
    told = {name: row[name] for name in ("version", "entity", "event_id", "predicted_at", "output", "features")}
    return Fact(kind="prediction", id=row["prediction_id"], told=told)


def _label(row: dict[str, Any]) -> Fact:
    told = {name: row[name] for name in ("value", "labeller", "available_at", "source", "offset")}
    return Fact(kind="label", id=row["label_id"], told=told)


def _outcome(row: dict[str, Any]) -> Fact:
    told = {name: row[name] for name in ("label", "loss", "assumed", "disputed")}
    return Fact(kind="outcome", id=f"{row['prediction_id']}/{row['revision']}", told=told)
