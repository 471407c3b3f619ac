"""The commands of labels: say what is true, bring it from files, take it away."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.label_quality import add_commands
from tidemill.cli.output import Output, OutputOption, emit, say, table
from tidemill.core.errors import InvalidInput
from tidemill.labels.lines import Format, format_named

if TYPE_CHECKING:
    from tidemill.labels.importing import Refused, Summary
    from tidemill.spec.model import ContinualModel
    from tidemill.wiring import Local

__all__ = ["register"]

Name = Annotated[str, typer.Argument(help="The model.")]
File = Annotated[Path, typer.Argument(help="The file; gzipped where it ends in .gz.", dir_okay=False)]
NewClass = Annotated[bool, typer.Option("--new-class", help="Also classes that the resource does not declare.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", "-f", help="Without it, by the file's name and content.")
]

_EVERY = 100_000
"""Rows between two words on how an import stands."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Say what is true of predictions and events.")
    group.command()(add)
    group.command("import")(import_file)
    group.command()(export)
    add_commands(group)
    app.add_typer(group, name="labels")


def add(
    name: Name,
    value: Annotated[list[str], typer.Option(help="What is true, FIELD=VALUE: defect=scratch, box=[1,2,3,4].")],
    prediction: Annotated[str | None, typer.Option(help="The prediction's id.")] = None,
    entity: Annotated[str | None, typer.Option(help="Or the event's entity …")] = None,
    event: Annotated[str | None, typer.Option(help="… and the event's id.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so; without it, you.")] = None,
    time: Annotated[str | None, typer.Option(help="When it was said, ISO 8601; without it, now.")] = None,
    new_class: NewClass = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """One label of a prediction, or of an event. Returns once Kafka has it."""
    from tidemill.cli.asking import person
    from tidemill.events.kafka import RecordWriter
    from tidemill.labels.check import LabelCheck

    machine, resource = _model(name)
    check = LabelCheck(resource, clock=machine.clock, new_classes=new_class)
    said = {"prediction_id": prediction, "entity": entity, "event_id": event, "time": time}
    said = {field: text for field, text in said.items() if text is not None}
    found = _value(resource, value)
    _warn_of_new_classes(check.unknown_classes(found), new_class)
    label = check({**said, "labeller": by or person(), "value": found})
    with RecordWriter(machine.settings.require_kafka(), client_id="tidemill-labels") as writer:
        writer.send(resource.labels_topic, label.data, key=label.key)
        writer.flush()
    about = f"prediction {prediction}" if prediction else f"event {event} of {entity}"
    emit({"model": resource.id, "label": label.label}, output, f"{about} is labelled by {label.label.labeller}")


def import_file(
    name: Name,
    file: File,
    kind: FormatOption = None,
    by: Annotated[str, typer.Option(help="Who says so, where the file does not.")] = "",
    mapping: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=FIELD", help="What a column says: entity, event_id, value.defect, …"),
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what is refused there, as JSON lines with the reasons.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would happen.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was said before.")] = False,
    new_class: NewClass = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Labels from a file, of any size. What was said before is left out, so a file may be imported again.

    Exit status: 0 all is taken, 1 some rows were refused and the others taken, 2 nothing was taken.
    """
    from tidemill.labels.check import LabelCheck
    from tidemill.labels.columns import Columns
    from tidemill.labels.exporting import rows_reader
    from tidemill.labels.importing import Importing
    from tidemill.labels.lines import guess_format, open_labels

    machine, resource = _model(name)
    columns = Columns(resource, _pairs(mapping or (), "--mapping"), by)
    check = LabelCheck(resource, clock=machine.clock, new_classes=new_class)
    with ExitStack() as stack:
        content = stack.enter_context(open_labels(file))
        kind = kind or guess_format(file, content)
        rows = rows_reader(kind, resource, columns)(content)
        on_refused = stack.enter_context(_refusals(refused))
        sink = None if dry_run else stack.enter_context(_writer(machine, resource))
        said = None if again else stack.enter_context(_said(machine, resource))
        importing = Importing(
            resource.labels_topic, check, sink=sink, said=said, on_refused=on_refused, on_progress=_progress()
        )
        summary = importing.run(rows)
    _show(summary, kind, output, dry_run=dry_run)
    if summary.refused:
        raise typer.Exit(1 if summary.taken or summary.repeated else 2)


def export(
    name: Name,
    file: File,
    kind: FormatOption = None,
    picture: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Size of the pictures, for boxes in Label Studio's percent."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """The labels in the lake, to a file: `import` reads it back as it was, and a spreadsheet finds no formula in it."""
    from tidemill.labels.exporting import export_labels
    from tidemill.labels.lake import ArrivedLabels

    machine, resource = _model(name)
    kind = kind or format_named(file)
    if kind is None:
        raise InvalidInput(f"{file} does not say its format", hint="--format csv, jsonl or label-studio does")
    labels = ArrivedLabels(machine.settings.lake_uri, resource).in_lake()
    count = export_labels(labels, file, kind, resource, _size(picture))
    data = {"model": resource.id, "file": file, "format": kind, "labels": count}
    emit(data, output, f"{count:,} labels are in {file}")


def _model(name: str) -> "tuple[Local, ContinualModel]":
    from tidemill.cli.models import find
    from tidemill.control.known import known_resource
    from tidemill.wiring import local

    machine = local()
    return machine, known_resource(find(machine, name))


def _value(resource: "ContinualModel", given: Sequence[str]) -> dict[str, Any]:
    from tidemill.labels.columns import typed

    declared = {field.name: field for field in resource.spec.labels.fields}
    return {field: typed(text, declared.get(field)) for field, text in _pairs(given, "--value").items()}


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not name or not equals:
            raise InvalidInput(f"{option} takes NAME=TEXT, not {one!r}")
        if name in pairs:
            raise InvalidInput(f"{option} says {name} twice")
        pairs[name] = text
    return pairs


def _warn_of_new_classes(classes: Sequence[str], are_meant: bool) -> None:
    for one in classes:
        say(f"{one!r} is a class that the resource does not declare{'' if are_meant else ': --new-class sends it'}")


@contextmanager
def _writer(machine: "Local", resource: "ContinualModel") -> Iterator[Any]:
    """One import of a model at a time: a newer one ends an older one, and reads after that what was said."""
    from tidemill.events.replay import TransactionWriter

    with TransactionWriter(machine.settings.require_kafka(), f"{resource.id}.labels.import") as writer:
        yield writer


@contextmanager
def _said(machine: "Local", resource: "ContinualModel") -> Iterator[Any]:
    from tidemill.labels.lake import ArrivedLabels
    from tidemill.labels.said import SaidBefore, statement

    with SaidBefore() as said:
        arrived = ArrivedLabels(machine.settings.lake_uri, resource)
        kafka = machine.settings.require_kafka()
        said.learn(statement(label) for label in arrived.all(kafka, clock=machine.clock))
        yield said


@contextmanager
def _refusals(file: Path | None) -> "Iterator[Callable[[Refused], None]]":
    from tidemill.labels.exporting import writing
    from tidemill.labels.importing import refused_line

    if file is None:
        yield lambda _: None
        return
    with writing(file) as out:

        def write(refused: "Refused") -> None:
            out.write(refused_line(refused))

        yield write


def _progress() -> "Callable[[Summary], None]":
    told = 0

    def tell(summary: "Summary") -> None:
        nonlocal told
        done = summary.taken + summary.repeated + summary.refused
        if done - told >= _EVERY:
            told = done
            say(f"{done:,} rows: {summary.taken:,} taken, {summary.repeated:,} known, {summary.refused:,} refused")

    return tell


def _show(summary: "Summary", kind: Format, output: Output, *, dry_run: bool) -> None:
    verb = "would be taken" if dry_run else "taken"
    lines: list[Any] = [f"{summary.taken:,} labels {verb}, {summary.refused:,} rows refused"]
    if summary.repeated:
        lines.append(f"{summary.repeated:,} were said before and are left out (--again sends them, too)")
    if summary.refused:
        lines += [f"  {one}" for one in summary.examples]
        if summary.refused > len(summary.examples):
            lines.append(f"  … and {summary.refused - len(summary.examples):,} more (--refused FILE writes all)")
        lines += ["", table(("refused", "because"), [(count, why) for why, count in summary.reasons.most_common()])]
    data = {
        "format": kind,
        "dry_run": dry_run,
        "taken": summary.taken,
        "repeated": summary.repeated,
        "refused": summary.refused,
        "reasons": summary.reasons,
        "examples": summary.examples,
    }
    emit(data, output, *lines)


def _size(picture: str | None) -> tuple[int, int] | None:
    if picture is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", picture)
    if found is None:
        raise InvalidInput(f"--picture takes WIDTHxHEIGHT in pixels, not {picture!r}")
    return int(found[1]), int(found[2])
