"""From rows to the votes of a sketch: what each entity's rows of a window tick were, of each feature. Pure.

**Numbers** are summed. What is not finite counts as missing; what is beyond 1e150 either way counts as that, so that
every sum is a number that can be written down.

**Categories** are counted by value: exactly where an entity has at most 16 values in a tick, else its 15 commonest (of
equally common ones the first by their UTF-8 bytes), and the rest of `count`. A value that is left out has at most a
sixteenth of those rows, and no value is counted that was not there. Values longer than 64 characters are cut to 48 and
a hash of the whole, so that a value takes at most some 250 bytes of a record.

**Entities.** Of a tick with more than 512 those 512 are kept whose hash with the tick is smallest (bottom-k; Cohen &
Kaplan 2007, "Summarizing data using bottom-k sketches", PODC), whole. They are a sample that does not depend on what
was sent; `Sketch.kept` has the bound below which the hashes of a tick are.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.events.records import FeatureSketch, Votes

__all__ = [
    "EXACT",
    "LISTED",
    "LONGEST",
    "MOST_ENTITIES",
    "bound_of",
    "clipped",
    "coded",
    "listed",
    "place",
    "shortened",
    "tally",
]

MOST_ENTITIES = 512
"""Entities of a tick that are kept."""
EXACT = 16
"""Values of a category up to which all of an entity's are listed."""
LISTED = 15
"""How many are where there are more."""
LARGEST = 1e150
LONGEST = 64
_CUT = 48

Ints = npt.NDArray[np.int64]

_TICK, _CELL = "#tick", "#cell"
"""Names that no field can have."""


def place(entity: str, tick: int) -> float:
    """An entity's hash in a tick, in [0, 1)."""
    digest = hashlib.blake2b(f"{tick} {entity}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def bound_of(places: Collection[float]) -> float:
    """The bound below which at most 512 places lie: the smallest one that has to go, 1 if none has to."""
    return sorted(places)[MOST_ENTITIES] if len(places) > MOST_ENTITIES else 1.0


def shortened(value: str) -> str:
    """A value as it is counted."""
    if len(value) <= LONGEST:
        return value
    return f"{value[:_CUT]}#{hashlib.blake2b(value.encode(), digest_size=7).hexdigest()}"


def clipped(values: pl.Series) -> npt.NDArray[np.float64]:
    """A number's values, NaN where there is none that is finite."""
    numbers = values.cast(pl.Float64).to_numpy()
    return np.where(np.isfinite(numbers), np.clip(numbers, -LARGEST, LARGEST), np.nan)


def tally(
    rows: pl.DataFrame, ticks: pl.Expr, *, numbers: Sequence[str], categories: Sequence[str]
) -> tuple[Votes, dict[int, float]]:
    """The votes of rows, and the bounds of ticks of which not all entities are kept (`Sketch.kept`).

    Args:
        rows: column `entity` (a String) and each of the features; sums are made in their order.
        ticks: the number of each row's tick, of other columns.
        numbers: features of which rows are summed.
        categories: features of which rows are counted by value; strings, booleans or whole numbers.
    """
    rows = rows.select("entity", *numbers, *categories, ticks.alias(_TICK))
    rows, kept = _bounded(rows)
    rows = rows.with_columns(pl.struct(_TICK, "entity").rank("dense").cast(pl.Int64).sub(1).alias(_CELL))
    cells = rows.unique(_CELL).sort(_CELL)
    index = rows[_CELL].to_numpy()
    found = [_sums(rows[name], index, cells.height) for name in numbers]
    found += [_counts(rows[name], index, cells.height) for name in categories]
    votes: Votes = {}
    names = (*numbers, *categories)
    for tick, entity, *features in zip(cells[_TICK], cells["entity"], *found, strict=True):
        votes.setdefault(tick, {})[entity] = dict(zip(names, features, strict=True))
    return votes, kept


def _bounded(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[int, float]]:
    """The rows of the entities that are kept."""
    many = rows.group_by(_TICK).agg(pl.col("entity").unique()).filter(pl.col("entity").list.len() > MOST_ENTITIES)
    kept: dict[int, float] = {}
    gone: list[tuple[int, str]] = []
    for tick, entities in sorted(many.iter_rows()):
        places = {entity: place(entity, tick) for entity in entities}
        kept[tick] = bound_of(places.values())
        gone += [(tick, entity) for entity, at in places.items() if at >= kept[tick]]
    if not gone:
        return rows, kept
    left_out = pl.DataFrame(gone, schema={_TICK: rows.schema[_TICK], "entity": pl.String()}, orient="row")
    return rows.join(left_out, on=[_TICK, "entity"], how="anti", maintain_order="left"), kept


def _sums(values: pl.Series, cells: Ints, size: int) -> Iterator[FeatureSketch]:
    """A number's votes in each cell."""
    # `bincount` adds one value after the other: parallel sums would add up in another order each time.
    numbers = clipped(values)
    absent = np.isnan(numbers)
    missing = np.bincount(cells[absent], minlength=size)
    if len(cells) and missing.any():
        cells, numbers = cells[~absent], numbers[~absent]
    counts = np.bincount(cells, minlength=size)
    totals = np.bincount(cells, weights=numbers, minlength=size)
    for count, total, without in zip(counts.tolist(), totals.tolist(), missing.tolist(), strict=True):
        yield FeatureSketch(count=count, total=total, missing=without)


def _counts(values: pl.Series, cells: Ints, size: int) -> Iterator[FeatureSketch]:
    """A category's votes in each cell."""
    texts = values.cast(pl.String)
    absent = texts.is_null().to_numpy()
    missing = np.bincount(cells[absent], minlength=size)
    known, codes = coded(texts.drop_nulls())
    keys, rows = np.unique(cells[~absent] * len(known) + codes, return_counts=True)
    at, codes = np.divmod(keys, max(len(known), 1))
    counts = np.bincount(at, weights=rows, minlength=size).astype(np.int64)
    chosen = listed(at, rows)
    by_cell: list[dict[str, int]] = [{} for _ in range(size)]
    for cell, code, number in zip(at[chosen].tolist(), codes[chosen].tolist(), rows[chosen].tolist(), strict=True):
        by_cell[cell][shortened(known[code])] = number
    for count, without, of_cell in zip(counts.tolist(), missing.tolist(), by_cell, strict=True):
        yield FeatureSketch(count=count, missing=without, values=of_cell)


def coded(texts: pl.Series) -> tuple[list[str], Ints]:
    """The values of texts without nulls, in the order of their bytes, and each text's place among them (n,)."""
    known = texts.unique().sort()
    return known.to_list(), texts.cast(pl.Enum(known)).to_physical().to_numpy().astype(np.int64)


def listed(cells: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
    """Which values are listed.

    Args:
        cells: of each value of each cell the cell's number (n,), in order, and in a cell by the values' bytes.
        rows: how many rows of the cell have it (n,).
    """
    there = np.bincount(cells)
    crowded = there[cells] > EXACT
    if not crowded.any():
        return ~crowded
    order = np.lexsort((-rows, cells))  # equally common values stay in their order
    position = np.arange(len(cells)) - np.repeat(np.cumsum(there) - there, there)
    first = np.empty(len(cells), dtype=np.bool_)
    first[order] = position < LISTED
    return first | ~crowded
