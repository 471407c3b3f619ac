"""How commands speak: tables for people, JSON for programs, errors with a hint.

Results go to stdout, all else to stderr.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from tidemill.core.errors import TidemillError

__all__ = ["Output", "OutputOption", "console", "emit", "say", "show_error", "table"]


class Output(StrEnum):
    """For whom a command writes."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="`table` for people, `json` for programs.", show_default=True)
]
"""The option of every command that shows something: `output: OutputOption = Output.TABLE`."""


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr as they are now. Where that is no terminal, lines are as long as they need."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 1000
    return made


def emit(data: object, output: Output, *renderables: RenderableType) -> None:
    """The result of a command: `data` as JSON (structs, dicts, times, paths), or the renderables for people."""
    if output is Output.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(data, enc_hook=_encode)).decode())
        return
    for one in renderables:
        console().print(one)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """A plain table. Cells are text, not markup; None is an empty cell."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    return made


def say(text: str) -> None:
    """One line of progress, for people, on stderr."""
    console(stderr=True).print(escape(text))


def show_error(error: TidemillError) -> None:
    """`error: …` and, where there is one, `hint: …` on stderr."""
    where = console(stderr=True)
    where.print(f"[bold red]error:[/] {escape(error.message)}")
    if error.hint:
        where.print(f"[bold]hint:[/] {escape(error.hint)}")


def _encode(value: Any) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")
