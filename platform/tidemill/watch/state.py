"""What the reducer knows between two batches: everything, so that a restart goes on as if there had been none."""

from collections.abc import Mapping

import msgspec
import numpy as np

from tidemill.core.errors import Corrupt
from tidemill.stats.drift import Detectors, DriftState, start
from tidemill.watch.reference import Reference
from tidemill.watch.ticks import Ticks

__all__ = ["Promotion", "StoredDrift", "WatchState", "decode_state", "encode_state", "pack", "unpack"]

FORMAT = 2


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that serves from now on. Without a reference nothing is signalled."""

    version: str
    at: int
    """When the decision reached the log; sketches that reached it before belong to the version before."""
    reference: Reference | None = None


class StoredDrift(msgspec.Struct, frozen=True):
    """A `DriftState` as bytes: little-endian, in C order."""

    shape: tuple[int, ...]
    evidence: bytes
    cusum: bytes
    since: bytes
    updated: bytes


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """The reducer's state."""

    format: int = FORMAT
    ticks: Ticks
    version: str | None = None
    reference: Reference | None = None
    drift: StoredDrift | None = None
    recent: Mapping[str, Mapping[str, float]] = {}
    pending: tuple[Promotion, ...] = ()
    """Promotions that no sketch has followed yet."""


def encode_state(state: WatchState) -> bytes:
    """The state as bytes (MessagePack); floats are exact."""
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes, origin: str) -> WatchState:
    """The state in `data`; raises `Corrupt` naming `origin`."""
    try:
        state = msgspec.msgpack.decode(data, type=WatchState)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{origin} holds no state of the watch: {error}") from error
    if state.format != FORMAT:
        raise Corrupt(f"{origin} holds a state of format {state.format}; this version of Tidemill reads {FORMAT}")
    return state


def pack(state: DriftState) -> StoredDrift:
    """The detectors' state for storing."""
    evidence, cusum = (np.ascontiguousarray(array, dtype="<f8").tobytes() for array in (state.evidence, state.cusum))
    since, updated = (np.ascontiguousarray(array, dtype="<i8").tobytes() for array in (state.since, state.updated))
    return StoredDrift(tuple(state.evidence.shape), evidence, cusum, since, updated)


def unpack(stored: StoredDrift | None, watched: Detectors) -> DriftState:
    """The detectors' state as stored; a new one where there is none, or where it is of other detectors."""
    shape = watched.hit.shape
    if stored is None or stored.shape != shape:
        return start(watched)
    return DriftState(
        evidence=np.frombuffer(stored.evidence, dtype="<f8").reshape(shape),
        cusum=np.frombuffer(stored.cusum, dtype="<f8").reshape(shape),
        since=np.frombuffer(stored.since, dtype="<i8").reshape(shape),
        updated=np.frombuffer(stored.updated, dtype="<i8").reshape(shape[:1]),
    )
