"""The command `health`: data and system of a model in one table."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tidemill.cli.output import Output, OutputOption, console, emit, table

if TYPE_CHECKING:
    from tidemill.watch.health import Line, Scrape
    from tidemill.wiring import Local

__all__ = ["register", "shown"]

_STATES = ("bad", "unknown", "warn", "ok")
_KEPT_S = 60.0
"""With --watch, rates and shares are of the last minute."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(health)


def health(
    name: Annotated[str, typer.Argument(help="The model.")],
    over: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds that rates are taken over.")] = 2.0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Data and system of a model: what is well, what is not, and what to do. Exit status 1 if anything is bad."""
    from tidemill.cli.models import find
    from tidemill.watch.health import Look, worst
    from tidemill.watch.health import health as lines_of
    from tidemill.wiring import local

    machine = local()
    resource = find(machine, name).resource
    looks = deque([_scrape(machine, resource.id)])
    lines: list[Line] = []
    try:
        while watch or not lines:
            machine.clock.sleep(over)
            looks.append(_scrape(machine, resource.id))
            while looks[-1].at - looks[1].at >= _KEPT_S:
                looks.popleft()
            lines = lines_of(resource, Look(looks[-1], looks[0], resource.id))
            _show(resource.id, lines, output, again=watch)
    except KeyboardInterrupt:
        pass
    if worst(lines) == "bad":
        raise typer.Exit(1)


def shown(value: float | None, unit: str) -> str:
    """A value as people read it."""
    if value is None:
        return "?"
    if unit == "share":
        return f"{value:.2%}"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit in {"up", "1 if so", "1 if not"}:
        return "yes" if (value == 0) == (unit == "1 if not") else "no"
    digits = ",.0f" if float(value).is_integer() else ",.3g"
    return f"{value:{digits}} {unit}"


def _scrape(machine: "Local", model: str) -> "Scrape":
    from tidemill.stack.running import what_runs
    from tidemill.watch.scraping import scrape

    state = machine.settings.state
    # Without a stack nobody holds processes, whatever is wanted; they may have been started by hand.
    seen = () if what_runs(state) is None else machine.supervisor.observe()
    return scrape(state, model, seen, machine.clock)


def _show(model: str, lines: Sequence["Line"], output: Output, *, again: bool) -> None:
    counts = Counter(str(line.state) for line in lines)
    data = {"model": model, "counts": counts, "lines": lines}
    if output is Output.JSON and again:  # one document a line
        typer.echo(msgspec.json.encode(data).decode())
        return
    order = sorted(lines, key=lambda line: _STATES.index(line.state))
    rows = [(line.state, line.what, shown(line.value, line.unit), line.why, line.do) for line in order]
    if again and console().is_terminal:
        console().clear()
    said = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    emit(data, output, table(("", "what", "value", "why", "what helps"), rows), f"\n{model}: {said}")
