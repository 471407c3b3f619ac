"""The lake's tables of predictions, labels and outcomes: their columns, and rows from records.

Times are UTC. `available_at` is when the record arrived in the log. Answers, features and label values are JSON
text, as they vary from model to model; the columns that joins and filters need are columns.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction
from tidemill.events.sources import Source
from tidemill.outcomes.counts import COUNTS

__all__ = ["Tables", "label_row", "outcome_row", "prediction_row", "refused_row"]

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
    "event_date": pl.Date(),
}

LABELS: dict[str, Any] = _PLACE | {
    "label_id": pl.String(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "prediction_id": pl.String(),
    "labeller": pl.String(),
    "value": pl.String(),
    "event_time": _TIME,
    "available_at": _TIME,
    "refused": pl.String(),
    "original": pl.Binary(),
    "available_date": pl.Date(),
}
"""A refused label has its reason in `refused` and its bytes in `original`; ids and value are null then."""

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
    "event_date": pl.Date(),
}

Row = dict[str, Any]


class _Buffered:
    """Rows on their way to one table, each once, whatever is written again after a crash."""

    def __init__(self, table: LakeTable, schema: Mapping[str, Any], day_of: tuple[str, str]) -> None:
        self.table = table
        self._schema = schema
        self._day, self._of = day_of
        self._rows: list[Row] = []
        self._upto: dict[Source, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the last flush."""
        return not self._upto

    def add(self, source: Source, offset: int, row: Row | None) -> None:
        """A row, or None where the record gave none; offsets of a source rise."""
        self._upto[source] = offset
        if row is not None:
            self._rows.append({**row, "source": str(source), "offset": offset})

    def flush(self) -> None:
        """Write the rows; raises `Unavailable`, after which the same rows may be added again."""
        if not self._upto or (not self._rows and self.table.exists):  # what gave no row is read again, for nothing
            return
        integers = {name: pl.Int64() if kind == _TIME else kind for name, kind in self._schema.items()}
        integers.pop(self._day)
        frame = pl.DataFrame(self._rows, schema=integers, orient="row").with_columns(
            (pl.col(name) * 1000).cast(_TIME) for name, kind in self._schema.items() if kind == _TIME
        )
        frame = frame.with_columns(pl.col(self._of).dt.date().alias(self._day))
        self.table.append(frame, self._upto)
        self._rows, self._upto = [], {}


class Tables:
    """The four tables that outcomes writes.

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
        self.counts = table("counts", COUNTS, "available_date", "available_at")

    @property
    def waiting(self) -> int:
        """Rows that a flush would write."""
        return len(self.predictions) + len(self.labels) + len(self.outcomes) + len(self.counts)

    def flush(self) -> None:
        """Write all that was added; raises `Unavailable`."""
        for table in (self.counts, self.predictions, self.labels, self.outcomes):
            table.flush()

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


def prediction_row(prediction: Prediction, arrived_at: int) -> Row:
    """A row of `predictions`."""
    return {
        "prediction_id": prediction.prediction_id,
        "version": prediction.version,
        "entity": prediction.entity,
        "event_id": prediction.event_id,
        "request_id": prediction.request_id,
        "cohort": prediction.cohort,
        "predicted_at": min(prediction.time, arrived_at),
        "available_at": arrived_at,
        "output": _json(prediction.output),
        "features": _json(prediction.features),
        "feature_status": prediction.feature_status,
        "feature_statuses": _json(prediction.feature_statuses) if prediction.feature_statuses else None,
        "fence": _json(prediction.fence),
        "boot": prediction.boot,
        "seq": prediction.seq,
    }


def label_row(label: Label, label_id: str, arrived_at: int) -> Row:
    """A row of `labels`."""
    return {
        "label_id": label_id,
        "entity": label.entity,
        "event_id": label.event_id,
        "prediction_id": label.prediction_id,
        "labeller": label.labeller,
        "value": _json(label.value),
        "event_time": arrived_at if label.time is None else label.time,
        "available_at": arrived_at,
        "refused": None,
        "original": None,
    }


def refused_row(original: bytes | None, reason: str, label_id: str, arrived_at: int) -> Row:
    """A row of `labels` for what could not be taken as one: no join finds it, and nothing of it is lost."""
    return {
        "label_id": label_id,
        "entity": None,
        "event_id": None,
        "prediction_id": None,
        "labeller": None,
        "value": None,
        "event_time": arrived_at,
        "available_at": arrived_at,
        "refused": reason,
        "original": original or b"",
    }


def outcome_row(outcome: Outcome, arrived_at: int) -> Row:
    """A row of `outcomes`."""
    return {
        "prediction_id": outcome.prediction_id,
        "revision": outcome.revision,
        "version": outcome.version,
        "entity": outcome.entity,
        "event_id": outcome.event_id,
        "request_id": outcome.request_id,
        "predicted_at": outcome.predicted_at,
        "eligible_at": outcome.eligible_at,
        "available_at": arrived_at,
        "output": _json(outcome.output),
        "label": None if outcome.label is None else _json(outcome.label),
        "label_age_ms": outcome.label_age_ms,
        "loss": outcome.loss,
        "lost": outcome.lost,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
