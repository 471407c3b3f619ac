"""What a row of a view holds, and which words of it mean what.

A packed row is an array of 64-bit words, little-endian, so that a batch of rows is one NumPy array:

    token, layout id, number of sources, then id and offset of each source by id      the header
    event time (µs), source id, offset                                                of the last event
    which fields are present, a bit each; the fields, a word each
    how many entries each window has; bytes of text
    the entries, window by window
    text: the strings as a list in MessagePack, filled up with zeros

A field's word is a float64, an int64, or 0 or 1; 0 for a string. A window's entry is `tile << 18 | key` (the tile alone
where partials have no key), then the partial's numbers; for `last` the event time, source id and offset of the event,
and its value's word. The strings are those of the fields, then those of `last` entries, in their order. Layouts and
sources are named by 64 bits of their hash; what the names stand for is kept beside the rows
(`tidemill.features.online`).
"""

from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from tidemill.core.errors import Corrupt, InvalidInput
from tidemill.features.partials import COLUMNS, KEYED
from tidemill.features.tiles import Tiled, tiled
from tidemill.spec.model import ContinualModel

__all__ = ["EVENTS", "LAST_WORDS", "MAX_ROW_BYTES", "Kind", "Layout", "check_size", "layout_of", "name_id", "row_bytes"]

EVENTS = "events"
"""Name of a model's view: of each entity's events."""

Kind = Literal["float", "int", "bool", "string"]

MAX_ROW_BYTES = 1 << 20
"""A view whose rows may get larger is refused: each event reads and writes its entity's row."""

LAST_WORDS = 4
"""Of a partial of `last`: event time, source id, offset, value."""

_FIXED_WORDS = 3 + 2 + 3 + 1
"""Header with one source, last event, bytes of text."""
_SKETCH_KEYS = 128
"""Keys that a tile of a sketch is counted with: some hundred different values, or numbers within a factor of 13."""
_TEXT_BYTES = 16
"""What a string is counted with."""


class Place(NamedTuple):
    """Where the asked-for fields of one kind are."""

    kind: Kind
    columns: slice | list[int]
    """Among what was asked for."""
    fields: slice | list[int]
    """Among the layout's fields."""


class Places(NamedTuple):
    """Where what was asked for is."""

    fields: tuple[Place, ...]
    """By kind."""
    complete: bool
    """Whether all of it are fields."""


class Layout(msgspec.Struct, frozen=True, dict=True, cache_hash=True):
    """The fields and windows of a view's rows."""

    fields: tuple[tuple[str, Kind], ...]
    """Name and kind of each value that is kept of an entity's last event."""
    windows: tuple[Tiled, ...] = ()

    @cached_property
    def id(self) -> int:
        """The layout's name in its rows."""
        return name_id(self.encoded)

    @cached_property
    def windows_id(self) -> str:
        """Differs for each set of windows: what was filled for one set is no use to another."""
        return format(name_id(msgspec.json.encode(self.windows)) & (1 << 64) - 1, "016x")

    @cached_property
    def encoded(self) -> bytes:
        """The layout as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Layout":
        """The layout in `data`; raises `Corrupt`."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"the layout of online rows cannot be read: {error}") from error

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(name for name, _ in self.fields)

    @cached_property
    def full_mask(self) -> bytes:
        """The presence bits of a row that has every field."""
        bits = np.arange(64 * self.mask_words) < len(self.fields)
        return np.packbits(bits, bitorder="little").tobytes()

    @cached_property
    def mask_words(self) -> int:
        """Words of presence bits."""
        return -(-len(self.fields) // 64)

    @cached_property
    def body_words(self) -> int:
        """Words from the last event to the bytes of text."""
        return 3 + self.mask_words + len(self.fields) + len(self.windows) + 1

    @cached_property
    def strings(self) -> tuple[int, ...]:
        """Positions of the fields that are strings."""
        return tuple(position for position, (_, kind) in enumerate(self.fields) if kind == "string")

    @cached_property
    def text_windows(self) -> tuple[int, ...]:
        """Positions of the windows whose partials hold strings."""
        return tuple(at for at, window in enumerate(self.windows) if self.kind_of(window) == "string")

    def places(self, names: tuple[str, ...]) -> Places:
        """Where those of the names are that are fields; raises `InvalidInput` for a string's."""
        return _places(self, names)

    def kind_of(self, window: Tiled) -> Kind | None:
        """Kind of the values of a window `last`; None for other windows."""
        return dict(self.fields)[window.of] if window.agg == "last" and window.of else None

    def entry_words(self, window: Tiled) -> int:
        """Words of one entry."""
        return 1 + (LAST_WORDS if window.agg == "last" else len(COLUMNS[window.agg]))


@lru_cache(256)
def _places(layout: Layout, names: tuple[str, ...]) -> Places:
    at = {name: (position, kind) for position, (name, kind) in enumerate(layout.fields)}
    found: dict[Kind, tuple[list[int], list[int]]] = {}
    for number, name in enumerate(names):
        if name in at:
            position, kind = at[name]
            if kind == "string":
                raise InvalidInput(f"feature {name} is no number")
            columns, fields = found.setdefault(kind, ([], []))
            columns.append(number)
            fields.append(position)
    places = tuple(Place(kind, _run(columns), _run(fields)) for kind, (columns, fields) in found.items())
    return Places(places, at.keys() >= set(names))


def _run(positions: list[int]) -> slice | list[int]:
    """Positions without a gap as a slice, which NumPy takes without copying."""
    first, last = positions[0], positions[-1] + 1
    return slice(first, last) if positions == list(range(first, last)) else positions


_KINDS: dict[str, Kind] = {"float": "float", "int": "int", "bool": "bool", "string": "string"}


def layout_of(resource: ContinualModel) -> Layout:
    """The layout of a model's rows. Raises `InvalidInput` where a row may exceed `MAX_ROW_BYTES`."""
    spec = resource.spec
    fields = [(field.name, _KINDS[field.type]) for field in spec.events.fields if field.type in _KINDS]
    fields += [(name, _KINDS["float"]) for name in spec.features.image]
    windows = tiled(spec.features.event_windows, spec.events.allowed_lateness)
    return check_size(Layout(tuple(fields), windows))


def check_size(layout: Layout) -> Layout:
    """The layout, if its rows cannot exceed `MAX_ROW_BYTES`; else raises `InvalidInput`."""
    if row_bytes(layout) > MAX_ROW_BYTES:
        worst = max(layout.windows, key=lambda window: window.ring * layout.entry_words(window))
        raise InvalidInput(
            f"an online row may take {row_bytes(layout):,} bytes; at most {MAX_ROW_BYTES:,} are taken",
            hint=f"{worst.name} keeps {worst.ring:,} tiles: take a longer window, or less events.allowedLateness",
        )
    return layout


def row_bytes(layout: Layout) -> int:
    """Bytes that an entity's row takes if each tile is occupied, sketches and strings being small."""
    words = _FIXED_WORDS + layout.mask_words + len(layout.fields) + len(layout.windows)
    for window in layout.windows:
        keys = _SKETCH_KEYS if window.agg in KEYED else 1
        words += window.ring * keys * layout.entry_words(window)
    texts = len(layout.strings) + sum(layout.windows[at].ring for at in layout.text_windows)
    return 8 * words + _TEXT_BYTES * texts


def name_id(name: bytes) -> int:
    """64 bits that stand for a name, as a signed word."""
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little", signed=True)
