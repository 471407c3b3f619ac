"""The commands of labels."""

import typer

from tidemill.cli.label_quality import add_commands

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Say what is true of predictions and events.")
    add_commands(group)
    app.add_typer(group, name="labels")
