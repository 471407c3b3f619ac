"""The command prune: delete what a model's runs have left and nothing needs."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, emit, table
from tidemill.core.errors import InvalidInput

__all__ = ["register"]

_MB = 1e6
_LEAST = timedelta(hours=1)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(prune)


def prune(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    older_than: Annotated[str, typer.Option(help="What is younger stays; an hour at least.")] = "30d",
    keep: Annotated[int | None, typer.Option(min=1, help="So many of the newest versions stay.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete old versions, snapshots and run folders, but never what serves, was frozen, or a kept version needs."""
    from tidemill.cli.models import find, known_status
    from tidemill.control.clearing import clear, look, places_of, sweep
    from tidemill.control.retention import Rule, may_go
    from tidemill.core.clock import to_ms
    from tidemill.spec.quantities import parse_duration
    from tidemill.wiring import local

    machine = local()
    resource, now = find(machine, name).resource, machine.clock.now()
    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise InvalidInput(f"--older-than: {error}") from error
    if age < _LEAST:
        raise InvalidInput(f"--older-than: {older_than} is too short: what is being written may be as old")
    rule = Rule(age, keep or machine.settings.versions_keep)
    places = places_of(resource, machine.settings)
    kept = look(places)  # before the status: what comes later may serve by then
    status = known_status(find(machine, name))
    if status is None or status.champion is None:
        raise InvalidInput(f"nothing of {resource.id} goes: no version serves that is known of")
    if status.run is not None:
        raise InvalidInput(
            f"nothing of {resource.id} goes while run {status.run.run} is in flight", hint="again once it is over"
        )
    going = may_go(kept, status, machine.registry.aliases(resource.id), rule, now)
    kinds = {"version": going.versions, "snapshot": going.snapshots, "run": going.runs}
    named = [(kind, one) for kind, names in kinds.items() for one in names]
    sizes = [_bytes(folder) for folder in places.going(going)]
    if not dry_run:
        sweep(places, to_ms(now - rule.older_than))
        clear(places, going, machine.registry, now)
    rows = [(kind, one[:40], f"{size / _MB:,.1f} MB") for (kind, one), size in zip(named, sizes, strict=True)]
    told = f"{sum(sizes) / _MB:,.1f} MB {'would go' if dry_run else 'are gone'}"
    data = {"model": resource.id, "dry_run": dry_run, "bytes": sum(sizes), **{f"{k}s": v for k, v in kinds.items()}}
    emit(data, output, *([table(("", "", "size"), rows), told] if rows else [f"nothing of {resource.id} may go"]))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
