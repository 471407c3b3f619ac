"""What the index no longer has, found in the lake: predictions, and the labels that were heard of them.

The lake's tables `predictions` and `resolved` are the two logs that outcomes follow from, with their offsets and
marks. So a prediction that is read here is judged as it would have been in the index: by the same function of the
same log (`tidemill.outcomes.join`). Rows of a topic that was made anew since are left out: their offsets mean
something else.

Searches are for many at once and read as little as can be: days of partitions, and of the files those row groups
whose range of ids is asked for (ids that sort by time lie close together).
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import polars as pl

from tidemill.core.ids import time_of
from tidemill.events.lake import LakeTable
from tidemill.events.sources import Source
from tidemill.outcomes.conflict import Heard
from tidemill.outcomes.join import Indexed, Terms
from tidemill.outcomes.log import Channel
from tidemill.outcomes.tables import Tables

__all__ = ["Archive", "Event", "Waiting"]

Event = tuple[str, str]
"""(entity, event id)."""

_DAY = timedelta(days=1)

_PREDICTION = [
    "source",
    "offset",
    "prediction_id",
    "version",
    "entity",
    "event_id",
    "request_id",
    "output",
    "cohort",
    "sample",
    "terms",
]
_LABEL = ["source", "offset", "place", "prediction_id", "label_id", "value", "reasons", "labeller", "through"]


class Waiting(NamedTuple):
    """A prediction whose horizon is to come; `due_at` in milliseconds."""

    offset: int
    prediction_id: str
    due_at: int


class Archive:
    """Reads the lake of one model.

    Args:
        tables: the lake's tables.
        sources: the topics' partitions as they are now.
        terms: their times are those of predictions from before the lake knew them.
        ahead: how long a label may stand before its prediction, at most.
    """

    def __init__(
        self, tables: Tables, sources: Mapping[Channel, Mapping[int, Source]], terms: Terms, ahead: timedelta
    ) -> None:
        self._predictions, self._resolved = tables.predictions.table, tables.resolved.table
        self._sources = {str(source): part for part, source in sources[Channel.PREDICTIONS].items()}
        self._heard = {str(source) for source in sources[Channel.RESOLVED].values()}
        self._parts = sources[Channel.PREDICTIONS]
        self._terms: dict[str | None, Terms] = {None: Terms(terms.after, terms.horizon)}
        self._ahead = ahead
        self._begins: date | None = None

    def begins(self) -> date | None:
        """The first day of which the lake has predictions; None while it has none. Asked once of the lake."""
        if self._begins is None and self._predictions.exists:
            days = self._predictions.collect(self._predictions.scan().select(pl.col("event_date").min()))
            self._begins = days.item()
        return self._begins

    def recall(self, predictions: Collection[str]) -> dict[str, tuple[Indexed, list[Heard]]]:
        """Those of the predictions that the lake has, each with the labels that were heard of it."""
        if not predictions or not self._predictions.exists:
            return {}
        times = [time_of(prediction) for prediction in predictions]
        known = [_day(time) for time in times if time is not None]
        # The id's time is the server's; the row's day is that of the answer or of its arrival.
        days = {day + n * _DAY for day in known for n in (-1, 0, 1)}
        within = pl.col("event_date").is_in(list(days)) if len(known) == len(times) else pl.lit(value=True)
        rows = _about(self._predictions, predictions, within, [*_PREDICTION, *_ms("predicted_at", "available_at")])
        # Of several records of a prediction the first in the log counts.
        found = {row["prediction_id"]: self._indexed(row) for row in rows if row["source"] in self._sources}
        heard = self._labels(found)
        return {of: (prediction, heard.get(of, [])) for of, prediction in found.items()}

    def of_events(self, events: Collection[Event], days: tuple[date, date]) -> dict[Event, list[tuple[str, int]]]:
        """The (id, partition) of the predictions of each event, of those made between two days."""
        if not events or not self._predictions.exists:
            return {}
        ids = pl.Series([event_id for _, event_id in events]).unique()
        rows = self._predictions.scan().filter(pl.col("event_date").is_between(*days) & _among("event_id", ids))
        columns = ("entity", "event_id", "prediction_id", "source")
        wanted = set(events)
        found: dict[Event, dict[str, int]] = {}
        for entity, event_id, prediction, source in self._predictions.collect(rows.select(columns)).rows():
            if (entity, event_id) in wanted and source in self._sources:
                found.setdefault((entity, event_id), {})[prediction] = self._sources[source]
        return {event: list(predictions.items()) for event, predictions in found.items()}

    def waiting(self, part: int, offset: int, most: int) -> tuple[list[Waiting], int]:
        """Predictions of a partition from an offset on, in log order, and the offset before which these are all.

        Left out are those of which a missing label says nothing.
        """
        source = self._parts[part]
        upto = self._predictions.version_of(source)
        if upto is None or upto < offset:
            return [], offset
        rows = self._predictions.collect(
            self._predictions.scan()
            .filter((pl.col("offset") >= offset) & (pl.col("source") == str(source)))
            .select("offset", "prediction_id", "terms", *_ms("predicted_at", "available_at"))
            .sort("offset")
            .head(most)
        )
        found = []
        for at, prediction, text, predicted_at, appended_at in rows.rows():
            terms = self._terms_of(text)
            if terms.rule.assumes:
                found.append(Waiting(at, prediction, max(predicted_at + terms.horizon, appended_at)))
        return found, rows["offset"][-1] + 1 if rows.height == most else upto + 1

    def _labels(self, predictions: Mapping[str, Indexed]) -> dict[str, list[Heard]]:
        if not predictions or not self._resolved.exists:
            return {}
        first = _day(min(prediction.predicted_at for prediction in predictions.values())) - self._ahead - _DAY
        heard: dict[str, list[Heard]] = {}
        columns: list[str | pl.Expr] = [*_LABEL, *_ms("available_at")]
        for row in _about(self._resolved, predictions, pl.col("available_date") >= first, columns):
            if row["source"] not in self._heard:
                continue
            value, reasons = row["value"], row["reasons"]
            label = Heard(
                row["label_id"],
                None if value is None else msgspec.json.decode(value),
                row["labeller"],
                row["available_at"],
                row["offset"],
                row["through"],
                row["place"],
                {} if reasons is None else msgspec.json.decode(reasons),
            )
            heard.setdefault(row["prediction_id"], []).append(label)
        return heard

    def _indexed(self, row: Mapping[str, Any]) -> Indexed:
        terms = self._terms_of(row["terms"])
        return Indexed(
            row["prediction_id"],
            row["version"],
            row["entity"],
            row["event_id"],
            row["request_id"],
            msgspec.json.decode(row["output"]),
            predicted_at=row["predicted_at"],
            eligible_at=row["predicted_at"] + terms.after,
            final_at=row["predicted_at"] + terms.horizon,
            appended_at=row["available_at"],
            partition=self._sources[row["source"]],
            offset=row["offset"],
            cohort=row["cohort"],
            sample=1.0 if row["sample"] is None else row["sample"],
            rule=terms.rule,
        )

    def _terms_of(self, text: str | None) -> Terms:
        if text not in self._terms:
            self._terms[text] = msgspec.json.decode(text or "", type=Terms)
        return self._terms[text]


def _about(
    table: LakeTable, predictions: Collection[str], within: pl.Expr, columns: Iterable[str | pl.Expr]
) -> Iterable[dict[str, Any]]:
    """Rows about these predictions, the last ones in the log first."""
    wanted = within & _among("prediction_id", pl.Series(list(predictions)))
    rows = table.collect(table.scan().filter(wanted).select(*columns))
    return rows.sort("offset", descending=True).iter_rows(named=True)


def _among(column: str, ids: pl.Series) -> pl.Expr:
    """Whether it is one of these; the range first, by which row groups are passed over unread."""
    return pl.col(column).is_between(pl.lit(ids.min()), pl.lit(ids.max())) & pl.col(column).is_in(ids.implode())


def _ms(*columns: str) -> list[pl.Expr]:
    return [pl.col(name).dt.epoch("ms") for name in dict.fromkeys(columns)]


def _day(time: int) -> date:
    return datetime.fromtimestamp(time / 1000, UTC).date()
