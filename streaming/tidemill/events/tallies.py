"""From rows to the votes of a sketch: what each entity's rows of a window tick were, of each feature. Pure.

**Numbers** are summed. What is not finite counts as missing; where a sum is beyond 1e150 either way, values beyond that
count as that, so that every sum is a number that can be written down.

**Categories** are counted by value: exactly where an entity has at most 16 values in a tick, else its 15 commonest (of
equally common ones the first by their UTF-8 bytes), and the rest of `count`. A value that is left out has at most a
sixteenth of those rows, and no value is counted that was not there. Values longer than 64 characters are cut to 48 and
a hash of the whole, so that a value takes at most some 250 bytes of a record.

**Entities.** Of a tick with more than 128 (fewer where there are very many features) those are kept whose hash with the
tick is smallest (bottom-k; Cohen & Kaplan 2007, "Summarizing data using bottom-k sketches", PODC), whole. They are a
sample that does not depend on what was sent; `TickVotes.kept` has the bound below which the hashes of a tick are.
"""

import hashlib
import zlib
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.events.cells import chosen, packed
from tidemill.events.records import TickVotes, Votes

__all__ = [
    "EXACT",
    "LISTED",
    "LONGEST",
    "MOST_ENTITIES",
    "bounded",
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

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TICK = "#tick"
"""A name that no field can have."""


def places(entities: Collection[str], tick: int) -> dict[str, float]:
    """Each entity's hash in a tick, in [0, 1).

    Its CRC-32 and the tick, mixed as SplitMix64 does (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
    generators", OOPSLA).
    """
    return dict(zip(entities, _places(entities, tick).tolist(), strict=True))


def _places(entities: Collection[str], tick: int) -> Floats:
    mixed = np.fromiter(map(zlib.crc32, map(str.encode, entities)), dtype=np.uint64, count=len(entities))
    mixed += np.uint64((tick << 32) * _GOLDEN % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) / (1 << 53), dtype=np.float64)


def most_entities(features: int) -> int:
    """How many entities of a tick are kept, of so many features."""
    return min(MOST_ENTITIES, max(LEAST_ENTITIES, MOST_CELLS // max(features, 1)))


def bounded(votes: TickVotes, tick: int, most: int, kept: float = 1.0) -> TickVotes:
    """The votes of the entities whose hashes are smallest: at most so many, and below `kept`."""
    kept = min(kept, votes.kept)
    if kept >= 1.0 and len(votes.entities) <= most:
        return votes
    found = _places(votes.entities, tick)
    kept = min(kept, _bound(found, most))
    return chosen(votes, found < kept, kept)


def _bound(places: Floats, most: int) -> float:
    """The bound below which at most `most` places lie: the smallest one that has to go, 1 if none has to."""
    return float(np.partition(places, most)[most]) if len(places) > most else 1.0


def shortened(value: str) -> str:
    """A value as it is counted."""
    if len(value) <= LONGEST:
        return value
    return f"{value[:_CUT]}#{hashlib.blake2b(value.encode(), digest_size=7).hexdigest()}"


def clipped(values: pl.Series) -> Floats:
    """A number's values, NaN where there is none that is finite."""
    numbers: npt.NDArray[np.float64] = values.cast(pl.Float64).to_numpy()
    if len(numbers) and numbers.min() >= -LARGEST and numbers.max() <= LARGEST:  # nothing to clip, and no NaN
        return numbers
    return np.where(np.isfinite(numbers), np.clip(numbers, -LARGEST, LARGEST), np.nan)


def tally(rows: pl.DataFrame, ticks: Ints, *, numbers: Sequence[str], categories: Sequence[str]) -> Votes:
    """The votes of rows.

    Args:
        rows: column `entity` (a String) and each of the features; sums are made in their order.
        ticks: the number of each row's tick (rows,).
        numbers: features of which rows are summed.
        categories: features of which rows are counted by value; strings, booleans or whole numbers.
    """
    features, known, kept = sorted((*numbers, *categories)), rows["entity"].unique(), dict[int, float]()
    if len(known) > (most := most_entities(len(features))):
        rows, kept = _bounded(rows.with_columns(pl.Series(_TICK, ticks)), most)
        known, ticks = rows["entity"].unique(), rows[_TICK].to_numpy()
    names, whose = coded(rows["entity"], known)
    first = int(ticks.min()) if len(ticks) else 0
    keys, of_row, sizes = _told_apart((ticks - first) * len(names) + whose)
    cells, values = np.zeros((3, len(keys), len(features))), dict[str, list[dict[str, int]]]()
    for column, name in enumerate(features):
        if name in categories:
            cells[:, :, column], values[name] = _counts(rows[name], of_row, len(keys))
        else:
            cells[:, :, column] = _sums(rows[name], of_row, sizes)
    votes: Votes = {}
    for tick, of in _by_tick(keys // max(len(names), 1)):
        entities = [names[key] for key in (keys[of] % len(names)).tolist()]
        lists = {name: each[of] for name, each in values.items()}
        votes[first + tick] = packed(entities, features, cells[:, of], lists, kept.get(first + tick, 1.0))
    return votes


def _by_tick(ticks: Ints) -> Iterator[tuple[int, slice]]:
    """Each tick of cells in order, and where its cells are."""
    starts = np.flatnonzero(np.diff(ticks, prepend=-1))
    for begin, end in pairwise([*starts.tolist(), len(ticks)]):
        yield int(ticks[begin]), slice(begin, end)


def _bounded(rows: pl.DataFrame, most: int) -> tuple[pl.DataFrame, dict[int, float]]:
    """The rows of the entities that are kept, and the bounds of the ticks of which not all are."""
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


def _told_apart(keys: Ints) -> tuple[Ints, Ints, Ints]:
    """Which keys there are, each one's position among them, and how many there are of each, as `np.unique` says it.

    Where they are close together they are counted, not sorted, which takes an eighth of the time.
    """
    if not len(keys) or keys.max() > len(keys):
        return np.unique(keys, return_inverse=True, return_counts=True)
    counts = np.bincount(keys)
    there = counts > 0
    if there.all():
        return np.arange(len(counts)), keys, counts
    return np.flatnonzero(there), (np.cumsum(there) - 1)[keys], counts[there]


def _sums(values: pl.Series, cells: Ints, sizes: Ints) -> Floats:
    """A number's votes in each cell (3, cells); `sizes` are the cells' rows."""
    # `bincount` adds one value after the other: parallel sums would add up in another order each time.
    numbers, missing = values.cast(pl.Float64).to_numpy(), np.zeros_like(sizes)
    totals = np.bincount(cells, weights=numbers, minlength=len(sizes))
    if not np.abs(totals).max(initial=0.0) <= LARGEST:  # or there is one that is no number, as a value is none
        numbers = clipped(values)
        absent = np.isnan(numbers)
        missing = np.bincount(cells[absent], minlength=len(sizes))
        totals = np.bincount(cells[~absent], weights=numbers[~absent], minlength=len(sizes))
    return np.stack([sizes - missing, totals, missing])


def _counts(values: pl.Series, cells: Ints, size: int) -> tuple[Floats, list[dict[str, int]]]:
    """A category's votes in each cell (3, cells), and its commonest values there."""
    texts = values.cast(pl.String)
    absent = texts.is_null().to_numpy()
    missing = np.bincount(cells[absent], minlength=size)
    known, codes = coded(texts.drop_nulls())
    keys, rows = np.unique(cells[~absent] * len(known) + codes, return_counts=True)
    at, codes = np.divmod(keys, max(len(known), 1))
    counts = np.bincount(at, weights=rows, minlength=size)
    apart = listed(at, rows)
    by_cell: list[dict[str, int]] = [{} for _ in range(size)]
    for cell, code, number in zip(at[apart].tolist(), codes[apart].tolist(), rows[apart].tolist(), strict=True):
        by_cell[cell][shortened(known[code])] = number
    return np.stack([counts, np.zeros(size), missing]), by_cell


def coded(texts: pl.Series, known: pl.Series | None = None) -> tuple[list[str], Ints]:
    """The values of texts without nulls, in the order of their bytes, and each text's place among them (n,).

    `known` are the values, in any order, where they were asked for before.
    """
    known = (texts.unique() if known is None else known).sort(multithreaded=False)
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
