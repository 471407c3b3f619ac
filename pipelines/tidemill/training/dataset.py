"""Which rows a run learns from: labelled events that are mature, split by time. Frames in, frames out.

    events ⋈ labels            by entity and event id; of several labels the one that `labels.conflict` takes
    mature                     the event arrived at least `maturity.after` ago
    fresh                      the newest rows by event time: the gate's, never trained on
    new                        not known to the champion's snapshot
    replay                     a seeded sample of the older ones (`replay`), so that what was learnt is kept

What a model sees of a row is the event itself (fields, picture statistics) and its window features: those that were
logged with its first prediction, else those of the event's time (`tidemill.training.windows`).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl

from tidemill.core.clock import to_ms
from tidemill.events.pictures import DIGEST_COLUMN, PictureStore
from tidemill.outcomes.conflict import rule_of
from tidemill.spec.loop import Replay
from tidemill.spec.model import ContinualModel
from tidemill.training.labels import parse_label, states_new_class
from tidemill.training.replay import draw_replay, replay_rows
from tidemill.training.resolved import resolve
from tidemill.training.windows import with_windows

__all__ = [
    "KEY",
    "MIN_TRAIN_ROWS",
    "Known",
    "Labelled",
    "by_event",
    "content",
    "labelled",
    "query_of",
    "reference_rows",
    "split",
    "without",
]

MIN_TRAIN_ROWS = 500
"""Older rows are replayed beyond their share until training has this many: warm starts on a handful overfit."""

_WINDOWS_QUERY = (
    "; window features as logged with the event's first prediction (available_at <= as_of) if its feature_status is "
    "PRESENT or OUTSIDE_MAX_AGE, else V(entity, event_time, event_time) from events, or from labels if it is of them"
)
"""What is added to the query where there are window features."""

KEY = ["entity", "event_id"]
"""The columns that name an event."""
_EVENT_COLUMNS = ["source", "offset", "entity", "event_id", "event_time", "available_at"]
_ROW = ["source", "offset"]


_COUNTS = {
    "last": "the last label",
    "priority": "the last label of the labeller first in labels.priority",
    "majority": "the label that most labellers say, each by their last word",
    "unanimous": "the label that all labellers say, each by their last word",
}


class Known(NamedTuple):
    """What an earlier snapshot could see: the last offset of each source, and the time it was taken (ms)."""

    events: Mapping[str, int]
    labels: Mapping[str, int]
    as_of: int


class Labelled(NamedTuple):
    """The rows that may be learnt from, and what was left out."""

    rows: pl.DataFrame
    """Oldest event first, without their content: source, offset, entity, event_id, event_time, available_at, label
    (JSON), label_source, label_offset, label_at, ready_at (when event and label were both there and mature)."""
    invalid: int
    """Labels that do not fit the resource; those of classes that it does not declare wait until it does."""
    disputed: pl.DataFrame
    """entity, event_id and event_time of mature events whose labellers differ, where `labels.conflict` takes none."""
    words: pl.DataFrame
    """What was said of events with several labellers (`tidemill.training.resolved.WORDS`)."""


def query_of(resource: ContinualModel) -> str:
    """What a snapshot holds, in words."""
    query = (
        f"events joined with {_COUNTS[resource.spec.labels.conflict]} by (entity, event_id); "
        "event.available_at + maturity <= as_of and label.available_at <= as_of"
    )
    return query + (_WINDOWS_QUERY if resource.spec.features.windows else "")


def labelled(
    events: pl.LazyFrame,
    labels: pl.LazyFrame,
    resource: ContinualModel,
    *,
    as_of: int,
    predictions: pl.LazyFrame | None = None,
) -> Labelled:
    """The mature labelled rows, each with the label that counts (`labels.conflict`).

    Args:
        events: the lake's events.
        labels: the lake's labels: by entity and event id, or by prediction id.
        resource: for maturity, conflicts, classes and label fields.
        as_of: milliseconds since the epoch; what arrived later is not seen.
        predictions: the lake's predictions, through which labels by prediction id find their event.
    """
    moment = pl.lit(as_of).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    after = pl.duration(milliseconds=to_ms(resource.spec.labels.maturity.after))
    said = by_event(labels, predictions).filter(pl.col("label_at") <= moment).collect()
    mature = (
        events.select(_EVENT_COLUMNS)
        .with_columns(pl.col("entity").cast(pl.String))
        .filter(pl.col("available_at") + after <= moment)
        .join(said.lazy().select(KEY).unique(), on=KEY, how="semi")
        # An event that its sender repeated is one row: the copy that arrived last.
        .sort("available_at", "source", "offset")
        .unique(KEY, keep="last", maintain_order=True)
        .collect()
    )
    found = resolve(said.join(mature.select(KEY), on=KEY, how="semi"), rule_of(resource.spec.labels))
    rows = (
        mature.join(found.labels, on=KEY)
        .with_columns(ready_at=pl.max_horizontal(pl.col("available_at") + after, "label_at"))
        .sort("event_time", "source", "offset")
    )
    valid = pl.Series([parse_label(text, resource) is not None for text in rows["label"]], dtype=pl.Boolean)
    invalid = [text for text in rows.filter(~valid)["label"] if not states_new_class(text, resource)]
    disputed = mature.join(found.disputed, on=KEY, how="semi").select(*KEY, "event_time").sort("event_time", *KEY)
    return Labelled(rows.filter(valid), len(invalid), disputed, found.words)


def without(parts: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """The rows of a split without training on what is kept for judging versions.

    Args:
        parts: from `split`; fresh rows stay, which are not trained on.
        kept: entity and event_id of the rows of a frozen dataset that versions are judged on.
    """
    train = pl.col("part") != "fresh"
    taken = parts.filter(train).join(kept.select(KEY), on=KEY, how="semi").select("source", "offset")
    return parts.join(taken, on=["source", "offset"], how="anti", maintain_order="left")


def split(
    rows: pl.DataFrame,
    *,
    fresh_rows: int,
    known: Known | None,
    seed: int,
    replay: Replay = Replay(),  # noqa: B008 - frozen
    class_of: Callable[[str], str | None] = lambda label: None,
) -> pl.DataFrame:
    """The rows that are used, each with its `part`: `new`, `replay` or `fresh`.

    Args:
        rows: from `labelled`, oldest event first.
        fresh_rows: how many of the newest are held out.
        known: what the champion's snapshot could see; None: all rows are new.
        seed: of the replay sample.
        replay: which older rows are learnt from again, and what share of the training rows they are.
        class_of: what a label (JSON) states, for a replay that is balanced by it.
    """
    held = min(fresh_rows, rows.height)
    older, fresh = rows.head(rows.height - held), rows.tail(held)
    is_new = pl.lit(True) if known is None else ~_seen_by(known)
    new, pool = older.filter(is_new), older.filter(~is_new)
    size = replay_rows(replay, new=new.height, least=MIN_TRAIN_ROWS)
    classes = [class_of(label) for label in pool["label"]] if replay.strategy == "classBalanced" else None
    drawn = draw_replay(replay, pool.height, size, seed=seed, classes=classes)
    parts = [(new, "new"), (pool[drawn], "replay"), (fresh, "fresh")]
    return pl.concat([part.with_columns(part=pl.lit(name)) for part, name in parts]).sort(
        "event_time", "source", "offset"
    )


def content(
    events: pl.LazyFrame,
    rows: pl.DataFrame,
    resource: ContinualModel,
    pictures: PictureStore,
    *,
    labels: pl.LazyFrame | None = None,
    predictions: pl.LazyFrame | None = None,
    as_of: int | None = None,
) -> pl.DataFrame:
    """The rows with what a model sees of them: fields (the image's bytes too), picture statistics, window features.

    Args:
        events: the lake's events.
        rows: from `split`.
        resource: for the names.
        pictures: has those that are not in their rows.
        labels: the lake's labels, for windows over them.
        predictions: the lake's predictions, whose logged window features are preferred.
        as_of: milliseconds since the epoch; predictions that arrived later are not seen.

    Raises:
        NotFound: a picture is not in the store.
        Corrupt: it is there and is another.
    """
    columns = [field.name for field in resource.spec.events.fields] + list(resource.spec.features.image)
    stored = [name for name in ("event_date", DIGEST_COLUMN) if name in events.collect_schema()]
    if rows.is_empty():
        found = events.select(_ROW + columns + stored).clear().collect()
    else:
        found = (
            events.filter(
                pl.col("event_time").is_between(rows["event_time"].min(), rows["event_time"].max())
                & (pl.col("offset").is_between(rows["offset"].min(), rows["offset"].max()))
            )
            .select(_ROW + columns + stored)
            .join(rows.lazy().select(_ROW), on=_ROW, how="semi")
            .collect()
        )
    if resource.image_field is not None:
        found = pictures.fill(found, resource.image_field.name)
    seen = rows.join(found.select(_ROW + columns), on=_ROW, how="inner", maintain_order="left")
    return with_windows(seen, events, resource, labels=labels, predictions=predictions, as_of=as_of)


def reference_rows(
    events: pl.LazyFrame, rows: pl.DataFrame, resource: ContinualModel, *, since: datetime | None = None
) -> pl.DataFrame:
    """The inputs that drift from this version is measured against: all events of its newest time, labelled or not.

    Live votes are means over all of an entity's rows in a tick, so a labelled sample would spread more than they do.

    Args:
        events: the lake's events.
        rows: from `split`; the time is theirs, the replayed ones aside.
        resource: for the features that are watched.
        since: where drift was the cause, the event time since which the inputs are what they are now.

    Returns:
        Columns entity, event_time and each watched feature and category, oldest first.
    """
    columns = ["entity", "event_time", *resource.watched_features, *resource.watched_categories]
    newest = rows.filter(pl.col("part") != "replay")["event_time"]
    if newest.is_empty():
        return events.select(columns).clear().collect()
    start = newest.min() if since is None else since
    return (
        events.filter(pl.col("event_time").is_between(start, newest.max()))
        .select(*columns, *_ROW)
        # Files are read in any order: without the offset, events of one time would stand in any order, too.
        .sort("event_time", *_ROW)
        .select(columns)
        .collect()
    )


def by_event(labels: pl.LazyFrame, predictions: pl.LazyFrame | None) -> pl.LazyFrame:
    """Labels with the event that they are about.

    Columns entity, event_id, labeller, label_source, label_offset, label (JSON), label_at.

    Args:
        labels: the lake's labels; what is refused, or says why something was picked, is left out.
        predictions: the lake's predictions, through which labels by prediction id find their event.
    """
    columns = {"label_source": "source", "label_offset": "offset", "label": "value", "label_at": "available_at"}
    named = labels.select(
        "entity", "event_id", "prediction_id", "labeller", **{new: pl.col(old) for new, old in columns.items()}
    )
    # A refused label has no value; a label names an event or a prediction.
    named = named.filter(pl.col("label").is_not_null())
    direct = named.filter(pl.col("event_id").is_not_null()).drop("prediction_id")
    if predictions is None:
        return direct
    about = predictions.select("prediction_id", "entity", "event_id").filter(pl.col("event_id").is_not_null())
    by_prediction = (
        named.filter(pl.col("event_id").is_null()).drop("entity", "event_id").join(about, on="prediction_id")
    )
    return pl.concat([direct, by_prediction.select(direct.collect_schema().names())])


def _seen_by(known: Known) -> pl.Expr:
    """Whether the earlier snapshot had the event, had this label, and found both mature."""
    return (
        (pl.col("offset") <= _last(known.events, "source"))
        & (pl.col("label_offset") <= _last(known.labels, "label_source"))
        & (pl.col("ready_at").dt.epoch("ms") <= known.as_of)
    )


def _last(offsets: Mapping[str, int], column: str) -> pl.Expr:
    """The last offset known of the row's source; -1 for a source that was not there."""
    if not offsets:
        return pl.lit(-1)
    return pl.col(column).replace_strict(dict(offsets), default=-1, return_dtype=pl.Int64)
