"""The command demo: the whole loop on this machine, told by the example in examples/phone_inspection."""

import importlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, console, emit, table
from tidemill.core.errors import Conflict, NotFound
from tidemill.core.settings import load_settings

__all__ = ["example_folder", "register"]

_EXAMPLE = Path("examples", "phone_inspection")
_ITS_OWN = ("kafka", "redis", "lake", "artifacts", "mlflow", "feast_registry")


class Size(StrEnum):
    """How much of everything."""

    SMALL = "small"
    FULL = "full"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    drift: Annotated[
        bool, typer.Option("--drift/--no-drift", help="Let the light change; without, nothing is to happen.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the pictures.", min=0)] = 1,
    size: Annotated[Size, typer.Option(help="How much of everything.")] = Size.FULL,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running at the end.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """A phone factory on this machine: drift, a retrain, a rollout, and a bad candidate that is taken back.

    Writes `.tidemill/demo/result.json` and `report.html`. Exit status 1 if a goal of the story does not hold.
    """
    sys.path.insert(0, str(example_folder()))
    told = importlib.import_module("inspection.demo")
    settings, origins = load_settings()
    said = str(settings.state / "stack.json")
    others = [name for name in _ITS_OWN if origins[name] not in {"default", said}]
    if others:
        raise Conflict(
            f"the demo brings its own servers and stores, but {', '.join(others)} is set",
            hint=f"it comes from {origins[others[0]]}: unset it for the demo",
        )
    settings = settings.model_copy(update=dict.fromkeys((*_ITS_OWN, "endpoint", "envoy_admin", "feedback")))
    folder = settings.state / "demo"
    options = told.Options(drift=drift, seed=seed, size=size.value, keep=keep, folder=folder)
    result = told.tell(options, settings, console(stderr=True))
    rows = [(("✓" if one.holds else "✗" if one.fatal else "-"), one.name, one.measured) for one in result.goals]
    emit(result, output, "", table(("", "goal", "measured"), rows), "", f"{folder}/report.html tells it in pictures")
    if not result.passed:
        raise typer.Exit(1)


def example_folder() -> Path:
    """The example's folder in this checkout. Raises `NotFound` where there is none."""
    folder = Path(__file__).resolve().parents[3] / _EXAMPLE
    if not (folder / "model.yaml").is_file():
        raise NotFound(
            f"there is no {_EXAMPLE} beside this installation",
            hint="the demo's factory is not part of the package: run it in a clone of the repository",
        )
    return folder
