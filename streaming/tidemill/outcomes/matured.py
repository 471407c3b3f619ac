"""The newest matured outcomes of a version as arrays: losses, weights, groups, and what was known of each prediction.

What was known are the features that were logged with it, its class, its entity, and the fields of its event, where
events have ids. A day is read at a time, the newest first, until there are enough; JSON text is taken apart as it is
read, so that a million outcomes of 20 features take some hundred megabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.events.lake import LakeTable, table_uri, with_missing
from tidemill.metrics.conditions import Feature
from tidemill.outcomes.known import Cut, Kind, Known, days, missing, newest
from tidemill.outcomes.tables import OUTCOMES
from tidemill.spec.model import ContinualModel

__all__ = ["ANSWER", "MOST_OUTCOMES", "Matured", "Values", "matured"]

MOST_OUTCOMES = 1_000_000
"""Outcomes that are looked at: the newest."""
ANSWER = "prediction.class"
"""The class that was answered, as a feature."""
MOST_FEATURES = 100
_MOST_WORDS = 10_000
"""A field with more different words is an id."""
_LOOKED_AT = 2000
"""Rows of a day that say which features there are."""
_NUMBERS = {"float", "int"}
_OUTCOME = [
    *("prediction_id", "revision", "version", "entity", "event_id", "predicted_at", "available_at", "output", "label"),
    *("loss", "assumed", "probability"),
]
_KEPT = ["entity", "predicted_at", "available_at", "output", "label", "asked", "low", "high", "chance"]
_decode = msgspec.json.Decoder(dict[str, Any]).decode

Values = Literal["all", "groups", "none"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matured:
    """N outcomes of one version, oldest prediction first."""

    version: str
    kind: Kind
    least: float
    """The smallest probability that a label can have."""
    rows: pl.DataFrame
    """`entity`, `predicted_at`, `available_at` (of this revision), `output` and `label` (JSON), `asked`, `low`, `high`
    and `chance` (`Known.bounds`)."""
    values: pl.DataFrame
    """What was known of each, by feature or field: numbers, or strings."""
    is_cut: bool
    """Whether there may be more, older ones."""
    lost: int
    """Predictions that may be missing from the log, at most, of all versions."""

    @property
    def losses(self) -> Floats:
        """In [0, 1]; NaN where there is no label (N,)."""
        low, high = self.rows["low"].to_numpy(), self.rows["high"].to_numpy()
        found: Floats = np.where(low == high, low, np.nan)
        return found

    @property
    def weights(self) -> Floats:
        """One over the probability of the label; 0 where none is asked for, or its probability is not known (N,)."""
        chance = self.rows["chance"].fill_null(float("nan")).to_numpy()
        asked = self.rows["asked"].to_numpy() & ~np.isnan(chance)
        found: Floats = np.where(asked, 1 / np.where(asked, chance, 1.0), 0.0)
        return found

    def features(self) -> list[Feature]:
        """All that was known, without what is the same for all, and ids."""
        found = (_feature(self.values[name]) for name in self.values.columns)
        return [one for one in found if one is not None]


def matured(
    lake: str, resource: ContinualModel, cut: Cut, *, values: Values = "all", most: int = MOST_OUTCOMES
) -> Matured | None:
    """The newest outcomes of `cut.version`, or of the version that answered last; None where there is none.

    Args:
        lake: where the tables are.
        resource: the model.
        cut: `version`, `since` and `until` are looked at.
        values: what is read of what was known: all, the groups of the resource alone, or nothing.
        most: outcomes to stop at.

    Raises `NotFound` before there are outcomes, `Unavailable`.
    """
    outcomes = LakeTable(table_uri(lake, resource.id, "outcomes"))
    rows = with_missing(outcomes.scan(), OUTCOMES)
    version = cut.version or _last_version(outcomes, rows, cut)
    known = Known.of(lake, resource, outcomes, rows)
    reader = _Reader(lake, resource, values)
    parts: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    count, left = 0, sorted(days(outcomes, cut), reverse=True)
    while left and count < most:
        day = left.pop(0)
        of_day = newest(rows, day, Cut(since=cut.since, until=cut.until, version=version), _OUTCOME)
        found = known.bounds(outcomes.collect(of_day)).tail(most - count)
        if found.height:
            parts.append((found.select(_KEPT), reader.values(found, day)))
            count += found.height
    if version is None or not parts:
        return None
    parts.reverse()
    known_of = pl.concat([one for _, one in parts], how="diagonal_relaxed")
    return Matured(
        version=version,
        kind=known.kind,
        least=known.least,
        rows=pl.concat([one for one, _ in parts]),
        values=known_of,
        is_cut=count >= most,
        lost=sum(missing(outcomes, rows)),
    )


def _last_version(outcomes: LakeTable, rows: pl.LazyFrame, cut: Cut) -> str | None:
    if cut.until is not None:
        rows = rows.filter(pl.col("predicted_at") < cut.until)
    last = outcomes.collect(rows.select("version", "predicted_at").top_k(1, by="predicted_at"))
    return str(last["version"][0]) if last.height else None


class _Reader:
    """What was known of the predictions of a day."""

    def __init__(self, lake: str, resource: ContinualModel, values: Values) -> None:
        spec = resource.spec
        self._entity = spec.events.entity.name
        self._wanted, has_all = values != "none", values == "all"
        self._predictions = LakeTable(table_uri(lake, resource.id, "predictions")) if has_all else None
        self._events = LakeTable(table_uri(lake, resource.id, "events")) if spec.events.id and self._wanted else None
        groups = spec.triggers.drift.slices if spec.triggers.drift else ()
        fields = [field for field in spec.events.fields if field.type != "image" and (has_all or field.name in groups)]
        self._words = [field.name for field in fields if field.type not in _NUMBERS or field.name in groups]
        self._fields = [field.name for field in fields]
        if self._predictions is not None and not self._predictions.exists:
            self._predictions = None
        if self._events is not None and not (self._fields and self._events.exists):
            self._events = None

    def values(self, rows: pl.DataFrame, day: date) -> pl.DataFrame:
        """A column for each thing that was known, in the order of `rows`."""
        if not self._wanted:
            return pl.DataFrame()
        answers = pl.Series(ANSWER, [_decode(text).get("class") for text in rows["output"]], pl.String, strict=False)
        found = pl.DataFrame({self._entity: rows["entity"], ANSWER: answers})
        if self._events is not None:
            found = _beside(found, self._of_events(rows, day, self._events))
        if self._predictions is not None:
            logged = self._predictions.scan().filter(pl.col("event_date") == day).select("prediction_id", "features")
            known = self._predictions.collect(logged.unique("prediction_id"))
            texts = rows.select("prediction_id").join(known, on="prediction_id", how="left", maintain_order="left")
            found = _beside(found, _columns(texts["features"].to_list()))
        return found

    def _of_events(self, rows: pl.DataFrame, day: date, table: LakeTable) -> pl.DataFrame:
        """The fields of the event of each row; an event that came more than a day before is not looked for."""
        key = ["entity", "event_id"]
        near = table.scan().filter(pl.col("event_date").is_in([day - timedelta(days=1), day, day + timedelta(days=1)]))
        fields = [name for name in self._fields if name in near.collect_schema()]
        asked = rows.select(key).unique().lazy()
        known = table.collect(near.select(*key, *fields).join(asked, on=key, how="semi").unique(key))
        found = rows.select(key).join(known, on=key, how="left", maintain_order="left").select(fields)
        return found.with_columns(pl.col(name).cast(pl.String) for name in fields if name in self._words)


def _beside(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    return first.hstack(second.select(name for name in second.columns if name not in first.columns))


def _columns(texts: Sequence[str | None]) -> pl.DataFrame:
    """Features logged as JSON, a column each: of numbers or of strings, as its first value is."""
    seen = {name for text in texts[:: max(1, len(texts) // _LOOKED_AT)] if text is not None for name in _decode(text)}
    names = sorted(seen)[:MOST_FEATURES]
    fields: list[tuple[str, Any, Any]] = [(f"f{place}", Any, None) for place in range(len(names))]
    rename = {f"f{place}": name for place, name in enumerate(names)}
    kind = msgspec.defstruct("Row", fields, rename=rename, gc=False)
    decode = msgspec.json.Decoder(kind).decode
    rows = [decode(text or b"{}") for text in texts]
    return pl.DataFrame([_series(name, [getattr(row, place) for row in rows]) for place, name in rename.items()])


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, bool | str):
        return pl.Series(name, [None if one is None else str(one) for one in values], pl.String)
    try:
        return pl.Series(name, values, pl.Float64, strict=True)
    except (TypeError, OverflowError):  # something else is among them
        pass
    numbers = [one if isinstance(one, int | float) else None for one in values]
    return pl.Series(name, numbers, pl.Float64, strict=False)


def _feature(values: pl.Series) -> Feature | None:
    if values.dtype != pl.String:
        numbers = values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        return Feature(values.name, numbers) if np.isfinite(numbers).any() else None
    words = values.drop_nulls().unique().sort()
    if not 0 < len(words) <= _MOST_WORDS:
        return None
    places = values.replace_strict(words, pl.Series(np.arange(len(words))), default=-1, return_dtype=pl.Int64)
    return Feature(values.name, places.to_numpy(), words.to_list())
