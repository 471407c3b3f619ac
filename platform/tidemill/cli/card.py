"""The command that shows a version's model card."""

from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, emit
from tidemill.core.errors import NotFound
from tidemill.registry import RegisteredVersion
from tidemill.wiring import Local, local

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
    found = _version(machine, model, version or "champion")
    text = _from_artifact(found) or found.description
    if not text:
        raise NotFound(
            f"version {found.version} of {model} has no model card", hint="it was made before there were any"
        )
    if output is Output.JSON:
        emit({"model": model, "version": found.version, "card": text, "tags": found.tags}, output)
    else:
        typer.echo(text.rstrip())  # as it is: a program that renders Markdown may read it


def _version(machine: Local, model: str, wanted: str) -> RegisteredVersion:
    versions = machine.registry.versions(model)
    aliases = {str(alias): name for alias, name in machine.registry.aliases(model).items()}
    named = aliases.get(wanted, wanted)
    found = next((one for one in versions if one.version == named), None)
    if found is not None:
        return found
    known = ", ".join(one.version for one in versions[-5:])
    raise NotFound(
        f"{model} has no version {wanted}", hint=f"the newest are: {known}" if known else "none was made yet"
    )


def _from_artifact(found: RegisteredVersion) -> str:
    """The whole card; empty where the artifact is gone, or made without one."""
    from tidemill.artifacts import local_folder, read, verify

    try:
        folder = local_folder(found.artifact)
        return read(folder, verify(folder), "card.md").decode()
    except NotFound:
        return ""
