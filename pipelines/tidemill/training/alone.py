"""One input at a time: how far it alone tells the label. What is nearly always right may be a leak, or a good feature.

The rule is fitted on training rows (of each of 64 bins of a number, or each value of anything else, the commonest class
or the mean) and scored on the fresh rows, so that an input with a value of its own in each row gains nothing by it.
"""

from collections.abc import Sequence

import polars as pl

__all__ = ["alone"]

_TOLD = 0.98
"""Share of fresh rows on which one input alone is right (regression: of the variance it explains) that is told …"""
_BETTER = 0.1
"""… where its errors are at most this share of those of the commonest class (of the mean)."""
_BINS = 64


def alone(rows: pl.DataFrame, truth: pl.Series, names: Sequence[str]) -> list[str]:
    """The inputs of which one alone is right on nearly all fresh rows, each in words.

    Args:
        rows: of a snapshot.
        truth: what each row's label states: a class, or a number.
        names: of the inputs.
    """
    is_fresh = rows["part"] == "fresh"
    known, asked = truth.filter(~is_fresh), truth.filter(is_fresh)
    if known.is_empty() or asked.is_empty():
        return []
    usual = _score(asked, pl.Series([_middle(known)] * len(asked), dtype=truth.dtype))
    told = []
    for name in names:
        values = rows[name]
        right = _score(asked, _rule(values.filter(~is_fresh), known, values.filter(is_fresh)))
        if right >= _TOLD and 1 - right <= _BETTER * (1 - usual):
            told.append(f"{name} alone {_words(right, usual, truth)} of {len(asked):,} fresh rows")
    return told


def _words(right: float, usual: float, truth: pl.Series) -> str:
    if truth.dtype.is_numeric():
        return f"explains {right:.1%} of the variance"
    return f"is right in {right:.1%} (the commonest class: {usual:.1%})"


def _rule(values: pl.Series, truth: pl.Series, asked: pl.Series) -> pl.Series:
    """Of each bin of a number, or each value of anything else, the commonest truth (numbers: the mean)."""
    if values.dtype.is_numeric():
        edges = values.cast(pl.Float64).drop_nans().drop_nulls().unique().sort()
        if len(edges) > _BINS:
            edges = edges.gather([round(number * (len(edges) - 1) / _BINS) for number in range(_BINS + 1)])
        values, asked = (_bin(edges, one.cast(pl.Float64)) for one in (values, asked))
    pairs = pl.DataFrame({"bin": values, "truth": truth})
    said = pl.col("truth").mean() if truth.dtype.is_numeric() else pl.col("truth").mode().sort().first()
    table = pairs.group_by("bin").agg(said)
    found = pl.DataFrame({"bin": asked}).join(table, on="bin", how="left", nulls_equal=True, maintain_order="left")
    return found["truth"].fill_null(_middle(truth))


def _bin(edges: pl.Series, values: pl.Series) -> pl.Series:
    """The number of the bin of each value; those that are missing have one of their own."""
    bins = edges.search_sorted(values.fill_nan(None).fill_null(0.0), side="right").cast(pl.Int64)
    return bins.zip_with(values.is_not_null() & values.is_not_nan(), pl.Series([-1], dtype=pl.Int64))


def _middle(truth: pl.Series) -> float | str:
    if truth.dtype.is_numeric():
        return float(truth.mean())  # type: ignore[arg-type]
    return str(truth.mode().sort()[0])


def _score(truth: pl.Series, said: pl.Series) -> float:
    """The share that is right; of numbers the share of the variance that is explained."""
    if not truth.dtype.is_numeric():
        return float((truth == said).mean() or 0.0)  # type: ignore[arg-type]
    spread = float(truth.var(ddof=0) or 0.0)  # type: ignore[arg-type]
    return 1 - float(((truth - said) ** 2).mean()) / spread if spread > 0 else 0.0  # type: ignore[arg-type]
