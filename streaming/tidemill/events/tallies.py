"""From rows to the votes of a sketch: what each entity's rows of a window tick were, of each feature. Pure.

**Numbers** are summed. What is not finite counts as missing; what is beyond 1e150 either way counts as that, so that
every sum is a number that can be written down.

**Categories** are counted by value: exactly where an entity has at most 16 values in a tick, else its 15 commonest (of
equally common ones the first by their UTF-8 bytes), and the rest of `count`. A value that is left out has at most a
sixteenth of those rows, and no value is counted that was not there. Values longer than 64 characters are cut to 48 and
a hash of the whole, so that a value takes at most some 250 bytes of a record.

**Entities.** Of a tick with more than 128 (fewer where there are very many features) those are kept whose hash with the
tick is smallest (bottom-k; Cohen & Kaplan 2007, "Summarizing data using bottom-k sketches", PODC), whole. They are a
sample that does not depend on what was sent; `Sketch.kept` has the bound below which the hashes of a tick are.
"""

import hashlib
import zlib
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
    "most_entities",
    "places",
    "shortened",
    "tally",
]

MOST_ENTITIES = 128
"""Entities of a tick that are kept: some of them find a shift of one deviation in two ticks, and a sketch, and the
watch's state while ticks are open, stay small."""
EXACT = 16
"""Values of a category up to which all of an entity's are listed."""
LISTED = 15
"""How many are where there are more."""
MOST_CELLS = 16_384
LEAST_ENTITIES = 8
"""Of very many features fewer entities are kept: so many votes a tick, and no fewer entities than these."""
LARGEST = 1e150
LONGEST = 64
_CUT = 48
_GOLDEN = 0x9E3779B97F4A7C15

Ints = npt.NDArray[np.int64]

_TICK = "#tick"
"""A name that no field can have."""


def places(entities: Collection[str], tick: int) -> dict[str, float]:
    """Each entity's hash in a tick, in [0, 1).

    Its CRC-32 and the tick, mixed as SplitMix64 does (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
    generators", OOPSLA).
    """
    return dict(zip(entities, _places(entities, tick).tolist(), strict=True))


def _places(entities: Collection[str], tick: int) -> npt.NDArray[np.float64]:
    mixed = np.fromiter(map(zlib.crc32, map(str.encode, entities)), dtype=np.uint64, count=len(entities))
    mixed += np.uint64((tick << 32) * _GOLDEN % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) / (1 << 53), dtype=np.float64)


def most_entities(features: int) -> int:
    """How many entities of a tick are kept, of so many features."""
    return min(MOST_ENTITIES, max(LEAST_ENTITIES, MOST_CELLS // max(features, 1)))


def bound_of(places: Collection[float], most: int) -> float:
    """The bound below which at most `most` places lie: the smallest one that has to go, 1 if none has to."""
    return _bound(np.fromiter(places, dtype=np.float64, count=len(places)), most)


def _bound(places: npt.NDArray[np.float64], most: int) -> float:
    return float(np.partition(places, most)[most]) if len(places) > most else 1.0


def shortened(value: str) -> str:
    """A value as it is counted."""
    if len(value) <= LONGEST:
        return value
    return f"{value[:_CUT]}#{hashlib.blake2b(value.encode(), digest_size=7).hexdigest()}"


def clipped(values: pl.Series) -> npt.NDArray[np.float64]:
    """A number's values, NaN where there is none that is finite."""
    numbers: npt.NDArray[np.float64] = values.cast(pl.Float64).to_numpy()
    if len(numbers) and numbers.min() >= -LARGEST and numbers.max() <= LARGEST:  # nothing to clip, and no NaN
        return numbers
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
    rows, kept = _bounded(rows, most_entities(len(numbers) + len(categories)))
    cells, of_row, sizes = _cells(rows)
    found = [_sums(rows[name], of_row, sizes) for name in numbers]
    found += [_counts(rows[name], of_row, len(cells)) for name in categories]
    votes: Votes = {}
    names = (*numbers, *categories)
    for (tick, entity), *features in zip(cells, *found, strict=True):
        votes.setdefault(tick, {})[entity] = dict(zip(names, features, strict=True))
    return votes, kept


def _bounded(rows: pl.DataFrame, most: int) -> tuple[pl.DataFrame, dict[int, float]]:
    """The rows of the entities that are kept."""
    if rows["entity"].n_unique() <= most:
        return rows, {}
    many = rows.group_by(_TICK).agg(pl.col("entity").unique()).filter(pl.col("entity").list.len() > most)
    if many.is_empty():
        return rows, {}
    many, kept = many.sort(_TICK), dict[int, float]()
    stay = ~pl.col(_TICK).is_in(many[_TICK].implode())
    for tick, entities in zip(many[_TICK], many["entity"], strict=True):
        found = _places(entities.to_list(), tick)
        kept[tick] = _bound(found, most)
        names = entities.filter(pl.Series(found < kept[tick]))
        stay |= (pl.col(_TICK) == tick) & pl.col("entity").is_in(names.implode())
    return rows.filter(stay), kept


def _cells(rows: pl.DataFrame) -> tuple[list[tuple[int, str]], Ints, Ints]:
    """Ticks and entities with rows, in order; the position of each row's among them; how many rows each has."""
    names, whose = coded(rows["entity"])
    ticks = rows[_TICK].to_numpy().astype(np.int64)
    first = int(ticks.min()) if len(ticks) else 0
    keys, of_row, sizes = _told_apart((ticks - first) * len(names) + whose)
    at = ((first + key // len(names), names[key % len(names)]) for key in keys.tolist())
    return list(at), of_row, sizes


def _told_apart(keys: Ints) -> tuple[Ints, Ints, Ints]:
    """Which keys there are, each one's position among them, and how many there are of each, as `np.unique` says it.

    Where they are close together they are counted, not sorted, which takes an eighth of the time.
    """
    if not len(keys) or keys.max() > len(keys):
        return np.unique(keys, return_inverse=True, return_counts=True)
    counts = np.bincount(keys)
    there = counts > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[keys], counts[there]


def _sums(values: pl.Series, cells: Ints, sizes: Ints) -> Iterator[FeatureSketch]:
    """A number's votes in each cell; `sizes` are the cells' rows."""
    numbers = clipped(values)
    absent = np.isnan(numbers)
    missing = np.zeros_like(sizes)
    if absent.any():
        missing = np.bincount(cells[absent], minlength=len(sizes))
        cells, numbers = cells[~absent], numbers[~absent]
    # `bincount` adds one value after the other: parallel sums would add up in another order each time.
    totals = np.bincount(cells, weights=numbers, minlength=len(sizes))
    for count, total, without in zip((sizes - missing).tolist(), totals.tolist(), missing.tolist(), strict=True):
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
