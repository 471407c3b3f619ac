"""Sketches of predictions and labels: what the watch compares with the candidate's answers at its gate.

Votes are as ingest's (`tidemill.events.tallies`), of these features:

    prediction.class         a category; of a regression prediction.value, a number
    prediction.confidence    a number
    label.<field>            a category (class, bool) or a number (float, int)

How many rows an entity has in a tick differs from what the reference had: labels come in piles. A category's vote is a
share, whose mean does not depend on that. The mean of many numbers would spread less, so a number's vote is one row,
the first by offset.

Predictions stand in the tick of their own time if they arrived no later than `allowedLateness`, under the version that
made them. Labels stand in the tick of their arrival: how long people take is not drift. A label by prediction id alone
names no entity; all such share one, "".

**Once each** (see `Sketch`): a range is what one commit of the lake's table took. The last range's sketch is written
before each commit and on start, whoever committed it, and again where this process has not seen it acknowledged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.events.cells import grid, packed
from tidemill.events.kafka import RecordWriter
from tidemill.events.lake import LakeTable, Span
from tidemill.events.parts import SketchWriter, in_parts
from tidemill.events.records import Sketch, TickVotes, Topics, Votes
from tidemill.events.sources import Source
from tidemill.events.tallies import bounded, tally
from tidemill.spec.model import ContinualModel, DriftTrigger

__all__ = ["Answers", "Kind", "Sketches", "label_answers", "prediction_answers", "sketches"]

_TICK = "#tick"


@dataclass(frozen=True)
class Answers:
    """What is watched of a table's JSON column."""

    column: str
    paths: Mapping[str, str]
    """Key in the JSON object by feature."""
    numbers: Sequence[str]
    categories: Sequence[str]

    def columns(self) -> list[pl.Expr]:
        """The features as columns, null where the object has none: text, or a number."""
        found = {name: pl.col(self.column).str.json_path_match(f"$.{key}") for name, key in self.paths.items()}
        return [
            of.cast(pl.Float64, strict=False).alias(name) if name in self.numbers else of.alias(name)
            for name, of in found.items()
        ]


def prediction_answers(resource: ContinualModel) -> Answers:
    """What is watched of an answer."""
    if resource.spec.prediction.type == "regression":
        return Answers("output", {"prediction.value": "value"}, ["prediction.value"], [])
    paths = {"prediction.class": "class", "prediction.confidence": "confidence"}
    return Answers("output", paths, ["prediction.confidence"], ["prediction.class"])


def label_answers(resource: ContinualModel) -> Answers:
    """What is watched of a label."""
    kinds = {field.name: field.type for field in resource.spec.labels.fields}
    numbers = [f"label.{name}" for name, kind in kinds.items() if kind in {"float", "int"}]
    categories = [f"label.{name}" for name, kind in kinds.items() if kind in {"class", "bool"}]
    paths = {name: name.removeprefix("label.") for name in (*numbers, *categories)}
    return Answers("value", paths, numbers, categories)


class Kind:
    """How the rows of one table become sketches: of predictions (`output`) or of labels (`value`)."""

    def __init__(self, resource: ContinualModel, table: LakeTable, answers: Answers) -> None:
        self.table, self.answers = table, answers
        trigger = resource.spec.triggers.drift or DriftTrigger()
        self.tick_ms = to_ms(trigger.every)
        self.lateness_ms = to_ms(resource.spec.events.allowed_lateness)
        self.by_version = answers.column == "output"
        self.columns = ["source", "offset", "entity", "available_at", answers.column]
        self.columns += ["version", "predicted_at"] if self.by_version else []


class Sketches:
    """Writes the sketches of a model's predictions and labels, as far as its resource says that they are watched.

    Args:
        resource: the model.
        predictions: the lake's table of them.
        labels: likewise.
        writer: for the sketches.

    Methods raise `Unavailable` where the lake or Kafka does not answer; calling again is safe.
    """

    def __init__(
        self, resource: ContinualModel, predictions: LakeTable, labels: LakeTable, writer: RecordWriter
    ) -> None:
        trigger = resource.spec.triggers.drift
        watch = trigger.watch if trigger is not None else ()
        self._kinds: dict[LakeTable, Kind] = {}
        if "predictions" in watch:
            self._kinds[predictions] = Kind(resource, predictions, prediction_answers(resource))
        if "labels" in watch and label_answers(resource).paths:
            self._kinds[labels] = Kind(resource, labels, label_answers(resource))
        topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        self._writer = SketchWriter(writer, topics.sketches)

    def announce(self, table: LakeTable, sources: Iterable[Source]) -> None:
        """Write the sketch of each source's last commit, whoever made it, unless this process did so already."""
        self._tell(table, {source: span for source in sources if (span := table.last_span(source))}, None)

    def committed(self, table: LakeTable, spans: Mapping[Source, Span], rows: pl.DataFrame) -> None:
        """Write the sketches of a commit that this process just made, of these spans; `rows` has all that it took."""
        self._tell(table, spans, rows)

    def _tell(self, table: LakeTable, spans: Mapping[Source, Span], rows: pl.DataFrame | None) -> None:
        kind = self._kinds.get(table)
        if kind is None:
            return

        def made(source: Source, span: Span) -> list[Sketch]:
            if rows is None:
                found = table.collect(table.scan().filter(span.of(source)).select(kind.columns))
            else:
                found = rows.filter(span.of(source))
            return sketches(kind, source, span, found)

        self._writer.tell(spans.items(), made)


def sketches(kind: Kind, source: Source, span: Span, rows: pl.DataFrame) -> list[Sketch]:
    """The sketch of one span, in parts where it would be too large."""
    return in_parts(partial(_sketch, kind, source), span, rows)


def _sketch(kind: Kind, source: Source, span: Span, rows: pl.DataFrame) -> Sketch:
    """The sketch of one span; `rows` are the table's rows of that source and span, in any order."""
    time = "predicted_at" if kind.by_version else "available_at"
    latest = rows.select(pl.col(time).dt.epoch("ms").max()).item() if rows.height else 0
    votes, answers = Votes(), dict[str, Votes]()
    there = rows.filter(pl.col(kind.answers.column).is_not_null())
    if kind.by_version:
        late = (pl.col("available_at") - pl.col(time)).dt.total_milliseconds()
        there = there.filter(late <= kind.lateness_ms)
    there = there.sort("offset").select(
        pl.col("entity").fill_null(""),
        (pl.col(time).dt.epoch("ms") // kind.tick_ms).alias(_TICK),
        *(["version"] if kind.by_version else []),
        *kind.answers.columns(),
    )
    if kind.by_version:
        for (version,), part in there.group_by("version", maintain_order=True):
            answers[str(version)] = _tally(kind.answers, part)
        answers = _bounded(dict(sorted(answers.items())))
    elif there.height:
        votes = _tally(kind.answers, there)
    return Sketch(
        source=str(source),
        first_offset=span.after + 1,
        last_offset=span.upto,
        max_event_time=latest or 0,
        tick_ms=kind.tick_ms,
        of="predictions" if kind.by_version else "labels",
        votes=votes,
        answers=answers,
    )


def _tally(answers: Answers, rows: pl.DataFrame) -> Votes:
    """Votes of rows in the order of their offsets."""
    first = pl.struct(_TICK, "entity").is_first_distinct()
    rows = rows.with_columns(pl.when(first).then(pl.col(name)).alias(name) for name in answers.numbers)
    votes = tally(rows, rows[_TICK].to_numpy(), numbers=answers.numbers, categories=answers.categories)
    return {tick: _asked_once(of, answers.numbers) for tick, of in votes.items()} if answers.numbers else votes


def _asked_once(votes: TickVotes, numbers: Sequence[str]) -> TickVotes:
    """The votes as if of a number there were the first row alone."""
    cells, of = grid(votes).copy(), [votes.features.index(name) for name in numbers]
    cells[2][:, of] = 1 - cells[0][:, of]
    return packed(votes.entities, votes.features, cells, votes.values, votes.kept)


def _bounded(answers: Mapping[str, Votes]) -> dict[str, Votes]:
    """Without the entities above the bounds, which are those of all versions together."""
    kept: dict[int, float] = {}
    for votes in answers.values():
        for tick, of in votes.items():
            kept[tick] = min(of.kept, kept.get(tick, 1.0))
    return {
        version: {tick: bounded(of, tick, len(of.entities), kept[tick]) for tick, of in votes.items()}
        for version, votes in answers.items()
    }
