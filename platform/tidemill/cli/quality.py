"""The command `quality`: how right each version's answers turned out to be, and how sure that is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.output import Output, OutputOption, emit, table
from tidemill.core.clock import to_ms
from tidemill.core.errors import InvalidInput

if TYPE_CHECKING:
    from tidemill.outcomes.estimated import Estimated
    from tidemill.outcomes.quality import CellQuality

__all__ = ["estimate_story", "register"]

_MEANING = {
    "all labelled": "every answer is to be labelled (labels.control: 1.0)",
    "sampled": "of all answers: the labels of picks whose probability is known, each weighed by it",
    "labelled only": "of the labelled answers alone (labels.control: 0): it may be far from that of all",
}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(quality)


def quality(
    name: Annotated[str, typer.Argument(help="The model.")],
    by: Annotated[str | None, typer.Option(help="Slices: `entity`, or a feature.")] = None,
    cohorts: Annotated[bool, typer.Option("--cohorts", help="Cohorts apart.")] = False,
    window: Annotated[str | None, typer.Option(help="Length of a window of time, such as 1h.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only predictions from this time (UTC) on.")] = None,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """How right answers turned out to be: by version, slice, cohort and time, with the interval of the error."""
    from tidemill.cli.models import find
    from tidemill.control.known import known_resource
    from tidemill.outcomes.estimated import estimate_of
    from tidemill.outcomes.quality import Cut, quality_of
    from tidemill.wiring import local

    machine = local()
    resource = known_resource(find(machine, name))
    cut = Cut(
        by=by,
        cohorts=cohorts,
        window_ms=None if window is None else _window_ms(window),
        since=None if since is None else since.replace(tzinfo=since.tzinfo or UTC),
        version=version,
    )
    found = quality_of(machine.settings.lake_uri, resource, cut)
    estimated = estimate_of(machine.settings.lake_uri, resource, version=version, window_ms=cut.window_ms)
    data = {"model": resource.id, "by": by, "quality": found, "estimated": estimated}
    columns = ["version", *([by] if by else []), *(["cohort"] if cohorts else []), *(["from"] if window else [])]
    head = [*columns, "outcomes", "labelled", "error", "95 % interval", *_names(found)]
    rows = [[*_place(one, cut), *_figures(one)] for one in found]
    emit(data, output, table(head, rows), *_notes(found), *estimate_story(estimated))


def _window_ms(text: str) -> int:
    from tidemill.spec.quantities import parse_duration

    try:
        length = to_ms(parse_duration(text))
    except ValueError as error:
        raise InvalidInput(f"--window: {error}", hint="give a length such as 30m, 1h or 1d") from error
    if length <= 0:
        raise InvalidInput(f"--window: {text} is no length of time", hint="give a length such as 30m, 1h or 1d")
    return length


def _place(one: "CellQuality", cut: Any) -> Sequence[str | None]:
    window = None if one.window is None else one.window.strftime("%Y-%m-%d %H:%M:%S")
    return [
        one.version,
        *([one.slice] if cut.by else []),
        *([one.cohort] if cut.cohorts else []),
        *([window] if cut.window_ms else []),
    ]


def _names(found: Sequence["CellQuality"]) -> list[str]:
    """What is told besides the error: of the kind of prediction, and cost where the resource has a price."""
    figures = next((one.figures for one in found if one.figures), None)
    if figures is None:
        return []
    names = ["MAE", "RMSE"] if figures.regression else ["accuracy", "macro F1"]
    names += ["mean IoU", "AP@0.5"] if figures.detection else []
    return names + (["cost an answer"] if figures.cost else [])


def _figures(one: "CellQuality") -> list[str]:
    share = f"{one.labelled / one.outcomes:.1%}" if one.outcomes else ""
    mean = "" if one.error.mean is None else f"{one.error.mean:.4f}"
    low, high = one.error.interval
    interval = f"{low:.4f} to {high:.4f}" if one.error.labelled and one.kind != "labelled only" else ""
    cells = [f"{one.outcomes:,}", share, mean, interval]
    figures = one.figures
    if figures is None:
        return cells
    if figures.regression:
        cells += [_number(figures.regression.mae), _number(figures.regression.rmse)]
    elif figures.classification:
        cells += [_number(figures.classification.accuracy), _number(figures.classification.macro_f1)]
    if figures.detection:
        cells += [_number(figures.detection.mean_iou), _number(figures.detection.mean_average_precision)]
    return [*cells, *([_number(figures.cost.per_outcome)] if figures.cost else [])]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _notes(found: Sequence["CellQuality"]) -> list[str]:
    if not found:
        return ["no prediction has come of age yet"]
    last = found[-1]
    lost = f"{last.lost:,}" + (f" + ≤ {last.maybe_lost:,}" if last.maybe_lost else "")
    notes = [f"\nerror: {_MEANING[last.kind]}; other figures: of the labelled answers"]
    if waiting := sum(one.waiting for one in found):
        notes.append(f"{waiting:,} labels are still to come; the intervals allow for anything that they may say")
    if last.lost or last.maybe_lost:
        notes.append(f"missing from the prediction log: {lost}, which the intervals allow for")
    return notes


def estimate_story(one: "Estimated | None") -> list[str]:
    """What is estimated of the newest answers, or why nothing is, for people."""
    if one is None:
        return []
    of = f"{one.version}, {one.answers:,} answers from {one.since:%Y-%m-%d %H:%M} to {one.through:%Y-%m-%d %H:%M}"
    if one.error is None:
        return [f"\nestimated (no labels yet): {of}: cannot estimate: {one.reason}"]
    low, high = max(0.0, one.error - one.within), min(1.0, one.error + one.within)
    notes = [f"\nestimated (no labels yet): {of}: error about {one.error:.4f}, {low:.4f} to {high:.4f}"]
    held = f"on {one.windows} past windows it was off by {one.typical:.4f}, at most {one.within:.4f}"
    notes.append(f'  {held} (saying "as so far": by {one.typical_unchanged:.4f})')
    notes.append("  if an answer of the same class and confidence is right as often as before; nothing decides by it")
    if one.kind == "labelled only":
        notes.append("  and if answers without label are like those with one (labels.control: 0)")
    return notes
