"""Predictions to look at: of a slice, by confidence, kind of error, station and time; with their pictures and labels.

Only the newest are looked at, whatever is asked for: a page is to be there within a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal, get_args

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.dashboard.queries.groups import groups_of
from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.events.pictures import DIGEST_COLUMN
from tidemill.labels.words import judged_field
from tidemill.outcomes.tables import OUTCOMES
from tidemill.spec.model import ContinualModel

__all__ = [
    "KINDS",
    "LOOKED_AT",
    "Box",
    "Found",
    "Kind",
    "Picture",
    "Thing",
    "Wanted",
    "box_of",
    "browse",
    "thing_of_answer",
    "things_of",
    "things_of_events",
]

Kind = Literal["any", "wrong", "missed", "false alarm", "confused", "box", "right", "unlabelled", "disputed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Box = tuple[float, float, float, float]

LOOKED_AT = 20_000
"""Newest predictions among which is looked."""
_WRONG = 0.5
"""A loss above it is an error; of a box it is one less its overlap."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; every part narrows it."""

    entity: str = ""
    version: str = ""
    answer: str = ""
    kind: Kind = "any"
    least: float = 0.0
    most: float = 1.0
    """Confidence."""
    minutes: int = 0
    """Only of the last so many; 0: any time."""
    order: Literal["newest", "least sure", "surest"] = "newest"
    groups: tuple[tuple[str, str], ...] = ()
    """Names of declared slices (`groups_of`) and the value of each."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a picture is: its event's day, and its digest in the store, or its bytes where the event holds them."""

    day: date
    digest: str | None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """One prediction, and what turned out to be true."""

    prediction_id: str
    version: str
    entity: str
    event_id: str | None
    at: int
    """When it was made, milliseconds since the epoch."""
    answer: str
    confidence: float | None
    box: Box | None
    label: str | None
    """What counts as true; None: nothing yet."""
    label_box: Box | None
    loss: float | None
    kind: Kind
    picture: Picture | None = None
    assumed: bool = False
    """`label` is what nobody said by the horizon (`labels.maturity.absent: negative`)."""

    @property
    def about(self) -> dict[str, str]:
        """How a label names it: by its event where it has one, so that it counts for each answer to the event."""
        if self.event_id is not None:
            return {"entity": self.entity, "event_id": self.event_id}
        return {"prediction_id": self.prediction_id}


@dataclass(frozen=True, slots=True)
class Found:
    """A page of things, and what one may look for."""

    things: tuple[Thing, ...]
    total: int
    """How many there are among those that were looked at."""
    looked_at: int
    entities: tuple[str, ...]
    versions: tuple[str, ...]
    answers: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The values of each declared slice."""


def browse(lake: str, resource: ContinualModel, wanted: Wanted, now: datetime, *, limit: int, skip: int = 0) -> Found:
    """A page of what is wanted. Nothing before there are predictions; raises `Unavailable`."""
    rows = _predictions(lake, resource, wanted, now)
    if rows.is_empty():
        return Found((), 0, 0, (), (), ())
    rows = _judged(rows, lake, resource, wanted.entity)
    chosen = _ordered(rows.filter(_asked(wanted)), wanted)
    page = [_thing(row, resource) for row in chosen.slice(skip, limit).iter_rows(named=True)]
    return Found(
        things=tuple(_with_pictures(lake, resource, page)),
        total=chosen.height,
        looked_at=rows.height,
        entities=_names(rows["entity"]),
        versions=_names(rows["version"]),
        answers=_names(rows["answer"]),
        groups=tuple((name, _names(rows[_GROUP + name])) for name in groups_of(resource)),
    )


def things_of(lake: str, resource: ContinualModel, ids: Sequence[str]) -> tuple[Thing, ...]:
    """The things of some predictions, in their order; those that are not there are left out. Raises `Unavailable`."""
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    if not ids or not table.exists:
        return ()
    rows = table.collect(table.scan().filter(pl.col("prediction_id").is_in(list(ids))).select(_COLUMNS))
    found = [_thing(row, resource) for row in _judged(_answered(rows, resource), lake, resource).iter_rows(named=True)]
    by_id = {one.prediction_id: one for one in _with_pictures(lake, resource, found)}
    return tuple(by_id[name] for name in ids if name in by_id)


def things_of_events(lake: str, resource: ContinualModel, events: Sequence[tuple[str, str]]) -> tuple[Thing, ...]:
    """The newest answer to each event (entity and id); of one that nobody asked about the event alone.

    Raises `NotFound` before there are predictions, `Unavailable`.
    """
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    wanted = pl.col("event_id").is_in([event for _, event in events])
    rows = table.collect(table.scan().filter(wanted).select("prediction_id", "entity", "event_id", "predicted_at"))
    newest = {(entity, event): name for name, entity, event, _ in rows.sort("predicted_at").iter_rows()}
    known = things_of(lake, resource, [newest[one] for one in events if one in newest])
    by_event = {(one.entity, one.event_id): one for one in known}
    alone = _with_pictures(lake, resource, [_unasked(*one) for one in events if one not in newest])
    return (*by_event.values(), *alone)


def _unasked(entity: str, event_id: str) -> Thing:
    return Thing(
        prediction_id=f"{entity}/{event_id}",
        version="",
        entity=entity,
        event_id=event_id,
        at=0,
        answer="nobody asked",
        confidence=None,
        box=None,
        label=None,
        label_box=None,
        loss=None,
        kind="unlabelled",
    )


def _predictions(lake: str, resource: ContinualModel, wanted: Wanted, now: datetime) -> pl.DataFrame:
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    try:
        rows = table.scan()
    except NotFound:
        return pl.DataFrame()
    if wanted.minutes:
        since = now - timedelta(minutes=wanted.minutes)
        rows = rows.filter(pl.col("event_date") >= since.date(), pl.col("predicted_at") >= since)
    if wanted.entity:
        rows = rows.filter(pl.col("entity") == wanted.entity)
    groups = groups_of(resource)
    columns = [*_COLUMNS, *(["features"] if groups else [])]
    # First the times alone: then only the files of the newest are read with all that is asked of them.
    oldest = table.collect(rows.select("predicted_at").top_k(LOOKED_AT, by="predicted_at"))["predicted_at"].min()
    if oldest is None:
        return pl.DataFrame()
    newest = rows.filter(pl.col("predicted_at") >= oldest).select(columns).top_k(LOOKED_AT, by="predicted_at")
    values = [pl.col("features").str.json_path_match(f"$.{name}").alias(_GROUP + name) for name in groups]
    return _answered(table.collect(newest).with_columns(values), resource)


_GROUP = "slice "
"""Before the name of a column of a slice's values."""
_COLUMNS = ("prediction_id", "version", "entity", "event_id", "predicted_at", "event_date", "output")


def _answered(rows: pl.DataFrame, resource: ContinualModel) -> pl.DataFrame:
    """One row a prediction, with its answer and how sure it was."""
    answer = "$.class" if resource.spec.prediction.classes else "$.value"
    return rows.unique("prediction_id", keep="first").with_columns(
        pl.col("output").str.json_path_match(answer).fill_null("").alias("answer"),
        pl.col("output").str.json_path_match("$.confidence").cast(pl.Float64, strict=False).alias("confidence"),
    )


def _judged(rows: pl.DataFrame, lake: str, resource: ContinualModel, entity: str = "") -> pl.DataFrame:
    """The rows with the newest outcome of each, and the kind of error that it is. `entity`: whose they all are."""
    table = LakeTable(table_uri(lake, resource.id, "outcomes"))
    try:
        outcomes = with_missing(table.scan(), OUTCOMES)
    except NotFound:
        empty: dict[str, Any] = {
            "label": pl.String(),
            "loss": pl.Float64(),
            "disputed": pl.Boolean(),
            "assumed": pl.Boolean(),
        }
        return rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in empty.items()).with_columns(
            said=pl.lit(None, pl.String()), kind=pl.lit("unlabelled")
        )
    days = rows["event_date"]
    within = pl.col("event_date").is_between(days.min(), days.max())
    within &= pl.col("predicted_at") >= rows["predicted_at"].min()
    if entity:  # labels of the others, which are most of what is stored, need not be read then
        within &= pl.col("entity") == entity
    wanted = ("prediction_id", "revision", "label", "loss", "disputed", "assumed")
    known = table.collect(outcomes.filter(within).select(wanted))
    last = known.sort("revision").unique("prediction_id", keep="last").drop("revision")
    joined = rows.join(last, on="prediction_id", how="left")
    field = judged_field(resource).name
    said = pl.col("label").str.json_path_match(f"$.{field}").alias("said")
    return joined.with_columns(said).with_columns(_kind(resource).alias("kind"))


def _kind(resource: ContinualModel) -> pl.Expr:
    """What sort of answer it was. The first class means that nothing was found."""
    classes = resource.spec.prediction.classes
    wrong, same = pl.col("loss") > _WRONG, pl.col("said") == pl.col("answer")
    is_disputed = pl.when(pl.col("disputed").fill_null(False)).then(pl.lit("disputed"))
    found = is_disputed.when(pl.col("loss").is_null()).then(pl.lit("unlabelled")).when(~wrong).then(pl.lit("right"))
    if not classes:
        return found.otherwise(pl.lit("wrong"))
    nothing = pl.lit(classes[0])
    return (
        found.when(same)
        .then(pl.lit("box"))
        .when(pl.col("answer") == nothing)
        .then(pl.lit("missed"))
        .when(pl.col("said") == nothing)
        .then(pl.lit("false alarm"))
        .otherwise(pl.lit("confused"))
    )


def _asked(wanted: Wanted) -> pl.Expr:
    kept = pl.lit(True)
    if wanted.version:
        kept &= pl.col("version") == wanted.version
    for name, value in wanted.groups:
        kept &= pl.col(_GROUP + name) == value
    if wanted.answer:
        kept &= pl.col("answer") == wanted.answer
    if wanted.least > 0 or wanted.most < 1:
        kept &= pl.col("confidence").is_between(wanted.least, wanted.most).fill_null(False)
    if wanted.kind == "wrong":
        kept &= (pl.col("loss") > _WRONG).fill_null(False)
    elif wanted.kind != "any":
        kept &= pl.col("kind") == wanted.kind
    return kept


def _ordered(rows: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    if wanted.order == "newest":
        return rows.sort("predicted_at", "prediction_id", descending=True)
    return rows.sort("confidence", "prediction_id", descending=wanted.order == "surest", nulls_last=True)


def _thing(row: Mapping[str, Any], resource: ContinualModel) -> Thing:
    output = msgspec.json.decode(row["output"])
    label = msgspec.json.decode(row["label"]) if row["label"] else {}
    field = next((one.name for one in resource.spec.labels.fields if one.type == "box"), None)
    return Thing(
        prediction_id=row["prediction_id"],
        version=row["version"],
        entity=row["entity"],
        event_id=row["event_id"],
        at=to_ms(row["predicted_at"]),
        answer=row["answer"],
        confidence=row["confidence"],
        box=box_of(output.get("box")),
        label=row["said"],
        assumed=bool(row.get("assumed")),
        label_box=box_of(label.get(field)) if field else None,
        loss=row["loss"],
        kind=row["kind"],
    )


def thing_of_answer(row: Mapping[str, Any], resource: ContinualModel) -> Thing:
    """The thing of an answer that is not in the lake (columns of `predictions`): nothing judges it by itself."""
    answered = _answered(pl.DataFrame([{name: row[name] for name in ("prediction_id", "output")}]), resource)
    unjudged = {"label": None, "said": None, "loss": None, "kind": "unlabelled"}
    return _thing({**row, **answered.row(0, named=True), **unjudged}, resource)


def box_of(value: Any) -> Box | None:
    """Four numbers, or None for anything else that a record may hold."""
    if not isinstance(value, Sequence) or len(value) != 4 or not all(isinstance(one, int | float) for one in value):
        return None
    x0, y0, x1, y1 = map(float, value)
    return x0, y0, x1, y1


def _with_pictures(lake: str, resource: ContinualModel, things: list[Thing]) -> list[Thing]:
    """The things with their pictures, where the model has some that may be shown."""
    image = resource.image_field
    if image is None or image.name in resource.spec.serving.log.redact:
        return things
    ids = [one.event_id for one in things if one.event_id is not None]
    table = LakeTable(table_uri(lake, resource.id, "events"))
    if not ids or not table.exists:
        return things
    columns = {DIGEST_COLUMN: pl.String(), image.name: pl.Binary()}
    rows = with_missing(table.scan(), columns).filter(pl.col("event_id").is_in(ids))
    known = table.collect(rows.select("entity", "event_id", "event_date", DIGEST_COLUMN, image.name))
    places = {
        (entity, event_id): Picture(day, digest, data) for entity, event_id, day, digest, data in known.iter_rows()
    }
    return [_pictured(one, places.get((one.entity, one.event_id or ""))) for one in things]


def _pictured(one: Thing, picture: Picture | None) -> Thing:
    return one if picture is None else replace(one, picture=picture)


def _names(values: pl.Series) -> tuple[str, ...]:
    return tuple(sorted(values.drop_nulls().unique().head(500).to_list()))
