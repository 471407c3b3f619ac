"""Online rows: what is kept of one entity in one view, how events change it, and how it is packed.

A row is a fence and a state. The fence says, by source, up to which offset the entity's events are in the state; the
state does not depend on the order in which sources or batches were applied. So whatever is repeated, overlaps or
arrives from a worker that was believed dead leaves the same row.
"""

from collections.abc import Iterable
from struct import Struct

import msgspec

from tidemill.core.errors import Corrupt

__all__ = ["Last", "OnlineEvent", "Row", "Value", "fold", "pack", "pack_header", "unpack"]

Value = float | int | str | bool | None
"""A feature's value; pictures stay in the lake."""

_LENGTH = Struct(">I")


class OnlineEvent(msgspec.Struct, frozen=True):
    """What an event means to the online rows."""

    entity: str
    source: str
    offset: int
    event_time: int
    """Milliseconds since the epoch."""
    values: dict[str, Value]


class Last(msgspec.Struct, frozen=True, array_like=True):
    """The state `last`: the values of the event that is greatest by (event time, source, offset)."""

    event_time: int
    source: str
    offset: int
    values: dict[str, Value]


class Row(msgspec.Struct, frozen=True):
    """One entity's row. `generation` names the filling of the store that it belongs to."""

    generation: str
    fence: dict[str, int]
    last: Last | None = None


class _Header(msgspec.Struct, frozen=True, array_like=True):
    generation: str
    fence: dict[str, int]


_header_decoder = msgspec.msgpack.Decoder(_Header)
_state_decoder = msgspec.msgpack.Decoder(Last | None)
# Sorted, because equal fences must be equal bytes: the store compares headers to see whether a fence moved.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def fold(row: Row, events: Iterable[OnlineEvent]) -> Row:
    """The row after those of its entity's events that lie above its fence. Events of one source in offset order.

    Returns `row` itself where there is nothing new. An event that is older than the state still moves the fence.
    """
    fence: dict[str, int] = {}
    last = row.last
    for event in events:
        if event.offset <= fence.get(event.source, row.fence.get(event.source, -1)):
            continue
        fence[event.source] = event.offset
        if last is None or (event.event_time, event.source, event.offset) > (last.event_time, last.source, last.offset):
            last = Last(event.event_time, event.source, event.offset, event.values)
    return Row(row.generation, row.fence | fence, last) if fence else row


def pack_header(row: Row) -> bytes:
    """The bytes that a packed row begins with; they change exactly when generation or fence do."""
    header = _encoder.encode(_Header(row.generation, row.fence))
    return _LENGTH.pack(len(header)) + header


def pack(row: Row) -> bytes:
    """The row as bytes: length of the header, header, state."""
    return pack_header(row) + _encoder.encode(row.last)


def unpack(data: bytes) -> tuple[Row, bytes]:
    """The row in `data`, and its header's bytes; raises `Corrupt` on anything that `pack` did not write."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        header = _header_decoder.decode(data[_LENGTH.size : end])
        return Row(header.generation, header.fence, _state_decoder.decode(data[end:])), data[:end]
    except Exception as error:  # struct.error, msgspec.MsgspecError, UnicodeDecodeError, …
        raise Corrupt(f"an online row of {len(data)} bytes cannot be read: {error}") from error
