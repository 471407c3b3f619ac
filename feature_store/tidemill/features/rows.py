"""Online rows: how events change them. Columns of many entities at once; pure.

A row is a fence and a state. The fence says, by source, up to which offset the entity's events are in the state; the
state (the last event's values, the windows' tiles) does not depend on the order in which sources or batches were
applied. So whatever is repeated, overlaps or arrives from a worker that was believed dead leaves the same row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.features.layout import Kind, Layout, name_id
from tidemill.features.packing import Fences, Rows
from tidemill.features.partials import Entries, Ints, merged, result, starts_of
from tidemill.features.tiles import Tiled, Times, entries_of

__all__ = ["Value", "adapted", "fold", "fresh", "source_id", "sources_of", "stacked", "values_of", "window_values_at"]

Value = float | int | str | bool | None
"""A feature's value; pictures stay in the lake."""

Names = Mapping[int, str]
"""Sources by their ids."""

_Ranks = Callable[[Ints], Ints]


@dataclass(frozen=True, slots=True)
class _Events:
    """Events that are folded into rows, and columns of them."""

    frame: pl.DataFrame
    owner: Ints
    order: Ints
    """The place of each by time, source and offset."""
    times: Times
    source: Ints
    offset: Ints


def source_id(source: str) -> int:
    """A source's name in rows."""
    return name_id(source.encode())


def fresh(rows: Rows, events: pl.DataFrame, owner: Ints) -> Ints:
    """Positions of the events above their rows' fences, each (source, offset) once."""
    codes, sources = sources_of(events)
    offset = events["offset"].to_numpy()
    above = np.zeros(len(owner), np.bool_)
    for code, source in enumerate(sources):
        fence = np.full(len(rows), -1, np.int64)
        known = rows.fences.source == source_id(source)
        fence[rows.fences.owner[known]] = rows.fences.offset[known]
        mine = codes == code
        above[mine] = offset[mine] > fence[owner[mine]]
    at = np.flatnonzero(above)
    order = at[np.lexsort((offset[at], codes[at]))]
    return order[starts_of(codes[order], offset[order])]


def fold(layout: Layout, rows: Rows, events: pl.DataFrame, owner: Ints, names: Names) -> Rows:
    """The rows after these events.

    Args:
        layout: of the rows.
        rows: entities by number.
        events: columns source, offset, event_time, available_at, the layout's fields and what its windows are of;
            none that a row has already (`fresh`).
        owner: the entity of each event.
        names: the sources in `rows` by their ids.
    """
    if not events.height:
        return rows
    codes, sources = sources_of(events)
    ids = np.array([source_id(source) for source in sources])[codes]
    rank = _ranks([*names.items(), *((source_id(source), source) for source in sources)])
    offset, times = events["offset"].to_numpy(), Times.of(events)
    found = _Events(events, owner, _order(times.event, rank(ids), offset), times, ids, offset)
    windows = tuple(
        _windowed(layout, window, have, found, rank) for window, have in zip(layout.windows, rows.windows, strict=True)
    )
    rows = _last(layout, rows, found, rank)
    return replace(rows, fences=_moved(rows.fences, owner, ids, offset), windows=windows)


def adapted(rows: Rows, old: Layout, new: Layout) -> Rows:
    """Rows of one layout in another: fields and windows that both have are kept, others are absent."""
    if old == new:
        return rows
    made = Rows.empty(new, len(rows))
    for at, field in enumerate(new.fields):
        if field in old.fields:
            was = old.fields.index(field)
            made.present[:, at], made.words[:, at] = rows.present[:, was], rows.words[:, was]
            if field[1] == "string":
                made.texts[:, new.strings.index(at)] = rows.texts[:, old.strings.index(was)]
    kept = dict(zip(old.windows, rows.windows, strict=True))
    windows = tuple(kept.get(window, none) for window, none in zip(new.windows, made.windows, strict=True))
    return Rows(rows.fences, rows.event_time, rows.source, rows.offset, made.present, made.words, windows, made.texts)


def stacked(layout: Layout, count: int, parts: Sequence[tuple[Ints, Rows]]) -> Rows:
    """Rows of `count` entities, of which each part has those at its positions; the others have seen nothing."""
    if len(parts) == 1 and len(parts[0][0]) == count:
        at, rows = parts[0]
        return rows if np.array_equal(at, np.arange(count)) else rows.take(np.argsort(at))
    made = Rows.empty(layout, count)
    fences, windows = [made.fences], [made.windows]
    for at, rows in parts:
        made.event_time[at], made.source[at], made.offset[at] = rows.event_time, rows.source, rows.offset
        made.present[at], made.words[at], made.texts[at] = rows.present, rows.words, rows.texts
        fences.append(Fences(at[rows.fences.owner], rows.fences.source, rows.fences.offset))
        windows.append(tuple(one.of(at[one.owner]) for one in rows.windows))
    return replace(made, fences=_joined(fences), windows=tuple(map(_together, zip(*windows, strict=True))))


def values_of(layout: Layout, rows: Rows) -> dict[str, list[Value]]:
    """Each field's values of the rows, None where there is none."""
    # All columns are converted together, and the few that are of another kind once more: a call for each would cost.
    words = np.ascontiguousarray(rows.words.T)
    floats, others, texts = words.view(np.float64).tolist(), words.tolist(), rows.texts.T.tolist()
    found: dict[str, list[Value]] = {}
    for at, (name, kind) in enumerate(layout.fields):
        if kind == "string":
            found[name] = texts[layout.strings.index(at)]
        elif kind == "bool":
            found[name] = [bool(value) for value in others[at]]
        else:
            found[name] = floats[at] if kind == "float" else others[at]
    if not rows.present.all():
        for name, present in zip(layout.names, rows.present.T.tolist(), strict=True):
            found[name] = [value if there else None for value, there in zip(found[name], present, strict=True)]
    return found


def window_values_at(
    layout: Layout, rows: Rows, now: int, names: Names
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """V(entity, now, now) of each window, and whether there is a value; `now` in microseconds."""
    found = {}
    for window, entries in zip(layout.windows, rows.windows, strict=True):
        newest = now // window.step
        inside = entries.take((entries.tile > newest - window.tiles) & (entries.tile <= newest))
        if window.agg == "last":
            time, source, offset, value = inside.columns
            order = _order(time, _ranks(names.items())(source), offset)
            at, present = result("last", None, replace(inside, columns=(order,)), len(rows))
            back = np.argsort(order)
            values = np.zeros(len(rows), value.dtype)
            values[present] = value[back[at[present]]]
            found[window.name] = values.view("f8") if layout.kind_of(window) == "float" else values, present
        else:
            found[window.name] = result(window.agg, window.q, inside, len(rows))
    return found


def _windowed(layout: Layout, window: Tiled, have: Entries, events: _Events, rank: _Ranks) -> Entries:
    """A window's entries with those of the events, without tiles that are too old to be asked for."""
    found, at = entries_of(window, events.frame, events.times, events.owner, events.order)
    if not len(at):
        return have
    if window.agg == "last":
        value = _words(events.frame[window.of or ""].gather(at), layout.kind_of(window) or "int")
        both = have + replace(found, columns=(events.times.event[at], events.source[at], events.offset[at], value))
        place = _order(both.columns[0], rank(both.columns[1]), both.columns[2])
        best = merged("last", replace(both, columns=(place,)))
        where = np.argsort(place)[best.columns[0]]
        both = replace(best, columns=tuple(column[where] for column in both.columns))
    else:
        both = merged(window.agg, have + found)
    starts = starts_of(both.owner)
    ends = np.append(starts[1:], len(both))
    newest = np.repeat(both.tile[ends - 1], ends - starts)
    kept = both.tile > newest - window.ring
    return both if kept.all() else both.take(kept)


def _last(layout: Layout, rows: Rows, events: _Events, rank: _Ranks) -> Rows:
    """The rows with the values of each owner's greatest event, where it is greater than the row's."""
    by_owner = np.lexsort((events.order, events.owner))
    ends = np.append(starts_of(events.owner[by_owner])[1:], len(by_owner)) - 1
    best = by_owner[ends]
    row, time, source, offset = (
        column[best] for column in (events.owner, events.times.event, events.source, events.offset)
    )
    old_time, old_source, old_offset = rows.event_time[row], rank(rows.source[row]), rows.offset[row]
    mine = rank(source)
    wins = (time > old_time) | (
        (time == old_time) & ((mine > old_source) | ((mine == old_source) & (offset > old_offset)))
    )
    row, best = row[wins], best[wins]
    present, words, texts = _fields(layout, events.frame, best)
    return replace(
        rows,
        event_time=_put(rows.event_time, row, time[wins]),
        source=_put(rows.source, row, source[wins]),
        offset=_put(rows.offset, row, offset[wins]),
        present=_put(rows.present, row, present),
        words=_put(rows.words, row, words),
        texts=_put(rows.texts, row, texts),
    )


def _fields(layout: Layout, events: pl.DataFrame, at: Ints) -> tuple[npt.NDArray[np.bool_], Ints, npt.NDArray[Any]]:
    """Presence, words and strings of the layout's fields at these positions."""
    found = events.select(layout.names)[at]
    present = np.empty((len(at), len(layout.fields)), np.bool_)
    words = np.zeros((len(at), len(layout.fields)), np.int64)
    texts = np.full((len(at), len(layout.strings)), None, np.object_)
    # Floats are many and never NaN: one conversion for all of them.
    floats = [position for position, (_, kind) in enumerate(layout.fields) if kind == "float"]
    if floats:
        numbers = found.select(layout.names[position] for position in floats).to_numpy().astype(np.float64, copy=False)
        present[:, floats] = ~np.isnan(numbers)
        words[:, floats] = np.where(present[:, floats], numbers, 0.0).view(np.int64)
    for position, (name, kind) in enumerate(layout.fields):
        if kind != "float":
            present[:, position] = found[name].is_not_null().to_numpy()
        if kind == "string":
            texts[:, layout.strings.index(position)] = found[name].to_numpy()
        elif kind != "float":
            words[:, position] = _words(found[name].fill_null(0 if kind == "int" else False), kind)
    return present, words, texts


def _words(values: pl.Series, kind: Kind) -> npt.NDArray[Any]:
    """Values without nulls as words; strings as they are."""
    if kind == "string":
        return values.to_numpy().astype(np.object_)
    if kind == "float":
        return values.cast(pl.Float64()).to_numpy().view(np.int64)
    return values.cast(pl.Int64()).to_numpy().astype(np.int64)


def _moved(fences: Fences, owner: Ints, source: Ints, offset: Ints) -> Fences:
    return _joined([fences, Fences(owner, source, offset)])


def _joined(fences: Sequence[Fences]) -> Fences:
    """The greatest offset of each row and source."""
    owner, source, offset = (
        np.concatenate([getattr(one, name) for one in fences]) for name in ("owner", "source", "offset")
    )
    order = np.lexsort((source, owner))
    owner, source, offset = owner[order], source[order], offset[order]
    starts = starts_of(owner, source)
    highest = np.maximum.reduceat(offset, starts) if len(starts) else offset
    return Fences(owner[starts], source[starts], highest)


def _together(entries: Sequence[Entries]) -> Entries:
    whole = entries[0]
    for one in entries[1:]:
        whole = whole + one
    return whole.take(np.argsort(whole.owner, kind="stable"))


def sources_of(events: pl.DataFrame) -> tuple[Ints, list[str]]:
    """The source of each event by its number in the list, which may have more; quick where they are an Enum."""
    sources = events["source"]
    kind = sources.dtype if isinstance(sources.dtype, pl.Enum) else pl.Enum(sources.unique())
    return sources.cast(kind).to_physical().to_numpy().astype(np.int64), kind.categories.to_list()


def _order(event_time: Ints, rank: Ints, offset: Ints) -> Ints:
    """Of each event its place by event time, source and offset."""
    place = np.empty(len(offset), np.int64)
    place[np.lexsort((offset, rank, event_time))] = np.arange(len(offset))
    return place


def _ranks(names: Iterable[tuple[int, str]]) -> _Ranks:
    """Sources' ids to places in the order of their names; an id without a name (of a row without events) has any."""
    by_name = np.array([number for number, _ in sorted(set(names), key=lambda pair: pair[1])], dtype=np.int64)
    if not len(by_name):
        return np.zeros_like
    by_id = np.argsort(by_name)
    known = by_name[by_id]
    return lambda ids: by_id[np.minimum(np.searchsorted(known, ids), len(known) - 1)]


def _put(column: npt.NDArray[Any], at: Ints, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    changed = column.copy()
    changed[at] = values
    return changed
