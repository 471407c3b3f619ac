"""How two datasets differ: rows, labels, and the distribution of each input and of the classes. Frames in, figures out.

The distance of numbers is the largest difference of their cumulative shares (the statistic of Kolmogorov and Smirnov),
that of categories half the sum of the differences of their shares (total variation). Both lie between 0 (alike) and 1.
They are figures, not tests: two samples of one world differ by about 1 / sqrt(rows).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from tidemill.training.dataset import KEY

__all__ = ["ClassShare", "Comparison", "Relabelled", "Shift", "compare", "distance"]


@dataclass(frozen=True, slots=True)
class Relabelled:
    """An event that both datasets have, with differing labels (JSON)."""

    entity: str
    event_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Shift:
    """How an input moved. Means are those of numbers, else None; `distance` is None where a side has no value."""

    name: str
    distance: float | None
    mean_before: float | None
    mean_after: float | None
    missing_before: float
    """Share of rows without the value."""
    missing_after: float


@dataclass(frozen=True, slots=True)
class ClassShare:
    """Rows of one class, and their share of the rows on each side (0 where there are no rows)."""

    name: str
    rows_before: int
    rows_after: int
    share_before: float
    share_after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two datasets."""

    rows_before: int
    rows_after: int
    both: int
    """Events that both have."""
    only_before: int
    only_after: int
    relabelled: tuple[Relabelled, ...]
    shifts: tuple[Shift, ...]
    """Of each input that both have, the largest distance first."""
    missing_inputs: tuple[str, ...]
    """Inputs that one of the two does not have, or has in another type."""
    classes: tuple[ClassShare, ...]
    """By name; none where numbers are predicted."""
    truth: Shift
    """Of what the labels state."""


def compare(
    before: pl.DataFrame, after: pl.DataFrame, inputs: Sequence[str], truths: tuple[pl.Series, pl.Series]
) -> Comparison:
    """Compare the rows of two datasets.

    Args:
        before: rows with entity, event_id (together unique), label (JSON) and the inputs.
        after: the same of the other.
        inputs: columns to compare: numbers, text, or yes and no.
        truths: what the labels of each state (`tidemill.training.checks.truth_of`).
    """
    known = [name for name in inputs if _alike(before, after, name)]
    shifts = [_shift(name, before[name], after[name]) for name in known]
    both = before.join(after.select(KEY), on=KEY, how="semi").height
    return Comparison(
        rows_before=before.height,
        rows_after=after.height,
        both=both,
        only_before=before.height - both,
        only_after=after.height - both,
        relabelled=_relabelled(before, after),
        shifts=tuple(sorted(shifts, key=lambda one: (-(one.distance or 0), one.name))),
        missing_inputs=tuple(name for name in inputs if name not in known),
        classes=() if truths[0].dtype.is_numeric() else _classes(*truths),
        truth=_shift("label", *truths),
    )


def distance(before: pl.Series, after: pl.Series) -> float | None:
    """How far two samples are apart, 0 to 1; None where one has no value. Null and NaN are no values."""
    before, after = _values(before), _values(after)
    if before.is_empty() or after.is_empty():
        return None
    sides = [
        pl.DataFrame({"value": side}).with_columns(before=pl.lit(is_before), after=pl.lit(not is_before))
        for side, is_before in ((before, True), (after, False))
    ]
    counts = pl.concat(sides).group_by("value").agg(pl.col("before").sum(), pl.col("after").sum()).sort("value")
    if before.dtype.is_numeric():
        counts = counts.with_columns(pl.col("before", "after").cum_sum())
        found = (counts["before"] / len(before) - counts["after"] / len(after)).abs().max()
    else:
        found = (counts["before"] / len(before) - counts["after"] / len(after)).abs().sum() / 2
    return float(found) if isinstance(found, int | float) else None


def _alike(before: pl.DataFrame, after: pl.DataFrame, name: str) -> bool:
    """Whether both have the column, as numbers or in one type."""
    if name not in before.columns or name not in after.columns:
        return False
    kinds = before.schema[name], after.schema[name]
    return kinds[0] == kinds[1] or all(kind.is_numeric() for kind in kinds)


def _values(column: pl.Series) -> pl.Series:
    column = column.drop_nulls()
    return column.cast(pl.Float64).drop_nans() if column.dtype.is_numeric() else column.cast(pl.String)


def _shift(name: str, before: pl.Series, after: pl.Series) -> Shift:
    (mean_before, missing_before), (mean_after, missing_after) = map(_mean_and_missing, (before, after))
    return Shift(name, distance(before, after), mean_before, mean_after, missing_before, missing_after)


def _mean_and_missing(column: pl.Series) -> tuple[float | None, float]:
    values = _values(column)
    mean = values.mean() if values.dtype.is_numeric() else None
    return (mean if isinstance(mean, float) else None), _share(len(column) - len(values), len(column))


def _relabelled(before: pl.DataFrame, after: pl.DataFrame) -> tuple[Relabelled, ...]:
    columns = [*KEY, "label"]
    joined = before.select(columns).join(after.select(columns), on=KEY, suffix="_after", maintain_order="left")
    # Another order or spacing of one label is no other label.
    differing = joined.filter(pl.col("label") != pl.col("label_after")).iter_rows()
    return tuple(Relabelled(*row) for row in differing if json.loads(row[2]) != json.loads(row[3]))


def _classes(before: pl.Series, after: pl.Series) -> tuple[ClassShare, ...]:
    was, now = (dict(side.drop_nulls().value_counts().iter_rows()) for side in (before, after))
    all_before, all_after = sum(was.values()), sum(now.values())
    rows = [(name, was.get(name, 0), now.get(name, 0)) for name in sorted(was.keys() | now.keys())]
    return tuple(ClassShare(name, b, a, _share(b, all_before), _share(a, all_after)) for name, b, a in rows)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
