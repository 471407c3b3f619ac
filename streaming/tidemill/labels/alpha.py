"""Krippendorff's alpha: how far labellers agree beyond what chance alone would give.

alpha = 1 - D_o / D_e, where D_o is the observed disagreement within things and D_e the disagreement expected if values
were dealt out at random (Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*, sections C and D). 1 is full
agreement, 0 what chance gives; below 0 is worse than chance. Any number of labellers, each with gaps; things with fewer
than two labels do not count.

Both metrics need sums per thing alone, so that memory does not grow with the number of values: the package
`krippendorff`, which the tests hold this against, lays out things x values x values.
"""

from dataclasses import dataclass

import polars as pl

__all__ = ["Alpha", "interval_alpha", "nominal_alpha"]


@dataclass(frozen=True)
class Alpha:
    """The agreement on one field; `value` is None where it is not defined, and `why` says why."""

    value: float | None
    compared: int
    """Things with at least two labels."""
    why: str = ""


def nominal_alpha(said: pl.DataFrame) -> tuple[Alpha, dict[str, float | None]]:
    """Alpha of classes, and of each class against all others; `said` has the columns `item` and `text`.

    A class has None where nothing else was said of the things compared, or it was not said of them at all.
    """
    counts = (
        said.lazy()
        .drop_nulls("text")
        .group_by("item", "text")
        .agg(pl.len().cast(pl.Float64).alias("n"))
        .with_columns(m=pl.col("n").sum().over("item"))
        .filter(pl.col("m") >= 2)
    )
    # Of a class c against the rest, D_o and D_e are twice these; over classes they add up to those of all classes.
    sums = (
        counts.group_by("text")
        .agg(
            observed=(pl.col("n") * (pl.col("m") - pl.col("n")) / (pl.col("m") - 1)).sum(),
            n=pl.col("n").sum(),
        )
        .with_columns(total=pl.col("n").sum())
        .with_columns(observed=pl.col("observed") / pl.col("total"))
        .with_columns(
            expected=pl.col("n") * (pl.col("total") - pl.col("n")) / (pl.col("total") * (pl.col("total") - 1))
        )
        .sort("text")
        .collect()
    )
    compared = int(counts.select(pl.col("item").n_unique()).collect().item())
    alone = {
        text: _ratio(observed, expected)
        for text, observed, expected in sums["text", "observed", "expected"].iter_rows()
    }
    return _alpha(float(sums["observed"].sum()), float(sums["expected"].sum()), compared), alone


def interval_alpha(said: pl.DataFrame) -> Alpha:
    """Alpha of measures, by squared differences; `said` has `item` and `number`. Infinite and missing values are out.

    The sum of squared differences between all pairs of n values is 2 n times their sum of squares about the mean.
    """
    rows = said.filter(pl.col("number").is_finite()).with_columns(
        m=pl.len().over("item"), about=pl.col("number") - pl.col("number").mean().over("item")
    )
    rows = rows.filter(pl.col("m") >= 2)
    if rows.is_empty():
        return _alpha(0.0, 0.0, 0)
    within = float((rows["about"] ** 2 * 2 * rows["m"] / (rows["m"] - 1)).sum())
    overall = float(((rows["number"] - rows["number"].mean()) ** 2).sum())
    return _alpha(within / rows.height, 2 * overall / (rows.height - 1), rows["item"].n_unique())


def _alpha(observed: float, expected: float, compared: int) -> Alpha:
    if not compared:
        return Alpha(None, 0, "nothing was labelled by two labellers")
    value = _ratio(observed, expected)
    why = "" if value is not None else "only one value was said, so that agreement beyond chance is not defined"
    return Alpha(value, compared, why)


def _ratio(observed: float, expected: float) -> float | None:
    return None if expected <= 0 else 1 - observed / expected
