"""Reading online rows: one round trip, however many; windows are evaluated when they are read."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.core.errors import InvalidInput
from tidemill.features.connection import READY, Fetcher, Found, Generation, Keys, Names, connect, unpacked
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.packing import Rows, presence, uniform_bodies
from tidemill.features.partials import Ints
from tidemill.features.rows import Value, values_of, window_values_at

__all__ = ["OnlineReader", "OnlineRow", "Status"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Status(StrEnum):
    """Whether a row could be read."""

    PRESENT = "PRESENT"
    NOT_FOUND = "NOT_FOUND"
    """There has been no event of this entity."""
    REBUILDING = "REBUILDING"
    """The store was lost and is being filled again; ask later."""
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
    """The entity's last event is older than `features.ttl`: its values are None. Windows bound their own age."""


class OnlineRow(msgspec.Struct, frozen=True):
    """One entity's values as they were when read. `fence` says from which events: log it with the prediction."""

    status: Status
    values: dict[str, Value] = {}
    """Of the last event, and of each window; of an entity without events, of the windows alone."""
    event_time: int | None = None
    """Of the last event, in milliseconds since the epoch."""
    fence: dict[str, int] = {}


class OnlineReader:
    """Reads rows of one view in one round trip, however many. Thread-safe.

    Args:
        redis_url: where the rows are.
        model_id: `<namespace>.<name>`.
        view: name of the view.
        layout: the windows that entities without events have values of, too (a count of 0).
        ttl_ms: age in milliseconds at which an entity's last event no longer counts; None: never.
        timeout_s: longest time for one answer.

    Every method raises `Unavailable` where Redis does not answer.
    """

    def __init__(
        self,
        redis_url: str,
        model_id: str,
        view: str = EVENTS,
        *,
        layout: Layout | None = None,
        ttl_ms: int | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self._keys = Keys(model_id, view)
        self._redis = connect(redis_url, timeout_s, self._keys.generation)
        self._fetch = Fetcher(self._redis)
        self._names = Names(self._redis, self._keys.names)
        self._layout, self._ttl_ms = layout or Layout(()), ttl_ms
        self._known: tuple[bytes | None, Generation] = (None, Generation.parse(None))

    def read(self, entities: Sequence[str], now_ms: int | None = None) -> list[OnlineRow]:
        """A row for each of `entities`, in their order; without `now_ms` no windows, and nothing is too old."""
        generation, packed = self._packed(entities)
        if generation.state != READY:
            return [OnlineRow(Status.REBUILDING) for _ in entities]
        found = Found(generation, unpacked(self._names, generation, packed))
        answers: list[OnlineRow | None] = [None] * len(entities)
        for layout, at, rows in found.groups:
            for position, answer in zip(at.tolist(), self._answers(layout, rows, now_ms), strict=True):
                answers[position] = answer
        nothing = self._nothing(found, now_ms) if None in answers else None
        return [answer or cast("OnlineRow", nothing) for answer in answers]

    def read_matrix(self, entities: Sequence[str], names: Sequence[str], now_ms: int) -> tuple[Floats, list[Status]]:
        """Features as numbers, entities by names, NaN for None; and the status of each entity.

        Raises `InvalidInput` for a name that is no number.
        """
        generation, packed = self._packed(entities)
        if generation.state != READY:
            return np.full((len(entities), len(names)), np.nan), [Status.REBUILDING] * len(entities)
        straight = self._straight(generation, packed, tuple(names), now_ms)
        if straight is not None:
            return straight
        found = Found(generation, unpacked(self._names, generation, packed))
        matrix = np.full((len(entities), len(names)), np.nan)
        statuses = [Status.NOT_FOUND] * len(entities)
        for layout, at, rows in found.groups:
            old = self._old(rows.event_time, now_ms)
            matrix[at] = self._numbers(layout, rows, names, old, now_ms)
            for position, is_old in zip(at.tolist(), old.tolist(), strict=True):
                statuses[position] = Status.OUTSIDE_MAX_AGE if is_old else Status.PRESENT
        if Status.NOT_FOUND in statuses:
            nothing = self._nothing(found, now_ms).values
            missing = [status is Status.NOT_FOUND for status in statuses]
            matrix[missing] = [_number(nothing.get(name)) for name in names]
        return matrix, statuses

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _packed(self, entities: Sequence[str]) -> tuple[Generation, list[bytes | None]]:
        raw, *rows = self._fetch([self._keys.generation, *self._keys.rows(entities)])
        known, generation = self._known  # one read of one attribute: other threads may set it meanwhile
        if raw != known:
            generation = Generation.parse(raw)
            self._known = (raw, generation)
        return generation, rows

    def _straight(
        self, generation: Generation, packed: list[bytes | None], names: tuple[str, ...], now_ms: int
    ) -> tuple[Floats, list[Status]] | None:
        """The usual case without a detour: all rows there, alike and young, and no windows asked for."""
        if not packed or None in packed:
            return None
        token, number, bodies = uniform_bodies(cast("list[bytes]", packed)) or (0, 0, None)
        layout = self._names.layouts.get(number)
        if bodies is None or layout is None or token != generation.word:
            return None
        places = layout.places(names)
        first = 3 + layout.mask_words
        if not places.complete or bodies.shape[1] < layout.body_words or self._has_old(bodies[:, 0], now_ms):
            return None
        mask, words = bodies[:, 3:first], bodies[:, first:]
        present = None if mask.tobytes() == layout.full_mask * len(packed) else presence(mask, len(layout.fields))
        matrix = np.empty((len(packed), len(names)))
        for kind, columns, fields in places.fields:
            numbers = words[:, fields]
            if kind == "float":
                numbers = numbers.view(np.float64)
            matrix[:, columns] = numbers if present is None else np.where(present[:, fields], numbers, np.nan)
        return matrix, [Status.PRESENT] * len(packed)

    def _answers(self, layout: Layout, rows: Rows, now_ms: int | None) -> list[OnlineRow]:
        columns = values_of(layout, rows)
        old = self._old(rows.event_time, now_ms).tolist()
        windows: dict[str, list[Value]] = {}
        if now_ms is not None and layout.windows:
            found = window_values_at(layout, rows, now_ms * 1000, self._names.sources)
            windows = {name: _values(layout, name, *column) for name, column in found.items()}
        names, window_names = tuple(columns), tuple(windows)
        events = zip(*columns.values(), strict=True) if columns else [()] * len(rows)
        aggregates = zip(*windows.values(), strict=True) if windows else [()] * len(rows)
        fences: list[dict[str, int]] = [{} for _ in old]
        for owner, source, offset in zip(
            rows.fences.owner.tolist(), rows.fences.source.tolist(), rows.fences.offset.tolist(), strict=True
        ):
            fences[owner][self._names.sources[source]] = offset
        return [
            OnlineRow(
                Status.OUTSIDE_MAX_AGE if is_old else Status.PRESENT,
                dict.fromkeys(names) | dict(zip(window_names, aggregate, strict=True))
                if is_old
                else dict(zip((*names, *window_names), (*event, *aggregate), strict=True)),
                time // 1000,
                fence,
            )
            for is_old, event, aggregate, time, fence in zip(
                old, events, aggregates, rows.event_time.tolist(), fences, strict=True
            )
        ]

    def _numbers(self, layout: Layout, rows: Rows, names: Sequence[str], old: Mask, now_ms: int) -> Floats:
        """Fields straight from the rows' words, a kind at a time; then the windows."""
        matrix = np.full((len(rows), len(names)), np.nan)
        for kind, columns, fields in layout.places(tuple(names)).fields:
            words = rows.words[:, fields]
            numbers = words.view(np.float64) if kind == "float" else words
            matrix[:, columns] = np.where(rows.present[:, fields], numbers, np.nan)
        matrix[old] = np.nan
        wanted = {name: at for at, name in enumerate(names) if name not in layout.names}
        if not wanted or not layout.windows:
            return matrix
        for name, (values, present) in window_values_at(layout, rows, now_ms * 1000, self._names.sources).items():
            if name in wanted:
                if values.dtype == np.object_:
                    raise InvalidInput(f"feature {name} is no number")
                matrix[:, wanted[name]] = np.where(present, values, np.nan)
        return matrix

    def _old(self, event_time: Ints, now_ms: int | None) -> Mask:
        if self._ttl_ms is None or now_ms is None:
            return np.zeros(len(event_time), np.bool_)
        return np.asarray((now_ms - self._ttl_ms) * 1000 > event_time)

    def _has_old(self, event_time: Ints, now_ms: int) -> bool:
        return self._ttl_ms is not None and bool(self._old(event_time, now_ms).any())

    def _nothing(self, found: "Found", now_ms: int | None) -> OnlineRow:
        """What an entity without events has; counts are known to be 0 if the rows are filled for these windows."""
        layout = self._layout
        if now_ms is None or not layout.windows or found.generation.windows != layout.windows_id:
            return OnlineRow(Status.NOT_FOUND)
        values = window_values_at(layout, Rows.empty(layout, 1), now_ms * 1000, {})
        return OnlineRow(Status.NOT_FOUND, {name: _values(layout, name, *column)[0] for name, column in values.items()})


def _values(layout: Layout, name: str, values: npt.NDArray[Any], present: Mask) -> list[Value]:
    """A window's values in plain Python."""
    window = next(one for one in layout.windows if one.name == name)
    plain: list[Value] = values.tolist()
    if layout.kind_of(window) == "bool":
        plain = [bool(value) for value in plain]
    return [value if there else None for value, there in zip(plain, present.tolist(), strict=True)]


def _number(value: Value) -> float:
    return np.nan if value is None or isinstance(value, str) else float(value)
