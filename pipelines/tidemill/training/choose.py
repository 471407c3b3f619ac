"""Which rows of a snapshot are frozen: of a part, of a time, so many, as many of each class."""

from datetime import datetime
from typing import Literal, NamedTuple

import polars as pl

from tidemill.core.errors import InvalidInput

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """What is wanted of the rows."""

    part: Literal["fresh", "new", "replay", "all"] = "fresh"
    since: datetime | None = None
    """Only events of this time or later."""
    until: datetime | None = None
    """Only events before this time."""
    rows: int | None = None
    """Only so many, the newest."""
    per_class: int | None = None
    """Only so many of each class, the newest."""

    def __str__(self) -> str:
        """The choice in words."""
        said = ["all parts" if self.part == "all" else f"part {self.part}"]
        said += [f"{name} {at.isoformat()}" for name, at in (("since", self.since), ("until", self.until)) if at]
        said += [f"the newest {self.rows}"] if self.rows else []
        said += [f"the newest {self.per_class} of each class"] if self.per_class else []
        return ", ".join(said)


def choose(rows: pl.DataFrame, truth: pl.Series, wanted: Choice) -> pl.DataFrame:
    """The rows that are wanted, in their order.

    Args:
        rows: of a snapshot, oldest event first.
        truth: the class that each row's label states; null where it states none; numbers of a regression.
        wanted: which.

    Raises:
        InvalidInput: there are none, or fewer of a class than are wanted, or the wishes do not go together.
    """
    if wanted.rows and wanted.per_class:
        raise InvalidInput("--rows and --per-class do not go together", hint="give one of them")
    if wanted.per_class and truth.dtype.is_numeric():
        raise InvalidInput("--per-class needs classes, and this model predicts a number", hint="use --rows")
    keep = pl.lit(True) if wanted.part == "all" else pl.col("part") == wanted.part
    if wanted.since:
        keep &= pl.col("event_time") >= wanted.since
    if wanted.until:
        keep &= pl.col("event_time") < wanted.until
    found = rows.with_columns(truth.alias("_truth")).filter(keep)
    if found.is_empty():
        parts = ", ".join(f"{count:,} {part}" for part, count in sorted(rows["part"].value_counts().iter_rows()))
        span = "" if rows.is_empty() else f" from {rows['event_time'][0]} to {rows['event_time'][-1]}"
        raise InvalidInput(f"no row is chosen by {wanted}", hint=f"the snapshot has {parts or 'no'} rows{span}")
    if wanted.per_class:
        found = _balanced(found, wanted.per_class)
    if wanted.rows:
        found = found.tail(wanted.rows)
    return found.drop("_truth")


def _balanced(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    rows = rows.filter(pl.col("_truth").is_not_null())
    there = dict(rows["_truth"].value_counts().iter_rows())
    few = [f"{name} ({found:,})" for name, found in sorted(there.items()) if found < count]
    if few or not there:
        least = min(there.values(), default=0)
        wanted = f"fewer than {count} rows of {', '.join(few) or 'any class'}: they would not be balanced"
        raise InvalidInput(wanted, hint=f"--per-class {least}, or --part all" if least else "try --part all")
    return rows.filter(pl.int_range(pl.len()).reverse().over("_truth") < count)
