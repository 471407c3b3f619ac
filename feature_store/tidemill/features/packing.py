"""Rows as columns, and as the bytes that are kept of them (`tidemill.features.layout`). One call for any number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from struct import Struct
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.core.errors import Corrupt
from tidemill.features.layout import LAST_WORDS, Layout
from tidemill.features.partials import COLUMNS, KEYED, Entries, Ints
from tidemill.features.sketches import KEY_BITS
from tidemill.features.tiles import Tiled

__all__ = ["NEVER", "Fences", "Packed", "Rows", "headers_of", "pack", "presence", "uniform_bodies", "unpack"]

NEVER = np.iinfo(np.int64).min
"""Event time of a row without events."""

_HEADER = 3
"""Words before the sources."""
_HEAD = Struct("<3q")
"""Those words: token, layout, number of sources."""


@dataclass(frozen=True)
class Fences:
    """Up to which offset of which source each row goes, by row and source."""

    owner: Ints
    source: Ints
    offset: Ints


@dataclass(frozen=True)
class Rows:
    """The state of entities 0, 1, …, as columns."""

    fences: Fences
    event_time: Ints
    """Of the last event, in microseconds; `NEVER` where there is none."""
    source: Ints
    offset: Ints
    present: npt.NDArray[np.bool_]
    """Entities by fields."""
    words: Ints
    """Entities by fields; 0 where there is no value, and for strings."""
    windows: tuple[Entries, ...]
    """Of each window, by owner, tile and key. `last` has `LAST_WORDS` columns; its strings are objects."""
    texts: npt.NDArray[np.object_]
    """Entities by fields that are strings."""

    def __len__(self) -> int:
        """How many entities."""
        return len(self.event_time)

    @classmethod
    def empty(cls, layout: Layout, count: int) -> "Rows":
        """Rows of entities that have seen nothing."""
        none = np.zeros(0, np.int64)
        width = len(layout.fields)
        return cls(
            Fences(none, none, none),
            np.full(count, NEVER),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, width), np.bool_),
            np.zeros((count, width), np.int64),
            tuple(Entries(none, none, none, _columns(layout, window, none)) for window in layout.windows),
            np.full((count, len(layout.strings)), None, np.object_),
        )

    def take(self, which: Ints) -> "Rows":
        """The entities at these positions (each once), in their order."""
        place = np.full(len(self), -1, np.int64)
        place[which] = np.arange(len(which))
        kept = place[self.fences.owner]
        fences = Fences(kept[kept >= 0], self.fences.source[kept >= 0], self.fences.offset[kept >= 0])
        return Rows(
            _by_owner(fences),
            self.event_time[which],
            self.source[which],
            self.offset[which],
            self.present[which],
            self.words[which],
            tuple(_renumbered(one, place) for one in self.windows),
            self.texts[which],
        )


class Packed:
    """Packed rows in one buffer. Raises `Corrupt` for what is no row at all."""

    def __init__(self, rows: Sequence[bytes]) -> None:
        self.data = b"".join(rows)
        size = np.fromiter(map(len, rows), np.int64, len(rows))
        if (size % 8).any() or (size < 8 * _HEADER).any():
            raise Corrupt("an online row cannot be read: it is no row of words")
        self.words: Ints = np.frombuffer(self.data, "<i8")
        self.length: Ints = size // 8
        self.start: Ints = np.cumsum(self.length) - self.length

    @property
    def tokens(self) -> Ints:
        """Which filling each row belongs to."""
        return self.words[self.start]

    @property
    def layouts(self) -> Ints:
        """The id of each row's layout."""
        return self.words[self.start + 1]


def uniform_bodies(rows: Sequence[bytes]) -> tuple[int, int, Ints] | None:
    """Token, layout and the words after the header, if rows have the same of the first two and all one length.

    Nearly all reads are of such rows; what is read of them is a matrix already. Strings and entries are at the end.
    """
    first, size, several = rows[0], len(rows[0]), len(rows) > 1
    if size < _HEAD.size or size % 8 or (several and any(len(row) != size for row in rows)):
        return None
    token, layout, sources = _HEAD.unpack_from(first)
    words = np.frombuffer(b"".join(rows), "<i8").reshape(len(rows), -1)
    begin = _HEADER + 2 * sources
    if not _HEADER <= begin <= size // 8 or (several and (words[1:, :_HEADER] != words[0, :_HEADER]).any()):
        return None
    return token, layout, words[:, begin:]


def headers_of(rows: Sequence[bytes | None]) -> list[bytes]:
    """Of each packed row the bytes that change exactly when its token, layout or fence does; none of None."""
    sources = {row[16:24] for row in rows if row is not None}
    ends = {count: 8 * (_HEADER + 2 * int.from_bytes(count, "little")) for count in sources}
    return [b"" if row is None else row[: ends[row[16:24]]] for row in rows]


def pack(layout: Layout, token: int, rows: Rows) -> list[bytes]:
    """Each row as bytes, with the token of the filling that it belongs to."""
    count = len(rows)
    sources = np.bincount(rows.fences.owner, minlength=count)
    counts = [np.bincount(one.owner, minlength=count) for one in rows.windows]
    sizes = [layout.entry_words(window) for window in layout.windows]
    texts = _pack_texts(layout, rows, counts)
    text_bytes = np.fromiter(map(len, texts), np.int64, count) if texts else np.zeros(count, np.int64)

    length = _HEADER + 2 * sources + layout.body_words
    for size, counted in zip(sizes, counts, strict=True):
        length = length + size * counted
    start = np.cumsum(length) - length
    out = np.zeros(int(length.sum()), np.int64)
    out[start], out[start + 1], out[start + 2] = token, layout.id, sources
    where = start[rows.fences.owner] + _HEADER + 2 * _within(sources)
    out[where], out[where + 1] = rows.fences.source, rows.fences.offset

    where = start + _HEADER + 2 * sources
    body = np.column_stack(
        [
            rows.event_time,
            rows.source,
            rows.offset,
            _bits(rows.present, layout.mask_words),
            rows.words,
            *counts,
            text_bytes,
        ]
    )
    out[where[:, None] + np.arange(layout.body_words)] = body
    begin = where + layout.body_words
    for window, one, counted, size in zip(layout.windows, rows.windows, counts, sizes, strict=True):
        where = begin[one.owner] + size * _within(counted)
        out[where] = one.tile << KEY_BITS | one.key if window.agg in KEYED else one.tile
        for number, column in enumerate(one.columns, start=1):
            out[where + number] = 0 if column.dtype == np.object_ else column.view(np.int64)
        begin = begin + size * counted

    data, bounds = out.tobytes(), (8 * np.append(start, len(out))).tolist()
    packed = [data[first:last] for first, last in pairwise(bounds)]
    if not texts:
        return packed
    return [row + text + bytes(-len(text) % 8) for row, text in zip(packed, texts, strict=True)]


def unpack(layout: Layout, packed: Packed) -> Rows:
    """The rows in `packed`, all of this layout. Raises `Corrupt` on anything that `pack` did not write."""
    try:
        return _unpacked(layout, packed)
    except (ValueError, IndexError, OverflowError, MemoryError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"an online row cannot be read: {error}") from error


def _unpacked(layout: Layout, packed: Packed) -> Rows:
    words, start = packed.words, packed.start
    sources = words[start + 2]
    left = packed.length - _HEADER - layout.body_words - 2 * sources
    if (sources < 0).any() or (left < 0).any():
        raise ValueError("it is shorter than its header says")
    where = start + _HEADER + 2 * sources
    body = words[where[:, None] + np.arange(layout.body_words)]
    fields = 3 + layout.mask_words
    windows = fields + len(layout.fields)
    counts = body[:, windows:-1].T
    _check(layout, counts, body[:, -1], left)
    fence = words[_spread(start + _HEADER, 2 * sources)].reshape(-1, 2)
    begin = where + layout.body_words
    entries = []
    for window, counted in zip(layout.windows, counts, strict=True):
        size = layout.entry_words(window)
        entries.append(_entries(window, words[_spread(begin, size * counted)].reshape(-1, size), counted))
        begin = begin + size * counted
    rows = Rows(
        Fences(np.repeat(np.arange(len(start)), sources), fence[:, 0], fence[:, 1]),
        body[:, 0],
        body[:, 1],
        body[:, 2],
        presence(body[:, 3:fields], len(layout.fields)),
        body[:, fields:windows],
        tuple(entries),
        np.full((len(start), len(layout.strings)), None, np.object_),
    )
    if not layout.strings and not layout.text_windows:
        return rows
    bounds = zip((8 * begin).tolist(), (8 * begin + body[:, -1]).tolist(), strict=True)
    return _with_texts(layout, rows, counts, [packed.data[first:last] for first, last in bounds])


def _check(layout: Layout, counts: Ints, text_bytes: Ints, left: Ints) -> None:
    """Whether the rest of each row is as long as its numbers say."""
    if (counts < 0).any() or (counts > left).any() or (text_bytes < 0).any() or (text_bytes > 8 * left).any():
        raise ValueError("its numbers of entries cannot be")
    used = -(-text_bytes // 8)
    for window, counted in zip(layout.windows, counts, strict=True):
        used = used + layout.entry_words(window) * counted
    if (used != left).any():
        raise ValueError("it is not as long as its numbers say")


def _entries(window: Tiled, words: Ints, counted: Ints) -> Entries:
    at, owner = words[:, 0], np.repeat(np.arange(len(counted)), counted)
    columns = tuple(words[:, number].copy().view(kind) for number, kind in enumerate(_kinds(window), start=1))
    if window.agg in KEYED:
        return Entries(owner, at >> KEY_BITS, at & ((1 << KEY_BITS) - 1), columns)
    return Entries(owner, at, np.zeros(len(at), np.int64), columns)


def _kinds(window: Tiled) -> tuple[str, ...]:
    return ("i8",) * LAST_WORDS if window.agg == "last" else COLUMNS[window.agg]


def _columns(layout: Layout, window: Tiled, none: Ints) -> tuple[npt.NDArray[Any], ...]:
    columns = tuple(none.view(kind) for kind in _kinds(window))
    return (*columns[:-1], none.astype(np.object_)) if layout.kind_of(window) == "string" else columns


def _pack_texts(layout: Layout, rows: Rows, counts: Sequence[Ints]) -> list[bytes]:
    if not layout.strings and not layout.text_windows:
        return []
    texts = rows.texts.tolist()
    for at in layout.text_windows:
        upto = np.cumsum(counts[at]).tolist()
        values = rows.windows[at].columns[-1].tolist()
        for row, first, last in zip(texts, [0, *upto], upto, strict=False):
            row += values[first:last]
    return [msgspec.msgpack.encode(row) for row in texts]


_text_decoder = msgspec.msgpack.Decoder(list[str | None])


def _with_texts(layout: Layout, rows: Rows, counts: Sequence[Ints], packed: Sequence[bytes]) -> Rows:
    texts = [_text_decoder.decode(text) for text in packed]
    wanted = len(layout.strings) + sum((counts[at] for at in layout.text_windows), np.zeros(len(texts), np.int64))
    if [len(text) for text in texts] != wanted.tolist():
        raise ValueError("it has not as many strings as it should")
    used = np.full(len(texts), len(layout.strings))
    windows = list(rows.windows)
    for at in layout.text_windows:
        bounds = zip(texts, used.tolist(), (used + counts[at]).tolist(), strict=True)
        found = [value for text, first, last in bounds for value in text[first:last]]
        one = windows[at]
        windows[at] = Entries(one.owner, one.tile, one.key, (*one.columns[:-1], _objects(found)))
        used = used + counts[at]
    if layout.strings:
        rows.texts[:] = [text[: len(layout.strings)] for text in texts]
    return replace(rows, windows=tuple(windows))


def _objects(values: list[Any]) -> npt.NDArray[np.object_]:
    made = np.empty(len(values), np.object_)
    made[:] = values
    return made


def _bits(present: npt.NDArray[np.bool_], words: int) -> Ints:
    """Presence as bits of `words` words a row, the first field lowest."""
    padded = np.zeros((len(present), 64 * words), np.bool_)
    padded[:, : present.shape[1]] = present
    return np.packbits(padded, axis=1, bitorder="little").view(np.int64).reshape(len(present), words)


def presence(words: Ints, fields: int) -> npt.NDArray[np.bool_]:
    """Rows by fields, from rows by words of presence bits."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, count=fields, bitorder="little")
    return bits.view(np.bool_)


def _within(counts: Ints) -> Ints:
    """0, 1, … for each owner's entries, which stand together."""
    begin = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(begin, counts)


def _spread(start: Ints, counts: Ints) -> Ints:
    """All positions of ranges that begin at `start`."""
    return np.repeat(start, counts) + _within(counts)


def _renumbered(entries: Entries, place: Ints) -> Entries:
    kept = place[entries.owner]
    entries = entries.take(kept >= 0).of(kept[kept >= 0])
    return entries.take(np.argsort(entries.owner, kind="stable"))


def _by_owner(fences: Fences) -> Fences:
    order = np.argsort(fences.owner, kind="stable")
    return Fences(fences.owner[order], fences.source[order], fences.offset[order])
