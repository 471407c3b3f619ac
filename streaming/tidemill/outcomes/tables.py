"""The lake's tables of predictions, labels and outcomes: their columns, and rows from records.

Times are UTC. `available_at` is when the record arrived in the log. Answers, features and label values are JSON
text, as they vary from model to model; the columns that joins and filters need are columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction
from tidemill.events.sources import Source
from tidemill.labels.parse import KnownLabel
from tidemill.outcomes.counts import COUNTS
from tidemill.outcomes.join import Heard
from tidemill.outcomes.log import Raw
from tidemill.outcomes.sketches import Sketches

__all__ = [
    "Refused",
    "Tables",
    "label_columns",
    "mark_of",
    "outcome_columns",
    "prediction_columns",
    "refused_columns",
    "resolved_columns",
]

_TIME = pl.Datetime("us", "UTC")

_PLACE: dict[str, Any] = {"source": pl.String(), "offset": pl.Int64()}

PREDICTIONS: dict[str, Any] = _PLACE | {
    "prediction_id": pl.String(),
    "version": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "request_id": pl.String(),
    "cohort": pl.String(),
    "predicted_at": _TIME,
    "available_at": _TIME,
    "output": pl.String(),
    "features": pl.String(),
    "feature_status": pl.String(),
    "feature_statuses": pl.String(),
    "fence": pl.String(),
    "boot": pl.String(),
    "seq": pl.Int64(),
    "sample": pl.Float64(),
    "answered": pl.Int64(),
    "redacted": pl.String(),
    "terms": pl.String(),
    "event_date": pl.Date(),
}

"""`terms` says how the row is judged (`tidemill.outcomes.join.Terms`), the same text in most rows."""

LABELS: dict[str, Any] = _PLACE | {
    "label_id": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "prediction_id": pl.String(),
    "labeller": pl.String(),
    "value": pl.String(),
    "reasons": pl.String(),
    "event_time": _TIME,
    "available_at": _TIME,
    "repair": pl.Boolean(),
    "refused": pl.String(),
    "original": pl.Binary(),
    "available_date": pl.Date(),
}
"""A refused label has its reason in `refused` and its bytes in `original`; ids and value are null then.

A row with `reasons` says that a prediction was picked to be labelled; its value is null, too.
"""

RESOLVED: dict[str, Any] = _PLACE | {
    "prediction_id": pl.String(),
    "label_id": pl.String(),
    "value": pl.String(),
    "reasons": pl.String(),
    "labeller": pl.String(),
    "available_at": _TIME,
    "place": pl.Int64(),
    "through": pl.Int64(),
    "available_date": pl.Date(),
}
"""The log of resolved labels, kept for labels of predictions that the index no longer has."""

OUTCOMES: dict[str, Any] = _PLACE | {
    "prediction_id": pl.String(),
    "revision": pl.Int64(),
    "version": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "request_id": pl.String(),
    "predicted_at": _TIME,
    "eligible_at": _TIME,
    "available_at": _TIME,
    "output": pl.String(),
    "label": pl.String(),
    "label_age_ms": pl.Int64(),
    "loss": pl.Float64(),
    "lost": pl.Int64(),
    "maybe_lost": pl.Int64(),
    "cohort": pl.String(),
    "assumed": pl.Boolean(),
    "disputed": pl.Boolean(),
    "sample": pl.Float64(),
    "probability": pl.Float64(),
    "event_date": pl.Date(),
}


class Refused(NamedTuple):
    """A record of the labels topic that is no label, and why."""

    label_id: str
    reason: str
    record: Raw


_NULL = msgspec.Raw(b"null")


class _Outcome(Outcome, frozen=True, kw_only=True, gc=False):
    output: msgspec.Raw  # type: ignore[assignment]  # its text is all that the lake needs
    label: msgspec.Raw = _NULL  # type: ignore[assignment]


_OUTCOME = msgspec.json.Decoder(_Outcome)
_encode = msgspec.json.Encoder().encode

Columns = Mapping[str, Sequence[Any]]
"""Values of some rows by column, times in milliseconds; a column that is not there is null."""


class _Buffered:
    """Rows on their way to one table, each once, whatever is written again after a crash."""

    def __init__(self, table: LakeTable, schema: Mapping[str, Any], day_of: tuple[str, str]) -> None:
        self.table = table
        self.sketches: Sketches | None = None
        self._day, self._of = day_of
        self._schema = {name: kind for name, kind in schema.items() if name not in {*_PLACE, self._day}}
        self._frames: list[pl.DataFrame] = []
        self._upto: dict[Source, int] = {}

    def __len__(self) -> int:
        return sum(frame.height for frame in self._frames)

    def add(self, source: Source, upto: int, offsets: Sequence[int], columns: Columns) -> None:
        """Rows of a source with their offsets; `upto` is the last offset read. Offsets of a source rise."""
        self._upto[source] = upto
        if not offsets:
            return
        place = [pl.repeat(str(source), len(offsets), eager=True).alias("source"), pl.Series("offset", offsets)]
        self._frames.append(pl.DataFrame(place + [self._column(name, columns, len(offsets)) for name in self._schema]))

    def flush(self) -> pl.DataFrame | None:
        """Write the rows and return them; raises `Unavailable`, after which the same rows may be added again."""
        if not self._upto or (not self._frames and self.table.exists):  # what gave no row is read again, for nothing
            return None
        empty = pl.DataFrame(schema=_PLACE | self._schema)
        rows = pl.concat(self._frames) if self._frames else empty
        rows = rows.with_columns(pl.col(self._of).dt.date().alias(self._day))
        if self.sketches is None:
            self.table.append(rows, self._upto)
        else:
            tell, sources = self.sketches, tuple(self._upto)
            spans = self.table.append(rows, self._upto, before_commit=lambda: tell.announce(self.table, sources))
            tell.committed(self.table, spans, rows)
        self._frames, self._upto = [], {}
        return rows

    def _column(self, name: str, columns: Columns, height: int) -> pl.Series:
        kind = self._schema[name]
        if name not in columns:
            return pl.repeat(None, height, dtype=kind, eager=True).alias(name)
        if kind == _TIME:
            return (pl.Series(name, columns[name], dtype=pl.Int64()) * 1000).cast(_TIME)
        return pl.Series(name, columns[name], dtype=kind)


class Tables:
    """The five tables that outcomes writes.

    Args:
        lake: folder or URI of the lake.
        model: the model's id.
        kind: what a table is made of; tests have one in memory.
    """

    def __init__(self, lake: str, model: str, *, kind: type[LakeTable] = LakeTable) -> None:
        def table(name: str, schema: dict[str, Any], day: str, of: str) -> _Buffered:
            made = kind(table_uri(lake, model, name), schema, pipeline="outcomes", partition_by=[day])
            return _Buffered(made, schema, (day, of))

        self.predictions = table("predictions", PREDICTIONS, "event_date", "predicted_at")
        self.labels = table("labels", LABELS, "available_date", "available_at")
        self.outcomes = table("outcomes", OUTCOMES, "event_date", "predicted_at")
        self.resolved = table("resolved", RESOLVED, "available_date", "available_at")
        self.counts = table("counts", COUNTS, "available_date", "available_at")
        self.all = (self.counts, self.predictions, self.labels, self.resolved, self.outcomes)

    @property
    def waiting(self) -> int:
        """Rows that a flush would write."""
        return sum(len(table) for table in self.all)

    def flush(self) -> pl.DataFrame | None:
        """Write all that was added, and return the labels among it; raises `Unavailable`."""
        written = [table.flush() for table in self.all]
        return written[self.all.index(self.labels)]

    def tell(self, sketches: Sketches, sources: Iterable[Source]) -> None:
        """Write sketches of predictions and labels from now on, first those of the last commits of `sources`.

        Raises `Unavailable`.
        """
        named = tuple(sources)
        for kind in (self.predictions, self.labels):
            kind.sketches = sketches
            sketches.announce(kind.table, named)

    def numbers(self, source_upto: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """(boot, first, last) of the unbroken runs of prediction numbers up to the given offset of each source."""
        if not self.predictions.table.exists or not source_upto:
            return []
        within = pl.any_horizontal(
            (pl.col("source") == source) & (pl.col("offset") <= upto) for source, upto in source_upto.items()
        )
        known = self.predictions.table.scan().filter(within).select("boot", "seq").unique().sort("boot", "seq")
        runs = self.predictions.table.collect(
            known.with_columns((pl.col("seq") - pl.int_range(pl.len()).over("boot")).alias("run"))
            .group_by("boot", "run")
            .agg(pl.col("seq").min().alias("first"), pl.col("seq").max().alias("last"))
            .sort("boot", "first")
        )
        return [(boot, first, last) for boot, first, last in runs.select("boot", "first", "last").iter_rows()]


def mark_of(source: Source) -> Source:
    """Under what name the table of resolved labels notes the newest mark by the offset that it has of a source."""
    return Source(source.cluster, f"{source.topic_id}#through", source.partition)


def prediction_columns(predictions: Sequence[tuple[Prediction, int]], terms: str) -> Columns:
    """Columns of `predictions`, of each prediction and when it arrived."""
    columns = _fields(Prediction, [prediction for prediction, _ in predictions])
    arrived = [arrived for _, arrived in predictions]
    return columns | {
        "predicted_at": list(map(min, columns["time"], arrived)),
        "available_at": arrived,
        "output": _json(columns["output"]),
        "features": _json(columns["features"]),
        "feature_statuses": _json_of_some(columns["feature_statuses"]),
        "fence": _json(columns["fence"]),
        "redacted": _json_of_some(columns["redacted"]),
        "terms": [terms] * len(arrived),
    }


def label_columns(labels: Sequence[tuple[Label, KnownLabel]]) -> Columns:
    """Columns of `labels`, of labels that were accepted."""
    arrived = [known.available_at for _, known in labels]
    columns = _fields(Label, [label for label, _ in labels])
    times = [at if time is None else time for time, at in zip(columns["time"], arrived, strict=True)]
    return columns | {
        "label_id": [known.label_id for _, known in labels],
        "value": [None if value is None else _encode(value).decode() for value in columns["value"]],
        "reasons": _json_of_some(columns["reasons"]),
        "event_time": times,
        "available_at": arrived,
    }


def refused_columns(refused: Sequence[Refused]) -> Columns:
    """Columns of `labels` for what could not be taken as one: no join finds it, and nothing of it is lost."""
    return {
        "label_id": [one.label_id for one in refused],
        "event_time": [one.record.arrived_at for one in refused],
        "available_at": [one.record.arrived_at for one in refused],
        "refused": [one.reason for one in refused],
        "original": [one.record.value or b"" for one in refused],
    }


def outcome_columns(records: Sequence[Raw]) -> Columns:
    """Columns of `outcomes`, of their records: answers and labels are the text that was written."""
    columns = _fields(_Outcome, [_OUTCOME.decode(record.value or b"") for record in records])
    return columns | {
        "available_at": [record.arrived_at for record in records],
        "output": [bytes(output).decode() for output in columns["output"]],
        "label": [None if label == _NULL else bytes(label).decode() for label in columns["label"]],
    }


def resolved_columns(heard: Sequence[tuple[str, Heard]]) -> Columns:
    """Columns of `resolved`, of labels with the ids of their predictions."""
    columns = _fields(Heard, [label for _, label in heard])
    return columns | {
        "prediction_id": [of for of, _ in heard],
        "value": [None if value is None else _encode(value).decode() for value in columns["value"]],
        "reasons": _json_of_some(columns["reasons"]),
    }


def _fields(kind: type[msgspec.Struct], structs: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    """The fields of some structs as columns."""
    rows = zip(*map(msgspec.structs.astuple, structs), strict=True) if structs else [()] * len(kind.__struct_fields__)
    return dict(zip(kind.__struct_fields__, rows, strict=True))


def _json(values: Sequence[Any]) -> list[str]:
    return [_encode(value).decode() for value in values]


def _json_of_some(values: Sequence[Any]) -> list[str | None]:
    """The same, and null for what is None or empty."""
    return [_encode(value).decode() if value else None for value in values]
