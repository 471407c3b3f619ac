"""The command that shows a version's model card."""

from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, emit
from tidemill.core.errors import NotFound
from tidemill.registry.card import card_of, find_version
from tidemill.wiring import local

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(card)


def card(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[
        str | None, typer.Argument(help="A version, or champion, candidate or previous; without it the champion.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """The model card of a version, in Markdown: what it is, on what data, how good, its limits, how it came about."""
    from tidemill.cli.models import find

    machine = local()
    model = find(machine, name).resource.id
    found = find_version(machine.registry, model, version or "champion")
    text = card_of(found)
    if not text:
        raise NotFound(
            f"version {found.version} of {model} has no model card", hint="it was made before there were any"
        )
    if output is Output.JSON:
        emit({"model": model, "version": found.version, "card": text, "tags": found.tags}, output)
    else:
        typer.echo(text.rstrip())  # as it is: a program that renders Markdown may read it
