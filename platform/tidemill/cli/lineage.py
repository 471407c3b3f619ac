"""The command lineage: from any id, what made it and what it went into."""

import difflib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tidemill.cli.output import Output, OutputOption, emit, table
from tidemill.core.errors import Corrupt, NotFound

if TYPE_CHECKING:
    import polars as pl

    from tidemill.artifacts import Manifest
    from tidemill.registry import RegisteredVersion
    from tidemill.retrain.trace import Fact, Trace, VersionKnown
    from tidemill.spec.model import ContinualModel
    from tidemill.wiring import Local

__all__ = ["register"]

_LONGEST = 100
_SHORTEST = 6
"""Characters of a digest by which a snapshot is meant, and no event."""
_PREDICTIONS = 20
"""Predictions of one event that are named."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(lineage)


def lineage(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A version, the beginning of a snapshot's digest, an event's id or "
            "its source@offset, or a prediction's id.",
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """What made a thing, and what it went into: events, snapshots, runs, versions, predictions, outcomes."""
    from tidemill.cli.models import find
    from tidemill.wiring import local

    machine = local()
    known = _Known(machine, find(machine, name).resource)
    found = known.trace(identity)
    rows = [
        ("", found.subject),
        *(("made from", one) for one in found.back),
        *(("went into", one) for one in found.forth),
    ]
    emit(found, output, table(("", "kind", "id", "known of it"), [_row(where, one) for where, one in rows]))


def _row(where: str, fact: "Fact") -> tuple[str, str, str, str]:
    told = "  ".join(f"{name}={value}" for name, value in fact.told.items() if value not in (None, "", {}, []))
    short = told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…"
    return where, fact.kind, escape(fact.id[:40]), escape(short)


class _Known:
    """What there is of one model: its registry, its artifacts, its lake. Decisions are in `describe`."""

    def __init__(self, machine: "Local", resource: "ContinualModel") -> None:
        from tidemill.artifacts import artifact_root, artifact_uri, local_folder

        self._machine, self._resource = machine, resource
        self._folder: Path = local_folder(artifact_uri(artifact_root(resource, machine.settings), resource, "any"))

    def trace(self, identity: str) -> "Trace":
        """The trace of an id, of whichever kind it is. Raises `NotFound` with near ones, `InvalidInput` for several."""
        kinds: dict[str, Callable[[str], Trace | None]] = {
            "version": self._of_version,
            "snapshot": self._of_snapshot,
            "prediction": self._of_prediction,
            "event": self._of_event,
        }
        for look in kinds.values():
            if (found := look(identity)) is not None:
                return found
        near = difflib.get_close_matches(identity, [*self._versions, *self._snapshots], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`tidemill dataset list` shows snapshots and versions"
        raise NotFound(f"{self._resource.id} has no {', '.join(kinds)} {identity!r}", hint=hint)

    def _of_version(self, identity: str) -> "Trace | None":
        from tidemill.retrain.trace import of_version

        versions = self._versions
        if identity not in versions:
            return None
        return of_version(versions, self._snapshots, identity, self._answers(identity))

    def _of_snapshot(self, identity: str) -> "Trace | None":
        from tidemill.retrain.trace import of_snapshot
        from tidemill.training.catalogue import the_one

        # The id of an event may look like the beginning of a digest where it is short.
        long_enough = len(identity) >= _SHORTEST
        digest = the_one(identity, {one: one for one in self._snapshots}) if long_enough else None
        return None if digest is None else of_snapshot(self._versions, self._snapshots, digest)

    def _of_prediction(self, identity: str) -> "Trace | None":
        import polars as pl

        from tidemill.retrain.trace import of_prediction

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

    def _of_event(self, identity: str) -> "Trace | None":
        import polars as pl

        from tidemill.retrain.trace import of_event

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
        import polars as pl

        from tidemill.training.snapshot import snapshots_folder

        found: dict[str, str] = {}
        for file in sorted(snapshots_folder(self._folder).glob("*/rows.parquet")):
            rows = pl.scan_parquet(file).filter((pl.col("entity") == entity) & (pl.col("event_id") == event_id))
            for (part,) in rows.select("part").head(1).collect().iter_rows():
                found[file.parent.name] = part
        return found

    def _events(self, where: "pl.Expr") -> "list[Fact]":
        from tidemill.retrain.trace import Fact

        columns = ["source", "offset", "entity", "event_id", "event_time", "available_at"]
        rows = self._rows("events", where, columns).sort("available_at", "source", "offset")
        return [
            Fact(kind="event", id=f"{row['source']}@{row['offset']}", told={name: row[name] for name in columns[2:]})
            for row in rows.iter_rows(named=True)
        ]

    def _answers(self, version: str) -> "list[Fact]":
        """A version's predictions and outcomes, counted."""
        import polars as pl

        from tidemill.retrain.trace import Fact

        mine, told = pl.col("version") == version, []
        made = self._rows("predictions", mine, ["predicted_at"])
        if made.height:
            span = {"count": made.height, "first": made["predicted_at"].min(), "last": made["predicted_at"].max()}
            told.append(Fact(kind="prediction", id=f"of {version}", told=span))
        judged = self._rows("outcomes", mine & (pl.col("revision") == 0), ["loss"])
        if judged.height:
            figures = {"count": judged.height, "mean_loss": judged["loss"].mean()}
            told.append(Fact(kind="outcome", id=f"of {version}", told=figures))
        return told

    def _rows(self, name: str, where: "pl.Expr", columns: list[str] | None = None) -> "pl.DataFrame":
        """Rows of a table of the lake; none where it is not there."""
        import polars as pl

        from tidemill.events.lake import LakeTable, table_uri

        table = LakeTable(table_uri(self._machine.settings.lake_uri, self._resource.id, name))
        if not table.exists:
            return pl.DataFrame(schema=dict.fromkeys(columns or ["revision"], pl.String))
        rows = table.scan().filter(where)
        return (rows if columns is None else rows.select(columns)).collect()

    @cached_property
    def _versions(self) -> "dict[str, VersionKnown]":
        """By name: those that lie with the artifacts, and those that only the registry still knows."""
        from tidemill.artifacts import manifest_of, version_folders
        from tidemill.registry import CLEARED_TAG

        model = self._resource.id
        registered = {one.version: one for one in self._machine.registry.versions(model)}
        aliases = {version: alias for alias, version in self._machine.registry.aliases(model).items()}
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
        from tidemill.training.catalogue import all_datasets

        found: dict[str, dict[str, Any]] = {}
        for one in all_datasets(self._folder):
            if not one.digest:
                continue
            record = one.record
            told: dict[str, Any] = {"frozen_as": ", ".join(one.names), "problem": one.problem}
            if record is not None:
                told |= {"rows": record.rows, "events": record.events.offsets, "labels": record.labels.offsets}
                told |= {"delta_version": record.events.delta_version, "query": record.query}
            found[one.digest] = told
        return found


def _lying(manifest: "Manifest", entry: "RegisteredVersion | None", alias: str) -> "VersionKnown":
    """A version by its manifest, with what the registry tells of it."""
    from tidemill.retrain.trace import VersionKnown

    said = _said(entry)
    return VersionKnown(
        version=manifest.version,
        snapshot=manifest.snapshot,
        warm_from=manifest.warm_from,
        run=_run(said) | {"at": manifest.created_at},
        told={"alias": alias, "registered": entry is not None, "code": _code(said)},
    )


def _cleared(entry: "RegisteredVersion") -> "VersionKnown":
    """A version whose files are gone."""
    from tidemill.retrain.trace import VersionKnown

    said = _said(entry)
    return VersionKnown(
        version=entry.version,
        snapshot=said.get("snapshot", ""),
        warm_from=said.get("warm_from", ""),
        run=_run(said),
        told={"registered": True, "files gone": said["cleared"], "code": _code(said)},
    )


def _run(said: dict[str, str]) -> dict[str, Any]:
    return {key: said[key] for key in ("cause", "reason") if key in said}


def _code(said: dict[str, str]) -> str:
    return said.get("code.commit") or said.get("code.digest", "")[:12]


def _said(entry: "RegisteredVersion | None") -> dict[str, str]:
    """A version's tags, without our prefix."""
    return {key.removeprefix("tidemill."): text for key, text in (entry.tags if entry else {}).items()}


def _prediction(row: dict[str, Any]) -> "Fact":
    from tidemill.retrain.trace import Fact

    told = {name: row[name] for name in ("version", "entity", "event_id", "predicted_at", "output", "features")}
    return Fact(kind="prediction", id=row["prediction_id"], told=told)


def _label(row: dict[str, Any]) -> "Fact":
    from tidemill.retrain.trace import Fact

    told = {name: row[name] for name in ("value", "labeller", "available_at", "source", "offset")}
    return Fact(kind="label", id=row["label_id"], told=told)


def _outcome(row: dict[str, Any]) -> "Fact":
    from tidemill.retrain.trace import Fact

    told = {name: row[name] for name in ("label", "loss", "assumed", "disputed")}
    return Fact(kind="outcome", id=f"{row['prediction_id']}/{row['revision']}", told=told)
