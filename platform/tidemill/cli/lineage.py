"""The command lineage: from any id, what made it and what it went into."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tidemill.cli.output import Output, OutputOption, emit, table

if TYPE_CHECKING:
    from tidemill.registry.trace import Fact

__all__ = ["register"]

_LONGEST = 100


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
    from tidemill.artifacts import artifact_root, artifact_uri, local_folder
    from tidemill.cli.models import find
    from tidemill.registry.lineage import Lineage
    from tidemill.wiring import local

    machine = local()
    resource, settings = find(machine, name).resource, machine.settings
    folder = local_folder(artifact_uri(artifact_root(resource, settings), resource, "any"))
    found = Lineage(settings.lake_uri, folder, machine.registry, resource.id).of(identity)
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
