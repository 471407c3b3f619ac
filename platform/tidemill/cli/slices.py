"""`tidemill slices`: where a model is worse."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType
from rich.markup import escape

from tidemill.cli.output import Output, OutputOption, emit, table

if TYPE_CHECKING:
    from tidemill.metrics.gaps import Gap, Group
    from tidemill.outcomes.fairness import FairnessReport
    from tidemill.outcomes.slices import GroupGap, SliceReport

__all__ = ["fairness_story", "register", "report_of"]


_LABELLED_ONLY = "of the labelled answers alone (labels.control: 0): it may be far from that of all"
_NOTHING = "no prediction has come of age yet"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(slices)


def slices(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Option(help="The version; else the one that answered last.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only predictions from this time (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only predictions before this time (UTC).")] = None,
    units: Annotated[
        Literal["entities", "time"] | None,
        typer.Option(help="What counts as one witness; else entities, where there are 40 or more."),
    ] = None,
    fairness: Annotated[
        bool, typer.Option("--fairness", help="Instead: whether the groups get the same answers, and as right ones.")
    ] = False,
    positive: Annotated[str | None, typer.Option(help="With --fairness: the class; else all but the first.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Where answers are worse: gaps between the groups of the resource, and the worst slices that a search finds."""
    from tidemill.cli.models import find
    from tidemill.control.known import known_resource
    from tidemill.outcomes.fairness import fairness_of
    from tidemill.outcomes.known import Cut
    from tidemill.outcomes.slices import slices_of
    from tidemill.wiring import local

    machine = local()
    resource = known_resource(find(machine, name))
    first, last = (None if one is None else one.replace(tzinfo=one.tzinfo or UTC) for one in (since, until))
    cut = Cut(version=version, since=first, until=last)
    lake = machine.settings.lake_uri
    if fairness:
        rates = fairness_of(lake, resource, cut, positive=positive, units=units)
        told = [part for one in rates for part in fairness_story(one)] or [_NOTHING]
        emit({"model": resource.id, "fairness": rates}, output, *told)
        return
    found = slices_of(lake, resource, cut, units=units)
    data = {"model": resource.id, "slices": found}
    emit(data, output, *([_NOTHING] if found is None else report_of(found)))


def report_of(found: "SliceReport") -> list[RenderableType]:
    """The report for people."""
    times = f"{found.since:%Y-%m-%d %H:%M} to {found.through:%Y-%m-%d %H:%M}"
    newest = ", the newest" if found.is_cut else ""
    head = f"{found.version}: {found.outcomes:,} outcomes{newest}, {found.labelled:,} labels that count; {times}"
    parts: list[RenderableType] = [escape(head)]
    for one in found.gaps:
        parts += _groups(one)
    return [*parts, *_worst(found), *_notes(found)]


def _groups(one: "GroupGap") -> list[RenderableType]:
    if not one.groups:
        return [f"\n{escape(one.by)}: no prediction says it (events need an id to be found)"]
    head = [one.by, "outcomes", "labelled", "error", "95 % interval"]
    rows = [[group.name, f"{group.outcomes:,}", f"{group.labelled:,}", *_rate(group)] for group in one.groups]
    told: list[RenderableType] = ["", table(head, rows)]
    if one.left_out:
        told.append(f"{one.left_out:,} smaller groups are not told")
    return [*told, _gap(one.gap)]


def _rate(group: "Group") -> tuple[str, str]:
    mean = "" if group.mean is None else f"{group.mean:.4f}"
    return mean, f"{group.interval.low:.4f} to {group.interval.high:.4f}" if group.is_judged else "too few"


def _gap(gap: "Gap | None") -> str:
    if gap is None:
        return "gap: fewer than two groups are large enough"
    low, high = gap.interval
    names = escape(f"from {gap.smallest} to {gap.largest}")
    return f"gap {names}: {gap.difference:.4f}, surely {low:.4f} to {high:.4f} between best and worst"


def fairness_story(one: "FairnessReport") -> list[RenderableType]:
    """The rates of the groups of one name, and their gaps, for people."""
    rates = one.rates
    shown = (rates.demographic_parity, rates.equal_opportunity, rates.false_positives, rates.predictive_parity)
    head = [one.by, "outcomes", *(rate.of for rate in shown)]
    rows = [
        [groups[0].name, f"{groups[0].outcomes:,}", *(_share(group) for group in groups)]
        for groups in zip(*(rate.groups for rate in shown), strict=True)
    ]
    gaps = {rate.name: rate.gap for rate in (*shown[:2], shown[3])} | {"equalised odds": rates.equalised_odds}
    told: list[RenderableType] = [escape(f"{one.version}, by {one.by}, answer: {one.positive}")]
    told += [table(head, rows), *(f"{name}: {_gap(gap)}" for name, gap in gaps.items()), ""]
    if one.kind == "labelled only":
        told.insert(1, _LABELLED_ONLY)
    if one.waiting:
        told.insert(1, f"{one.waiting:,} labels are still to come; the intervals allow for anything that they may say")
    return told


def _share(group: "Group") -> str:
    if not group.is_judged or group.mean is None:
        return "too few"
    return f"{group.mean:.3f} [{group.interval.low:.3f}, {group.interval.high:.3f}]"


def _worst(found: "SliceReport") -> list[RenderableType]:
    of = "entities" if found.units == "entities" else "stretches of time"
    told: list[RenderableType] = [
        f"\nworst slices: {found.candidates:,} looked at in one half of {found.clusters:,} {of}, "
        f"{found.tested} tested in the other"
    ]
    for one in found.found:
        low, high = one.interval
        text = f"{one.name}: error {one.error:.2f} [{low:.2f}, {high:.2f}] against {one.elsewhere:.2f} elsewhere"
        told.append(escape(f"  {text}, {one.outcomes:,} outcomes"))
    if not found.found:
        told.append("  none is surely worse than elsewhere")
    return told


def _notes(found: "SliceReport") -> list[RenderableType]:
    notes: list[RenderableType] = []
    if found.kind == "labelled only":
        notes.append(_LABELLED_ONLY)
    if found.waiting:
        notes.append(
            f"{found.waiting:,} labels are still to come: right in a slice, wrong elsewhere, until they are there"
        )
    if found.lost:
        notes.append(f"≤ {found.lost:,} predictions are missing from the log, which the slices do not allow for")
    return notes
