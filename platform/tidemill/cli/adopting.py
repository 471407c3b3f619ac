"""The command adopt: a version that another installation made becomes one of this model's."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, emit

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(adopt)


def adopt(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    folder: Annotated[
        Path, typer.Argument(help="Folder of a version, with its manifest.", exists=True, file_okay=False)
    ],
    reason: Annotated[str, typer.Option(help="Why; it stands with the version.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Take over a version without training or gates: the first one gets all traffic, a later one its rollout."""
    from tidemill.cli.asking import person
    from tidemill.cli.models import find
    from tidemill.cli.telling import answer
    from tidemill.retrain.adopt import adopt as take
    from tidemill.retrain.place import here
    from tidemill.wiring import local

    model = find(local(), name).resource.id
    with redirect_stdout(sys.stderr):  # what a run's log would have
        decision = take(here(model), folder.resolve(), reason=reason, by=person())
    emit(decision, output, *answer(decision))
