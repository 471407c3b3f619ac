"""The commands of tidemill.

Each module of commands has `register(app: typer.Typer) -> None`, which adds its commands. A module is imported
only when one of its commands runs (or for the list of all), and itself imports heavy libraries inside its
functions, so that a role starts with its own vendors alone.
"""

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tidemill.core.errors import TidemillError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "demo": "demo",
    "up": "machine",
    "down": "machine",
    "status": "machine",
    "config": "machine",
    "doctor": "machine",
    "health": "health",
    "dashboard": "dashboard",
    "validate": "models",
    "apply": "models",
    "get": "models",
    "describe": "models",
    "card": "card",
    "lineage": "lineage",
    "predict": "models",
    "retrain": "models",
    "adopt": "adopting",
    "rollout": "models",
    "delete": "models",
    "labels": "labels",
    "quality": "quality",
    "slices": "slices",
    "dataset": "dataset",
    "quarantine": "quarantine",
    "alerts": "alerts",
    "prune": "prune",
    "rebuild": "keeping",
    "skew": "keeping",
    "ingest": "roles",
    "outcomes": "roles",
    "watch": "roles",
    "serve": "roles",
    "feedback": "roles",
    "control": "roles",
    "operator": "roles",
}
"""Each command, in the order of `tidemill --help`, and the module of this package that registers it."""


class LazyGroup(TyperGroup):
    """The commands of `COMMANDS`, each imported when it is asked for. Typer keeps the types of both methods private."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command by its name, or None."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        part = typer.Typer()
        importlib.import_module(f"tidemill.cli.{module}").register(part)
        return typer.main.get_group(part).get_command(ctx, cmd_name)


app = typer.Typer(
    cls=LazyGroup,
    help="Keep a model right after it ships: one resource, one loop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    context: Annotated[
        str | None,
        typer.Option(help="Context of the kubeconfig whose cluster has the models; `current`: the current one."),
    ] = None,
) -> None:
    """Keep a model right after it ships: one resource, one loop."""
    if context is not None:
        os.environ["TIDEMILL_CONTEXT"] = context


def main(*arguments: Any) -> None:
    """Run the command line. A `TidemillError` is shown in words; anything else is a bug and shows its traceback."""
    try:
        app(args=list(arguments) or None)
    except TidemillError as error:
        from tidemill.cli.output import show_error

        show_error(error)
        sys.exit(error.exit_code)
