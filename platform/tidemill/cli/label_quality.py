"""The commands `labels agreement` and `labels queue`: how far labels can be trusted, and what to label next."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from tidemill.cli.output import Output, OutputOption, emit, say, table
from tidemill.core.errors import NotFound

if TYPE_CHECKING:
    from tidemill.labels.agreement import Agreement, MixedUp, Place
    from tidemill.labels.likely_errors import LikelyError, Weighed
    from tidemill.labels.waiting import Waiting
    from tidemill.spec.model import ContinualModel
    from tidemill.wiring import Local

__all__ = ["add_commands", "labels_story"]

Name = Annotated[str, typer.Argument(help="The model.")]

_SPAN = timedelta(days=30)
_SHOWN = 10


def add_commands(group: typer.Typer) -> None:
    """Add the commands of this module to the group `labels`."""
    group.command("agreement")(show_agreement)
    group.command("queue")(show_queue)


def show_agreement(
    name: Name,
    since: Annotated[
        datetime | None, typer.Option(help="Only labels that arrived at this time (UTC) or later; else of 30 days.")
    ] = None,
    field: Annotated[str | None, typer.Option(help="Field of the labels; else the class, or what is judged.")] = None,
    errors: Annotated[int, typer.Option(min=0, help="Most likely errors that are named.")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """How far labellers agree, whom to rely on, which labels are likely wrong, and which classes are mixed up."""
    from tidemill.labels.agreement import agreement
    from tidemill.labels.likely_errors import weigh
    from tidemill.labels.recent import noun_of
    from tidemill.labels.words import judged_field, read_said

    machine, resource = _model(name)
    begin = machine.clock.now() - _SPAN if since is None else since.replace(tzinfo=since.tzinfo or UTC)
    said = _told(lambda: read_said(machine.settings.lake_uri, resource, judged_field(resource, field), since=begin))
    classes = resource.spec.prediction.classes
    found = agreement(said, classes, resource.spec.labels.min_agreement, noun=noun_of(resource))
    weighed = weigh(said, classes, most=errors)
    data = {"model": resource.id, "since": begin, "agreement": found, "weighed": weighed}
    emit(data, output, *_agreement_story(found, weighed))


def show_queue(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most lines shown.")] = 20,
    budget: Annotated[
        int | None, typer.Option(min=0, help="About how many to pick of what is new; as many as are shown without.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """What to label next, with the reasons and the probability of each pick; picks are recorded before they are shown.

    Label from the top to the end: what is picked and left out makes estimates wrong.
    """
    from tidemill.cli.models import find, known_status
    from tidemill.labels.recent import next_round, noun_of

    machine, resource = _model(name)
    status = known_status(find(machine, name))
    alarms = status.drift.alarms if status is not None else ()
    asked = _told(
        lambda: next_round(
            machine.settings.lake_uri,
            resource,
            machine.clock.now(),
            limit=limit,
            budget=budget,
            drifted={entity for signal in alarms for entity in signal.entities},
        )
    )
    picks, lines, total = asked.picks, asked.lines, asked.total
    recorded = _record(machine, resource, asked.records)
    round_ = {
        "considered": picks.considered,
        "picked": len(picks.reasons),
        "expected": picks.expected,
        "scale": picks.scale,
        "recorded": recorded,
        "through": asked.through,
    }
    emit({"model": resource.id, "round": round_, "waiting": total, "queue": lines}, output, *_queue_story(lines, total))
    say(
        f"considered {picks.considered:,} new {noun_of(resource)}, picked {len(picks.reasons):,} "
        f"(expected {picks.expected:.1f}); {recorded:,} picks recorded"
    )


def labels_story(found: "Agreement | None") -> Sequence[RenderableType]:
    """The figures in words, for `describe`."""
    if found is None:
        return []
    lines = [found.verdict, *(f"mixed up: {one.question}" for one in found.mixed_up[:3]), *_new(found)]
    return _section("labels of the last 7 days", lines)


def _agreement_story(found: "Agreement", weighed: "Weighed") -> list[RenderableType]:
    told: list[RenderableType] = [
        Text(f"{found.field}: {found.verdict}", style="bold"),
        Text(f"{found.labels:,} last words on {found.items:,}, of which {found.compared:,} by two labellers or more"),
        *(Text(note) for note in found.notes),
    ]
    told += _section("new classes", _new(found))
    rows = [(one.name, one.labels, _figure(one.alpha)) for one in found.classes]
    told += _tabled("classes", ("class", "labels", "alpha against the rest"), rows)
    likes = [
        (one.name, one.labels, _figure(weighed.reliability.get(one.name)), _figure(one.same), _figure(one.overlap))
        for one in found.labellers
    ]
    told += _tabled("labellers", ("labeller", "labels", "reliability", "says what others say", "overlap"), likes)
    pairs = [
        (" and ".join(one.labellers), one.items, _figure(one.same), _figure(one.alpha), _figure(one.overlap))
        for one in found.pairs
    ]
    told += _tabled("pairs of labellers", ("labellers", "both labelled", "same", "alpha", "overlap"), pairs)
    told += _section("mixed up", [line for one in found.mixed_up for line in _mixed(one)])
    told += _likely(weighed)
    return told


def _likely(weighed: "Weighed") -> list[RenderableType]:
    if weighed.why:
        return _section("likely errors", [weighed.why])
    weights = (
        f"{weighed.with_prediction:,} of {weighed.items:,} have a logged prediction, which counts as one more voice"
    )
    ties = f"{weighed.tied:,} are tied and have none: their consensus is as good as drawn" if weighed.tied else ""
    consensus = "consensus: " + ", ".join(f"{count:,} {value}" for value, count in weighed.consensus.items())
    rows = [(one.labeller, one.said, one.consensus, _figure(one.quality), _which(one)) for one in weighed.likely_errors]
    lines = [consensus, weights, *([ties] if ties else []), f"{weighed.contradicted:,} labels contradict it"]
    columns = ("labeller", "said", "consensus", "quality", "of")
    return [*_section("likely errors", lines), *([table(columns, _safe(rows))] if rows else [])]


def _mixed(one: "MixedUp") -> list[str]:
    return [one.question, *(f"  {_which(place)}: {_words(place)}" for place in one.examples)]


def _words(place: "Place") -> str:
    return ", ".join(f"{labeller} {word}" for labeller, word in place.said.items())


def _which(one: "Place | LikelyError | Waiting") -> str:
    if one.event_id is not None:
        return f"event {one.event_id} of {one.entity}"
    return f"prediction {one.prediction_id}"


def _new(found: "Agreement") -> list[str]:
    from tidemill.core.clock import from_ms

    return [
        f"new class {one.value}: {one.labels:,} labels, first {from_ms(one.first_seen):%Y-%m-%d %H:%M} UTC"
        for one in found.new_classes
    ]


def _queue_story(lines: Sequence["Waiting"], total: int) -> list[RenderableType]:
    if not lines:
        return [Text("nothing waits to be labelled")]
    rows = [
        (
            _which(one),
            ", ".join(f"{name} {share:.3g}" for name, share in one.reasons.items()),
            _figure(one.probability, 3),
            one.answer,
            _figure(one.confidence),
            one.picture,
        )
        for one in lines
    ]
    shown = table(("of", "reasons", "probability", "answer", "confidence", "picture"), _safe(rows))
    return [shown, *([Text(f"… and {total - len(lines):,} more")] if total > len(lines) else [])]


def _record(machine: "Local", resource: "ContinualModel", records: Sequence[Any]) -> int:
    """Write the picks to the labels topic; returns when they are safe."""
    from tidemill.events.kafka import RecordWriter

    if records:
        with RecordWriter(machine.settings.require_kafka(), client_id="tidemill-labels-queue") as writer:
            for record in records:
                writer.send(resource.labels_topic, record, key=record.entity)
            writer.flush()
    return len(records)


def _told(read: Any) -> Any:
    """What the lake says, or the reason why not in the words of labels."""
    try:
        return read()
    except NotFound as error:
        raise NotFound("no label or prediction is in the lake yet", hint="is `tidemill outcomes` running?") from error


def _model(name: str) -> "tuple[Local, ContinualModel]":
    from tidemill.cli.models import find
    from tidemill.control.known import known_resource
    from tidemill.wiring import local

    machine = local()
    return machine, known_resource(find(machine, name))


def _figure(value: float | None, digits: int = 2) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _safe(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Cells that give a terminal no orders: much of what they say comes from who sent the label."""
    return [[None if cell is None else _escaped(str(cell)) for cell in row] for row in rows]


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _tabled(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[RenderableType]:
    """A titled table without the columns that are empty throughout; nothing without rows."""
    if not rows:
        return []
    kept = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    shown = [[row[place] for place in kept] for row in rows[:_SHOWN]]
    more = [Text(f"… and {len(rows) - _SHOWN} more (all in the JSON)")] if len(rows) > _SHOWN else []
    head = Text(f"\n{title}", style="bold")
    return [head, table([columns[place] for place in kept], _safe(shown)), *more]


def _section(title: str, lines: Sequence[str]) -> list[RenderableType]:
    if not lines:
        return []
    return [Text(f"\n{title}", style="bold"), *(Text(f"  {_escaped(line)}") for line in lines)]
