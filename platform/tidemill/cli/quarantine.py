"""The command quarantine: what could not be taken in and why, and taking it in again once that is mended."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tidemill.cli.output import Output, OutputOption, emit, table

if TYPE_CHECKING:
    from tidemill.events.records import Quarantined
    from tidemill.ingest.quarantine import QuarantineStore, Wanted

__all__ = ["preview", "register"]

Name = Annotated[str, typer.Argument(help="The model.")]
Reason = Annotated[str | None, typer.Option(help="Only with this in the reason.")]
FieldName = Annotated[str | None, typer.Option("--field", help="Only with this field at fault.")]
SourceName = Annotated[str | None, typer.Option("--source", help="Only of this source, or sources that begin so.")]
Since = Annotated[datetime | None, typer.Option(help="Only what arrived at this time (UTC) or later.")]
Until = Annotated[datetime | None, typer.Option(help="Only what arrived before this time (UTC).")]

_SHOWN = 400
"""Bytes of a value that are shown."""
_EXAMPLES = 10
"""Records that a replay names, in a table for people."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="See what could not be taken in and why, or take it in again.")
    group.command("list")(list_records)
    group.command()(show)
    group.command()(replay)
    app.add_typer(group, name="quarantine")


def list_records(
    name: Name,
    reason: Reason = None,
    field: FieldName = None,
    source: SourceName = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="Most records shown, the newest.")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """What lies in quarantine, the newest first."""
    found = _store(name).find(_wanted(reason, field, source, since, until), limit)
    rows = [(_place(one), _time(one.available_at), one.field, one.reason, one.origin) for one in found]
    columns = ("record", "arrived", "field", "reason", "replay of")
    emit([_summary(one) for one in found], output, _safe(columns, rows) if rows else "nothing is in quarantine")


def show(
    name: Name,
    record: Annotated[str, typer.Argument(metavar="SOURCE/OFFSET", help="The record, as `list` names it.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """One record: its reason, key, headers, and the beginning of its value."""
    from tidemill.ingest.quarantine import parse_place

    found = _store(name).get(parse_place(record))
    value = "more than 1 MiB: it stands in the events topic alone" if found.truncated else preview(found.value)
    key = None if found.key is None else preview(found.key)
    rows: list[tuple[str, object]] = [*_summary(found).items(), ("key", key)]
    rows += [(f"header {name}", preview(content)) for name, content in found.headers]
    emit(found, output, _safe(("", ""), [*rows, ("value", value)]))


def replay(
    name: Name,
    records: Annotated[list[str] | None, typer.Argument(metavar="SOURCE/OFFSET…", help="Which; all without.")] = None,
    reason: Reason = None,
    field: FieldName = None,
    source: SourceName = None,
    since: Since = None,
    until: Until = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed before; it counts once.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be replayed.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send records to the events topic again, once what was wrong is mended. Each takes effect once at most."""
    from tidemill.ingest.quarantine import parse_place

    places = frozenset(map(parse_place, records)) if records else None
    wanted = _wanted(reason, field, source, since, until, places)
    found = _store(name).replay(wanted, by=_person(), again=again, dry_run=dry_run)
    replayed, gone = ([f"{source}/{offset}" for source, offset in part] for part in (found.replayed, found.gone))
    verb = "would be replayed" if dry_run else "were replayed"
    lines = [f"{len(replayed)} records {verb}", *(f"  {place}" for place in replayed[:_EXAMPLES])]
    if len(replayed) > _EXAMPLES:
        lines.append(f"  … and {len(replayed) - _EXAMPLES} more")
    if found.already:
        lines.append(f"{found.already} were replayed before and are left out (--again replays them, too)")
    lines += [f"{place} is gone: the events topic no longer holds it" for place in gone]
    emit({"replayed": replayed, "gone": gone, "already": found.already, "dry_run": dry_run}, output, *lines)


def preview(content: bytes) -> str:
    """The beginning of bytes as text that no terminal takes for orders: what cannot be printed is escaped."""
    safe = _escaped(content[:_SHOWN].decode(errors="backslashreplace"))
    return safe if len(content) <= _SHOWN else f"{safe}… ({len(content)} bytes)"


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _safe(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose cells give no orders either: much of what they say comes from who sent the record."""
    return table(columns, [[None if cell is None else _escaped(str(cell)) for cell in row] for row in rows])


def _store(name: str) -> "QuarantineStore":
    from tidemill.cli.models import find
    from tidemill.ingest.quarantine import QuarantineStore
    from tidemill.wiring import local

    machine = local()
    resource = find(machine, name).resource
    settings = machine.settings
    return QuarantineStore(resource, lake=settings.lake_uri, kafka=settings.kafka, clock=machine.clock)


def _wanted(
    reason: str | None,
    field: str | None,
    source: str | None,
    since: datetime | None,
    until: datetime | None,
    places: frozenset[tuple[str, int]] | None = None,
) -> "Wanted":
    from tidemill.ingest.quarantine import Wanted

    return Wanted(reason, field, source, _utc(since), _utc(until), places)


def _summary(record: "Quarantined") -> dict[str, object]:
    return {
        "record": _place(record),
        "arrived": _time(record.available_at),
        "field": record.field,
        "reason": record.reason,
        "origin": record.origin,
        "truncated": record.truncated,
    }


def _place(record: "Quarantined") -> str:
    return f"{record.source}/{record.offset}"


def _time(milliseconds: int) -> str:
    from tidemill.core.clock import from_ms

    return from_ms(milliseconds).isoformat(timespec="milliseconds")


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _person() -> str:
    from tidemill.cli.asking import person

    return person()
