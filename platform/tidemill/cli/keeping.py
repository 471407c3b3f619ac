"""Commands that keep a model's features right: rebuild the online rows, compare what was served with the lake."""

from collections.abc import Callable
from typing import Annotated

import typer

from tidemill.cli.output import Output, OutputOption, emit, say, table
from tidemill.core.errors import DeadlineExceeded, Unavailable
from tidemill.wiring import Local, local

__all__ = ["register"]

_EVERY_S, _TELL_S = 0.2, 5.0


Name = Annotated[str, typer.Argument(help="The model.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    parts = typer.Typer(no_args_is_help=True, help="Make what is derived from the lake anew.")
    parts.command()(online)
    parts.callback()(lambda: None)  # a group, though it has one command
    app.add_typer(parts, name="rebuild")
    app.command()(skew)


def online(
    name: Name,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds within which the rows must be there.")] = 600.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Fill a model's online rows from the lake again; predictions do without features until they are there."""
    from tidemill.cli.models import find
    from tidemill.features.label_events import LABELS, label_layout
    from tidemill.features.layout import layout_of
    from tidemill.features.online import OnlineRows

    machine = local()
    resource = find(machine, name).resource
    _has_writer(machine, resource.id)
    redis = machine.settings.require_redis()
    views = [OnlineRows(redis, resource.id, layout_of(resource))]
    if resource.spec.features.label_windows:
        views.append(OnlineRows(redis, resource.id, label_layout(resource), LABELS))
    try:
        begun = machine.clock.monotonic()
        complete = [rows.forget() for rows in views]
        forgotten = all(complete)
        say("waiting until the rows are filled" + ("" if forgotten else "; they were not complete"))
        for rows in views:
            _until_ready(machine, rows.ready, timeout, f"the online rows of {resource.id} are not complete yet")
        took = round(machine.clock.monotonic() - begun, 1)
    finally:
        for rows in views:
            rows.close()
    data = {"model": resource.id, "were_complete": forgotten, "seconds": took}
    emit(data, output, f"the rows of {resource.id} were filled from the lake in {took} s")


def skew(
    name: Name,
    sample: Annotated[int, typer.Option(min=1, max=100_000, help="How many of the newest predictions.")] = 1000,
    output: OutputOption = Output.TABLE,
) -> None:
    """Compute the features of logged predictions again from the lake, and compare. Exit status 1 where they differ."""
    from tidemill.cli.models import find
    from tidemill.ingest.skew import SkewCheck

    machine = local()
    found = SkewCheck(machine.settings.lake_uri, find(machine, name).resource).measure(sample)
    figures = [
        ("predictions compared", found.compared),
        ("equal", found.equal),
        ("differing", found.differing),
        ("values compared", found.values),
        *((f"not comparable: {why}", count) for why, count in found.not_comparable.items()),
    ]
    rows = [(one.prediction_id, one.entity, one.feature, one.served, one.computed) for one in found.differences]
    columns = ("prediction", "entity", "feature", "served", "from the lake")
    emit(found, output, table(("", ""), figures), *(("", table(columns, rows)) if rows else ()))
    if found.differing:
        raise typer.Exit(1)


def _has_writer(machine: Local, model: str) -> None:
    """Raise `Unavailable` where nobody would fill the rows: they would stay away."""
    from tidemill.events.cluster import Cluster

    with Cluster(machine.settings.require_kafka()) as cluster:
        if not cluster.members(f"{model}.ingest"):
            raise Unavailable(f"no ingest of {model} runs, which would fill the rows", hint="see `tidemill status`")


def _until_ready(machine: Local, ready: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    begun = told = machine.clock.monotonic()
    while not ready():
        now = machine.clock.monotonic()
        if now - begun > timeout_s:
            raise DeadlineExceeded(otherwise, hint="the log of its writer says why; it goes on trying")
        if now - told >= _TELL_S:
            say(f"still filling after {now - begun:.0f} s")
            told = now
        machine.clock.sleep(_EVERY_S)
