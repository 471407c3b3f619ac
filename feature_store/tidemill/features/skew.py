"""Skew: are the feature values that were served those that training computes? The log is asked for equality.

A prediction logs its features and the fence of the row that they were read from: which offsets of each source were in
it. So the values can be computed again from the lake's events up to that fence, and must be the same: numbers within
1e-9 of each other, the rest exactly.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import msgspec
import polars as pl

from tidemill.features.label_events import label_events, label_kinds
from tidemill.features.tiles import window_values
from tidemill.spec.model import ContinualModel, Window

__all__ = ["Difference", "Served", "Skew", "compare", "events_for", "labels_for", "newest_served"]

TOLERANCE, SMALLEST = 1e-9, 1e-12
"""Relative, and absolute about zero: sums of the same numbers in another order."""

_EXAMPLES = 10
_OLD = "OUTSIDE_MAX_AGE"
_READ = frozenset({"PRESENT", _OLD})
_ORDER = ("event_time", "source", "offset")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a prediction's record says of its features."""

    prediction_id: str
    entity: str
    at: datetime
    """When the prediction was asked for."""
    features: Mapping[str, Any]
    status: str | None
    fence: Mapping[str, int]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One value that is not what the lake says."""

    prediction_id: str
    entity: str
    feature: str
    served: Any
    computed: Any


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found. Predictions, except where it says values."""

    compared: int
    equal: int
    differing: int
    values: int
    """Values compared."""
    differences: tuple[Difference, ...] = ()
    """The first few."""
    not_comparable: Mapping[str, int] = {}
    """Predictions that were left out, by why; and features, as `feature NAME: why`."""


def newest_served(predictions: pl.LazyFrame, count: int) -> list[Served]:
    """The newest `count` predictions of the lake's table."""
    since = predictions.select(pl.col("predicted_at").top_k(count).min()).collect().item()
    if since is None:
        return []
    columns = ["prediction_id", "entity", "predicted_at", "features", "feature_status", "fence"]
    found = (
        predictions.filter(pl.col("predicted_at") >= since).select(columns).collect().top_k(count, by="predicted_at")
    )
    return [
        Served(
            prediction_id=name,
            entity=entity,
            at=at,
            features=msgspec.json.decode(features or "{}"),
            status=status,
            fence=msgspec.json.decode(fence or "{}"),
        )
        for name, entity, at, features, status, fence in found.iter_rows()
    ]


def events_for(events: pl.LazyFrame, served: Sequence[Served], resource: ContinualModel) -> pl.DataFrame:
    """The events of the entities that were asked about, with what `compare` needs of them.

    Not all: those of the longest window and a day before the first of the predictions. An entity whose last event is
    older than that is not compared.
    """
    columns = [
        "source",
        "offset",
        "entity",
        "event_time",
        "available_at",
        *_plain(resource),
        *resource.spec.features.image,
    ]
    if not served:
        return events.select(columns).clear().collect()
    since = min(one.at for one in served) - _longest(resource) - timedelta(days=1)
    mine = pl.col("entity").is_in(sorted({one.entity for one in served}))
    return events.filter(mine & (pl.col("event_date") >= since.date())).select(columns).collect()


def labels_for(labels: pl.LazyFrame, served: Sequence[Served], resource: ContinualModel) -> pl.DataFrame:
    """As `events_for`, the labels of those entities as events of theirs."""
    found = label_events(labels, label_kinds(resource))
    if not served:
        return found.clear().collect()
    since = min(one.at for one in served) - _longest(resource) - timedelta(days=1)
    mine = pl.col("entity").is_in(sorted({one.entity for one in served}))
    return found.filter(mine & (pl.col("event_time") >= since)).collect()


def compare(
    served: Sequence[Served],
    events: pl.DataFrame,
    upto: Mapping[str, int],
    resource: ContinualModel,
    *,
    labels: pl.DataFrame | None = None,
) -> Skew:
    """Compute each prediction's features from the events and labels up to its fence, and compare.

    Args:
        served: predictions.
        events: all events of their entities, from `events_for`.
        upto: how far the lake has each source (`Snapshot.upto`).
        resource: whose features they are.
        labels: all labels of their entities, from `labels_for`; None: windows over labels are not compared.
    """
    reasons: Counter[str] = Counter()
    whys = [_why_not(one, upto) for one in served]
    comparable = [one for one, why in zip(served, whys, strict=True) if why is None]
    reasons.update(why for why in whys if why is not None)
    computed = _computed(comparable, events, labels, resource)
    found: list[list[Difference]] = []
    values = 0
    for one in comparable:
        expected = computed[one.prediction_id]
        if expected is None:
            reasons["the entity's last event is older than what is looked at"] += 1
            continue
        known = one.features.keys() & expected.keys()
        reasons.update(f"feature {name}: is not computed from events" for name in one.features.keys() - known)
        values += len(known)
        found.append(_differences(one, expected, sorted(known)))
    equal = sum(not one for one in found)
    return Skew(
        compared=len(found),
        equal=equal,
        differing=len(found) - equal,
        values=values,
        differences=tuple(chain.from_iterable(found))[:_EXAMPLES],
        not_comparable=dict(reasons),
    )


def _differences(one: Served, expected: Mapping[str, Any], names: Sequence[str]) -> list[Difference]:
    """The values of the prediction, among these names, that are not the expected ones."""
    return [
        Difference(
            prediction_id=one.prediction_id,
            entity=one.entity,
            feature=name,
            served=one.features[name],
            computed=expected[name],
        )
        for name in names
        if not _same(one.features[name], expected[name])
    ]


def _plain(resource: ContinualModel) -> tuple[str, ...]:
    """Values of an entity's last event. Statistics are not: a prediction's are those of its own picture."""
    return tuple(field.name for field in resource.spec.events.fields if field.type != "image")


def _longest(resource: ContinualModel) -> timedelta:
    lengths = [length for window in resource.spec.features.windows for length in window.over]
    return max(lengths, default=timedelta(0))


def _why_not(one: Served, upto: Mapping[str, int]) -> str | None:
    if one.status not in _READ:
        return f"no features were read: {one.status or 'there are no windows'}"
    if not one.fence:
        return "its record has no fence"
    if any(offset > upto.get(source, -1) for source, offset in one.fence.items()):
        return "the lake is not as far as its fence"
    return None


def _computed(
    served: Sequence[Served], events: pl.DataFrame, labels: pl.DataFrame | None, resource: ContinualModel
) -> dict[str, dict[str, Any] | None]:
    """Each prediction's features by its id, as `ttl` leaves them; None where there is no event of its entity."""
    if not served:
        return {}
    rows = pl.DataFrame(
        {
            "prediction_id": [one.prediction_id for one in served],
            "entity": [one.entity for one in served],
            "at": [one.at for one in served],
        },
        schema={"prediction_id": pl.String(), "entity": pl.String(), "at": pl.Datetime("us", "UTC")},
    )
    fences = pl.DataFrame(
        [(one.prediction_id, source, offset) for one in served for source, offset in one.fence.items()],
        schema={"prediction_id": pl.String(), "source": pl.String(), "fence": pl.Int64()},
        orient="row",
    )
    seen = _seen(rows, events, fences)
    plain = _plain(resource)
    last = seen.sort(_ORDER).unique("prediction_id", keep="last").select("prediction_id", *plain)
    found = {row.pop("prediction_id"): row for row in last.iter_rows(named=True)}
    windows = _windows(seen, rows, resource.spec.features.event_windows, resource)
    if labels is not None:
        said = _windows(_seen(rows, labels, fences), rows, resource.spec.features.label_windows, resource)
        windows = [of_events | of_labels for of_events, of_labels in zip(windows, said, strict=True)]
    too_old = {one.prediction_id: dict.fromkeys(plain) for one in served if one.status == _OLD}
    return {
        name: found[name] | too_old.get(name, {}) | values if name in found else None
        for name, values in zip(rows["prediction_id"], windows, strict=True)
    }


def _seen(rows: pl.DataFrame, events: pl.DataFrame, fences: pl.DataFrame) -> pl.DataFrame:
    """For each prediction the events of its entity up to its fence."""
    mine = rows.select("prediction_id", "entity").join(
        events.with_columns(pl.col("entity").cast(pl.String)), on="entity"
    )
    return mine.join(fences, on=["prediction_id", "source"]).filter(pl.col("offset") <= pl.col("fence"))


def _windows(
    seen: pl.DataFrame, rows: pl.DataFrame, windows: Sequence[Window], resource: ContinualModel
) -> list[dict[str, Any]]:
    if not windows:
        return [{} for _ in range(rows.height)]
    # Each prediction has its own fence, so each is an entity of its own, and each copy of an event an event.
    copies = seen.with_columns(entity=pl.col("prediction_id"), source=pl.col("source") + "#" + pl.col("prediction_id"))
    copies = copies.filter(pl.col("event_time") >= pl.lit(rows["at"].min()) - _longest(resource))
    asked = rows.select(entity="prediction_id", at="at")
    lateness = resource.spec.events.allowed_lateness
    return list(window_values(copies, asked, windows, lateness, as_of_fence=True).iter_rows(named=True))


def _same(served: Any, computed: Any) -> bool:
    if isinstance(served, bool) or isinstance(computed, bool) or not _numbers(served, computed):
        return type(served) is type(computed) and bool(served == computed)
    return math.isclose(served, computed, rel_tol=TOLERANCE, abs_tol=SMALLEST)


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)
