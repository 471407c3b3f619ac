"""The command dataset: what versions learnt from, how two datasets differ, and rows that stay under a name."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType
from rich.markup import escape

from tidemill.cli.output import Output, OutputOption, emit, table

if TYPE_CHECKING:
    import polars as pl

    from tidemill.control.protocols import StoredModel
    from tidemill.spec.model import ContinualModel
    from tidemill.training.catalogue import Dataset
    from tidemill.training.compare import Comparison, Shift
    from tidemill.training.snapshot import Snapshot, SnapshotRecord
    from tidemill.wiring import Local

__all__ = ["digest_of", "register"]

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
_WHICH = "Name of a frozen dataset or digest; its beginning is enough."

_PARTS = ("new", "replay", "fresh")
_ENTITIES = 10
"""Entities that `show` names, the largest."""
_CHANGES = 10
"""Changed labels that `diff` names, in a table for people."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="See what versions learnt from, compare it, or freeze rows of it.")
    group.command("list")(list_datasets)
    group.command()(show)
    group.command()(diff)
    group.command()(freeze)
    app.add_typer(group, name="dataset")


def list_datasets(name: Name, output: OutputOption = Output.TABLE) -> None:
    """Snapshots and frozen datasets, the newest first, and which versions were trained on each."""
    from tidemill.training.catalogue import SHORT, all_datasets

    machine, stored = _found(name)
    found = all_datasets(_folder(machine, stored.resource))
    columns = ("dataset", "when", *_PARTS, "frozen as", "versions")
    rows = [
        (one.digest[:SHORT], _when(one.at), *_counts(one), ", ".join(one.names), ", ".join(one.trained))
        for one in found
    ]
    damaged = [
        escape(f"{one.digest[:SHORT] or one.names[0]} cannot be read: {one.problem}") for one in found if one.problem
    ]
    none = "no dataset yet: a run takes the first snapshot"
    emit(found, output, table(columns, rows) if rows else none, *damaged)


def show(name: Name, dataset: Annotated[str, typer.Argument(help=_WHICH)], output: OutputOption = Output.TABLE) -> None:
    """One dataset: its rows by part, class and entity, their time, and where they came from."""
    from tidemill.training.catalogue import all_datasets, find_dataset
    from tidemill.training.checks import truth_of

    machine, stored = _found(name)
    folder = _folder(machine, stored.resource)
    taken = find_dataset(folder, dataset)
    frame = taken.frame()
    of = next((one for one in all_datasets(folder) if one.digest == taken.digest), None)
    truth = truth_of(frame, stored.resource)
    classes = None if truth.dtype.is_numeric() else _by(frame.with_columns(truth), "truth")
    entities = _by(frame, "entity")
    data = {
        "digest": taken.digest,
        "names": of.names if of else (),
        "versions": of.trained if of else (),
        "record": taken.record,
        "since": None if frame.is_empty() else frame["event_time"][0],
        "until": None if frame.is_empty() else frame["event_time"][-1],
        "classes": classes,
        "label_mean": truth.mean() if classes is None else None,
        "entities": entities,
    }
    span = "no rows" if frame.is_empty() else f"{_time(frame['event_time'][0])} to {_time(frame['event_time'][-1])}"
    origin = [("dataset", taken.digest), *_known_as(of), ("events of", span), *_origin(taken.record)]
    parts: list[RenderableType] = [table(("", ""), [row for row in origin if row[1] not in {None, ""}])]
    if classes is None:
        parts += [f"\nlabels: mean {_figure(data['label_mean'])}, standard deviation {_figure(truth.std())}"]
    else:
        parts += ["", _table_by("class", classes)]
    parts += ["", _table_by("entity", entities[:_ENTITIES])]
    if len(entities) > _ENTITIES:
        parts.append(f"… and {len(entities) - _ENTITIES:,} more entities")
    emit(data, output, *parts)


def diff(
    name: Name,
    before: Annotated[str, typer.Argument(help=_WHICH)],
    after: Annotated[str, typer.Argument(help="The other one.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """How two datasets differ: rows of one alone, changed labels, and how far inputs and classes moved."""
    from tidemill.training.catalogue import SHORT, find_dataset
    from tidemill.training.checks import truth_of
    from tidemill.training.compare import compare

    machine, stored = _found(name)
    resource = stored.resource
    one, other = (find_dataset(_folder(machine, resource), text) for text in (before, after))
    frames = one.frame(), other.frame()
    found = compare(
        *frames, _inputs(resource, one, other), (truth_of(frames[0], resource), truth_of(frames[1], resource))
    )
    head = f"{one.digest[:SHORT]} → {other.digest[:SHORT]}"
    emit({"before": one.digest, "after": other.digest, "differences": found}, output, head, *_told(found))


def freeze(
    name: Name,
    frozen: Annotated[str, typer.Argument(metavar="NAME", help="The name; it never comes to mean other rows.")],
    snapshot: Annotated[str | None, typer.Option(help="Of which dataset; else the one of the champion.")] = None,
    part: Annotated[Literal["fresh", "new", "replay", "all"], typer.Option(help="Rows of this part.")] = "fresh",
    since: Annotated[datetime | None, typer.Option(help="Only events of this time (UTC) or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only events before this time (UTC).")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="Only so many of each class, the newest.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Keep rows of a snapshot under a name, for gates to compare versions on and for runs to learn from."""
    from tidemill.cli.asking import person
    from tidemill.training.catalogue import SHORT, find_dataset
    from tidemill.training.checks import truth_of
    from tidemill.training.choose import Choice, choose
    from tidemill.training.frozen import freeze as keep
    from tidemill.training.frozen import frozen_folder

    machine, stored = _found(name)
    resource, folder = stored.resource, _folder(machine, stored.resource)
    source = _champion_dataset(stored, folder) if snapshot is None else find_dataset(folder, snapshot)
    choice, frame = Choice(part, _utc(since), _utc(until), rows, per_class), source.frame()
    chosen = choose(frame, truth_of(frame, resource), choice)
    said = keep(frozen_folder(folder), frozen, source, chosen, query=str(choice), by=person(), now=machine.clock.now())
    lines = [f"{said.name}: {said.rows:,} rows of {said.of[:SHORT]} ({said.query}), dataset {said.digest[:SHORT]}"]
    trained = _trained_on(chosen, source, stored, folder)
    if trained:
        lines.append(f"{' and '.join(trained)}: there those versions look too good")
    gate = resource.spec.gates.frozen
    if gate is not None and gate.dataset == said.name:
        lines.append("spec.gates.frozen names it: the next run is judged on it")
    else:
        lines.append(f"to judge versions on it: spec.gates.frozen: {{dataset: {said.name}}}")
    emit({"frozen": said, "trained_on": trained}, output, *map(escape, lines))


def digest_of(name: str, dataset: str) -> str:
    """The digest of a model's dataset, by its frozen name or the beginning of its digest."""
    from tidemill.training.catalogue import find_dataset

    machine, stored = _found(name)
    return find_dataset(_folder(machine, stored.resource), dataset).digest


def _found(name: str) -> "tuple[Local, StoredModel]":
    from tidemill.cli.models import find
    from tidemill.wiring import local

    machine = local()
    return machine, find(machine, name)


def _folder(machine: "Local", resource: "ContinualModel") -> Path:
    """Of a version that need not be there; datasets lie beside it."""
    from tidemill.artifacts import artifact_root, artifact_uri, local_folder

    return local_folder(artifact_uri(artifact_root(resource, machine.settings), resource, "none"))


def _champion_dataset(stored: "StoredModel", folder: Path) -> "Snapshot":
    from tidemill.artifacts import local_folder, verify
    from tidemill.cli.models import known_status
    from tidemill.core.errors import NotFound
    from tidemill.training.frozen import find_snapshot

    status = known_status(stored)
    if status is None or status.champion is None:
        hint = "`tidemill dataset list` shows what there is; name one with --snapshot"
        raise NotFound(f"{stored.resource.id} has no champion whose snapshot could be taken", hint=hint)
    return find_snapshot(folder, verify(local_folder(status.champion.artifact)).snapshot)


def _trained_on(chosen: "pl.DataFrame", source: "Snapshot", stored: "StoredModel", folder: Path) -> list[str]:
    """Who was trained on how many of the chosen rows, in words: fresh rows of old are learnt from by later runs."""
    from tidemill.core.errors import Permanent
    from tidemill.training.catalogue import SHORT
    from tidemill.training.dataset import KEY

    whose = {f"versions of {source.digest[:SHORT]} were": chosen.filter(chosen["part"] != "fresh").height}
    try:
        champion = _champion_dataset(stored, folder)
        rows = champion.frame()
    except Permanent:  # none, gone or damaged: that is for others to tell
        champion = source
    if champion.digest != source.digest:
        learnt = rows.filter(rows["part"] != "fresh").select(KEY)
        whose["the champion was"] = chosen.join(learnt, on=KEY, how="semi").height
    return [f"{who} trained on {count:,} of them" for who, count in whose.items() if count]


def _inputs(resource: "ContinualModel", one: "Snapshot", other: "Snapshot") -> list[str]:
    """What a model sees of a row, but the picture itself."""
    image = resource.image_field
    fields = [field.name for field in resource.spec.events.fields if field is not image]
    services = dict.fromkeys((*one.record.service, *other.record.service))
    return [*fields, *resource.spec.features.image, *resource.spec.features.window_names, *services]


def _counts(one: "Dataset") -> list[str]:
    if one.record is None:
        return ["?"] * len(_PARTS)
    return [f"{one.record.rows.get(part, 0):,}" for part in _PARTS]


def _by(frame: "pl.DataFrame", column: str) -> list[dict[str, object]]:
    """Rows by a column's value, and of each by part; the most first."""
    import polars as pl

    parts = [(pl.col("part") == part).sum().alias(part) for part in _PARTS]
    counted = frame.group_by(pl.col(column).alias("name")).agg(pl.len().alias("rows"), *parts)
    return counted.sort("rows", "name", descending=[True, False]).to_dicts()


def _table_by(what: str, counts: Sequence[dict[str, object]]) -> RenderableType:
    cells = [[one["name"], *(f"{one[part]:,}" for part in ("rows", *_PARTS))] for one in counts]
    return table((what, "rows", *_PARTS), cells)


def _known_as(one: "Dataset | None") -> list[tuple[str, object]]:
    """Its names with when and by whom they were given, and its versions."""
    if one is None:
        return []
    names = ", ".join(f"{said.name} (by {said.by}, {_when(said.frozen_at)})" for said in one.frozen)
    return [("frozen as", names), ("versions", ", ".join(one.trained))]


def _origin(record: "SnapshotRecord") -> list[tuple[str, object]]:
    """Where the rows came from, for people."""
    rows = [(f"rows {part}", f"{count:,}") for part, count in record.rows.items()]
    read = [("events", record.events), ("labels", record.labels), ("predictions", record.predictions)]
    tables: list[tuple[str, object]] = []
    for name, one in read:
        if one is not None:
            ends = ", ".join(f"{source} to {last}" for source, last in one.offsets.items())
            tables.append((name, f"Delta version {one.delta_version} of {one.uri}: {ends}"))
    since = None if record.since is None else _when(record.since)
    return [
        *rows,
        ("taken", _when(record.as_of)),
        ("query", record.query),
        ("maturity", f"{record.maturity_ms / 1000:g} s"),
        *tables,
        ("new since dataset", record.known or "the beginning"),
        ("drift since", since),
        ("seed", record.seed),
        ("invalid labels", record.invalid_labels),
        ("disputed", record.disputed),
        ("held out for", record.frozen and f"{record.frozen}: {record.held_out:,} rows"),
    ]


def _told(found: "Comparison") -> list[RenderableType]:
    """The differences, for people."""
    told: list[RenderableType] = [
        f"{found.rows_before:,} → {found.rows_after:,} rows: {found.both:,} in both, "
        f"{found.only_before:,} only before, {found.only_after:,} only after",
        f"{len(found.relabelled):,} labels changed",
    ]
    told += [
        escape(f"  {one.entity} {one.event_id}: {one.before} → {one.after}") for one in found.relabelled[:_CHANGES]
    ]
    if found.classes:
        cells = [
            (one.name, f"{one.rows_before:,}", f"{one.rows_after:,}", f"{one.share_after - one.share_before:+.1%}")
            for one in found.classes
        ]
        told += ["", table(("class", "before", "after", "share moved by"), cells)]
    shifts = found.shifts if found.classes else (found.truth, *found.shifts)
    if shifts:
        columns = ("input", "distance", "mean before", "mean after", "missing before", "missing after")
        told += ["", table(columns, [_shift_cells(one) for one in shifts])]
        told.append("distance: 0 alike to 1; of numbers by cumulative shares, else by shares")
    if found.missing_inputs:
        told.append(escape(f"not in both, or of another type: {', '.join(found.missing_inputs)}"))
    return told


def _shift_cells(one: "Shift") -> list[str]:
    missing = [f"{share:.1%}" for share in (one.missing_before, one.missing_after)]
    apart = "no values" if one.distance is None else f"{one.distance:.3f}"
    return [one.name, apart, _figure(one.mean_before), _figure(one.mean_after), *missing]


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else ""


def _when(milliseconds: int) -> str:
    from tidemill.core.clock import from_ms

    return _time(from_ms(milliseconds)) if milliseconds else "?"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
