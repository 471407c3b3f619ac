"""What the reducer knows between two batches: everything, so that a restart goes on as if there had been none."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tidemill.core.errors import Corrupt
from tidemill.stats.drift import Detectors, DriftState, start
from tidemill.watch.performance import StoredPerformance
from tidemill.watch.quantity import Subject
from tidemill.watch.reference import Reference
from tidemill.watch.ticks import Ticks

__all__ = ["Promotion", "StoredDrift", "WatchState", "decode_state", "encode_state", "pack", "unpack"]

FORMAT = 3


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that serves from now on. Without a reference nothing is signalled."""

    version: str
    at: int
    """When the decision reached the log; sketches that reached it before belong to the version before."""
    reference: Reference | None = None


class StoredDrift(msgspec.Struct, frozen=True):
    """A `DriftState` as bytes: little-endian, in C order."""

    keys: tuple[str, ...]
    """Of which quantities it is, in their order."""
    shape: tuple[int, ...]
    """Of one quantity's evidence."""
    evidence: bytes
    cusum: bytes
    since: bytes
    updated: bytes


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """The reducer's state."""

    format: int = FORMAT
    streams: Mapping[Subject, Ticks]
    """The ticks of each stream that are not over."""
    version: str | None = None
    reference: Reference | None = None
    drift: StoredDrift | None = None
    recent: Mapping[str, Mapping[str, float]] = {}
    performance: StoredPerformance | None = None
    """Of the test of `triggers.performance`, where that is declared."""
    pending: tuple[Promotion, ...] = ()
    """Promotions that no record of a stream has followed yet."""

    @property
    def tick_ms(self) -> int:
        """Length of the window ticks."""
        return next(iter(self.streams.values())).tick_ms

    @property
    def closed(self) -> int:
        """End of the last tick that is over, of whichever stream is farthest."""
        return max(ticks.closed for ticks in self.streams.values())


def encode_state(state: WatchState) -> bytes:
    """The state as bytes (MessagePack); floats are exact."""
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes, origin: str) -> WatchState | None:
    """The state in `data`; None where an earlier release wrote it, which cannot be gone on with.

    Raises `Corrupt` naming `origin` for anything else, and for the state of a later release.
    """
    try:
        found = msgspec.msgpack.decode(data, type=_Format).format
        if found == FORMAT:
            return msgspec.msgpack.decode(data, type=WatchState)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{origin} holds no state of the watch: {error}", hint=_ANEW) from error
    if found > FORMAT:
        raise Corrupt(f"{origin} holds a state of format {found}; this release reads {FORMAT}", hint=_ANEW)
    return None


_ANEW = "install the release that wrote it, or move the table away: then all evidence starts anew"


class _Format(msgspec.Struct):
    format: int


def pack(state: DriftState, keys: Sequence[str]) -> StoredDrift:
    """The detectors' state for storing; `keys` name the quantities."""
    evidence, cusum = (np.ascontiguousarray(array, dtype="<f8").tobytes() for array in (state.evidence, state.cusum))
    since, updated = (np.ascontiguousarray(array, dtype="<i8").tobytes() for array in (state.since, state.updated))
    return StoredDrift(tuple(keys), tuple(state.evidence.shape[1:]), evidence, cusum, since, updated)


def unpack(stored: StoredDrift | None, watched: Detectors, keys: Sequence[str]) -> DriftState:
    """The detectors' state as stored; a quantity of which nothing is stored starts anew."""
    begun = start(watched)
    shape = begun.evidence.shape[1:]
    if stored is None or stored.shape != shape:
        return begun
    if stored.keys == tuple(keys):
        return _arrays(stored)
    known, rows = _arrays(stored), {key: row for row, key in enumerate(stored.keys)}
    pairs = [(row, rows[key]) for row, key in enumerate(keys) if key in rows]
    for row, old in pairs:
        begun.evidence[row], begun.cusum[row] = known.evidence[old], known.cusum[old]
        begun.since[row], begun.updated[row] = known.since[old], known.updated[old]
    return begun


def _arrays(stored: StoredDrift) -> DriftState:
    shape = (len(stored.keys), *stored.shape)
    return DriftState(
        evidence=np.frombuffer(stored.evidence, dtype="<f8").reshape(shape),
        cusum=np.frombuffer(stored.cusum, dtype="<f8").reshape(shape),
        since=np.frombuffer(stored.since, dtype="<i8").reshape(shape),
        updated=np.frombuffer(stored.updated, dtype="<i8").reshape(shape[:1]),
    )
