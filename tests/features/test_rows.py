"""The law of online rows: whatever is repeated, overlaps, is interleaved or late leaves the row of one clean pass."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import Corrupt, InvalidInput
from tidemill.features.layout import MAX_ROW_BYTES, Layout, layout_of, row_bytes
from tidemill.features.packing import Packed, Rows, headers_of, pack, unpack
from tidemill.features.rows import adapted, fold, fresh, source_id, stacked, values_of, window_values_at
from tidemill.features.tiles import tiled, window_values
from tidemill.spec.model import Window
from tidemill.testing.loop import example_resource

A, B = "c/t/0", "c/t/1"
NAMES = {source_id(source): source for source in (A, B)}
ENTITIES = ("one", "two", "three")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
EPOCH_US = int(EPOCH.timestamp()) * 1_000_000
LATENESS = timedelta(seconds=30)
FIELDS = {"x": "float", "n": "int", "flag": "bool", "word": "string", "note": "string"}
TIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_time": TIME,
    "available_at": TIME,
    "x": pl.Float64(),
    "n": pl.Int64(),
    "flag": pl.Boolean(),
    "word": pl.String(),
    "note": pl.String(),
}


def window(agg: str, of: str | None = "x", over: Sequence[str] = ("1m",), **more: Any) -> Window:
    return Window.model_validate({"name": f"{agg}_{of}", "agg": agg, "of": of, "over": over, **more})


WINDOWS = (
    window("count", None, ("6s", "1m")),
    window("sum", "n"),
    window("mean", over=("6s", "1m")),
    window("std"),
    window("min", "n"),
    window("max"),
    window("mean", "flag"),
    window("last", "word", ("6s", "1m")),
    window("last", "flag"),
    window("last", "x"),
    window("distinct", "word"),
    window("distinct", "x"),
    window("quantile", q=0.5),
)
LAYOUT = Layout(tuple(FIELDS.items()), tiled(WINDOWS, LATENESS))  # type: ignore[arg-type]
PLAIN = Layout(LAYOUT.fields)
EMPTY = Rows.empty(LAYOUT, len(ENTITIES))

Event = tuple[Any, ...]


def frame(events: Sequence[Event]) -> pl.DataFrame:
    """Of (source, offset, entity, event time and arrival in ms, x, n, flag, word, note)."""
    times = ((EPOCH + timedelta(milliseconds=event[3]), EPOCH + timedelta(milliseconds=event[4])) for event in events)
    made = [(*event[:3], *time, *event[5:]) for event, time in zip(events, times, strict=True)]
    return pl.DataFrame(made, schema=SCHEMA, orient="row")


def take(rows: Rows, events: Sequence[Event], layout: Layout = LAYOUT) -> Rows:
    """The rows after these events, as a worker takes them: what is not fresh left out, packed and read again."""
    owner = np.array([ENTITIES.index(event[2]) for event in events], dtype=np.int64)
    new = frame(events)
    at = fresh(rows, new, owner)
    return unpack(layout, Packed(pack(layout, 7, fold(layout, rows, new[at], owner[at], NAMES))))


NUMBERS = st.one_of(st.integers(-50, 50).map(float), st.floats(-1e3, 1e3))


@st.composite
def logs(draw: st.DrawFn) -> dict[str, list[Event]]:
    """Two sources of three entities, offsets with gaps, event times with ties and disorder, values that are absent."""
    made: dict[str, list[Event]] = {}
    for source in (A, B):
        offset = arrival = 0
        made[source] = []
        for _ in range(draw(st.integers(0, 10))):
            offset += draw(st.integers(1, 3))
            arrival += draw(st.integers(0, 12_000))
            event_time = arrival - draw(st.one_of(st.integers(-2, 2), st.integers(-5000, 40_000)))
            values = [draw(st.none() | kind) for kind in (NUMBERS, st.integers(-9, 9), st.booleans())]
            words = [draw(st.none() | st.sampled_from(["a", "ü", "", "ccc"])) for _ in range(2)]
            made[source].append((source, offset, draw(st.sampled_from(ENTITIES)), event_time, arrival, *values, *words))
    return made


def everything(log: dict[str, list[Event]]) -> list[Event]:
    return [event for events in log.values() for event in events]


def same(one: Rows, other: Rows) -> None:
    """The same bytes, but for what rounding does to sums."""
    assert one.fences.owner.tolist() == other.fences.owner.tolist()
    assert one.fences.offset.tolist() == other.fences.offset.tolist()
    assert values_of(LAYOUT, one) == values_of(LAYOUT, other)
    assert one.event_time.tolist() == other.event_time.tolist()
    for first, second in zip(one.windows, other.windows, strict=True):
        assert (first.owner.tolist(), first.tile.tolist()) == (second.owner.tolist(), second.tile.tolist())
        assert first.key.tolist() == second.key.tolist()
        for left, right in zip(first.columns, second.columns, strict=True):
            if left.dtype == np.float64:
                assert np.allclose(left, right, rtol=1e-9, atol=1e-6)
            else:
                assert left.tolist() == right.tolist()


STEPS = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 8), st.integers(1, 8)), max_size=8)


@given(logs(), STEPS)
@settings(max_examples=60, deadline=None)
def test_any_overlap_repetition_and_interleaving_gives_the_row_of_one_clean_pass(
    log: dict[str, list[Event]], steps: list[tuple[str, int, int]]
) -> None:
    rows = EMPTY
    taken = dict.fromkeys(log, 0)
    for source, back, length in [*steps, *((source, 0, 99) for source in log)]:
        # Batches of one source begin at or before what was applied, wherever a crash or a zombie left off.
        begin = max(0, taken[source] - back)
        batch = log[source][begin : begin + length]
        rows = take(rows, batch + batch[:2])
        taken[source] = max(taken[source], min(begin + length, len(log[source])))
    same(rows, take(EMPTY, everything(log)))


@given(logs())
@settings(max_examples=40, deadline=None)
def test_events_that_a_row_has_already_are_not_fresh(log: dict[str, list[Event]]) -> None:
    events = everything(log)
    rows = take(EMPTY, events)
    owner = np.array([ENTITIES.index(event[2]) for event in events], dtype=np.int64)
    assert not len(fresh(rows, frame(events), owner))


@given(logs())
@settings(max_examples=40, deadline=None)
def test_the_values_are_those_of_the_greatest_event_by_event_time_source_and_offset(
    log: dict[str, list[Event]],
) -> None:
    found = values_of(PLAIN, take(Rows.empty(PLAIN, len(ENTITIES)), everything(log), PLAIN))
    for at, entity in enumerate(ENTITIES):
        mine = [event for event in everything(log) if event[2] == entity]
        best = max(mine, key=lambda event: (event[3], event[0], event[1]), default=(None,) * 10)
        assert {name: values[at] for name, values in found.items()} == dict(zip(FIELDS, best[5:], strict=True))


@given(logs(), STEPS, st.integers(0, 150_000))
@settings(max_examples=60, deadline=None)
def test_windows_online_are_windows_in_training(
    log: dict[str, list[Event]], steps: list[tuple[str, int, int]], later: int
) -> None:
    events = everything(log)
    now = max((event[4] for event in events), default=0) + later
    rows = EMPTY
    for source, _, length in steps:
        rows = take(rows, log[source][:length])
    rows = take(rows, events)
    online = window_values_at(LAYOUT, rows, EPOCH_US + now * 1000, NAMES)
    asked = pl.DataFrame(
        {"entity": ENTITIES, "at": [EPOCH + timedelta(milliseconds=now)] * 3}, schema_overrides={"at": TIME}
    )
    offline = window_values(frame(events), asked, WINDOWS, LATENESS)
    fenced = window_values(frame(events), asked, WINDOWS, LATENESS, as_of_fence=True)
    for one in LAYOUT.windows:
        values, present = online[one.name]
        for at, expected in enumerate(offline[one.name].to_list()):
            assert fenced[one.name][at] == expected or one.agg in {"sum", "mean", "std"}
            assert bool(present[at]) == (expected is not None)
            if expected is None:
                continue
            if one.agg in {"sum", "mean", "std"}:
                assert math.isclose(values[at], expected, rel_tol=1e-9, abs_tol=1e-6 if one.agg != "std" else 1e-3)
            else:
                assert values[at] == expected


def test_tiles_that_no_time_can_ask_for_any_more_are_dropped() -> None:
    rows = take(EMPTY, [(A, 1, "one", 0, 0, 1.0, 1, True, "a", None)])
    later = take(rows, [(A, 2, "one", 3_600_000, 3_600_000, 1.0, 1, True, "a", None)])
    assert {len(one) for one in later.windows} == {1}


def test_an_older_event_moves_the_fence_and_not_the_values() -> None:
    rows = take(EMPTY, [(A, 1, "one", 50, 50, 1.0, 1, True, "a", None)])
    after = take(rows, [(A, 2, "one", 40, 60, 2.0, 2, False, "b", None)])
    assert values_of(LAYOUT, after) == values_of(LAYOUT, rows)
    assert after.fences.offset.tolist() == [2]


@given(logs())
@settings(max_examples=40, deadline=None)
def test_headers_are_equal_exactly_when_token_layout_and_fence_are(log: dict[str, list[Event]]) -> None:
    events = everything(log)
    rows, again = take(EMPTY, events), take(EMPTY, [*log[B], *log[A]])
    headers = headers_of(pack(LAYOUT, 7, rows))
    assert headers == headers_of(pack(LAYOUT, 7, again))
    assert all(row.startswith(header) for row, header in zip(pack(LAYOUT, 7, rows), headers, strict=True))
    assert not set(headers) & set(headers_of(pack(LAYOUT, 8, rows)))
    for at, fences in enumerate(_fences(rows)):
        for other, theirs in enumerate(_fences(rows)):
            assert (headers[at] == headers[other]) == (fences == theirs)


def _fences(rows: Rows) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in range(len(rows))]
    for owner, source, offset in zip(rows.fences.owner, rows.fences.source, rows.fences.offset, strict=True):
        found[owner][int(source)] = int(offset)
    return found


@given(st.binary(max_size=400))
def test_bytes_that_are_no_row_are_said_to_be_damaged(data: bytes) -> None:
    with pytest.raises(Corrupt, match="online row"):
        unpack(LAYOUT, Packed([data]))


@given(logs(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_row_that_was_cut_off_or_grew_is_said_to_be_damaged(log: dict[str, list[Event]], data: st.DataObject) -> None:
    row = pack(LAYOUT, 7, take(EMPTY, everything(log)))[0]
    cut = data.draw(st.integers(3, len(row) // 8 - 1))
    for damaged in (row[: 8 * cut], row + bytes(8)):
        with pytest.raises(Corrupt, match="online row"):
            unpack(LAYOUT, Packed([damaged]))


def test_values_keep_their_types() -> None:
    rows = take(EMPTY, [(A, 0, "two", 0, 0, 0.1, -(2**63), True, "ü", None)])
    found = {name: values[1] for name, values in values_of(LAYOUT, rows).items()}
    assert found == {"x": 0.1, "n": -(2**63), "flag": True, "word": "ü", "note": None}
    assert [type(value) for value in found.values()] == [float, int, bool, str, type(None)]


def test_a_new_field_is_absent_in_old_rows_and_the_others_are_kept() -> None:
    rows = take(EMPTY, [(A, 3, "one", 0, 0, 0.5, 4, True, "a", "b")])
    new = Layout((("note", "string"), ("more", "float"), ("n", "int"), ("x", "string")), LAYOUT.windows[2:4])
    found = adapted(rows, LAYOUT, new)
    values = {name: values[0] for name, values in values_of(new, found).items()}
    assert values == {"note": "b", "more": None, "n": 4, "x": None}
    assert [len(one) for one in found.windows] == [1, 1]
    assert unpack(new, Packed(pack(new, 7, found))).fences.offset.tolist() == [3]


@given(logs(), st.permutations(range(3)))
@settings(max_examples=30, deadline=None)
def test_rows_are_taken_apart_and_put_together(log: dict[str, list[Event]], order: list[int]) -> None:
    rows = take(EMPTY, everything(log))
    at = np.array(order, dtype=np.int64)
    same(stacked(LAYOUT, 3, [(at[:2], rows.take(at[:2])), (at[2:], rows.take(at[2:]))]), rows)
    same(stacked(LAYOUT, 3, [(at, rows.take(at))]), rows)


def test_the_size_of_a_row_is_told_and_the_absurd_is_refused() -> None:
    events = {
        "entity": {"name": "station"},
        "timestamp": "at",
        "allowedLateness": "1d",
        "fields": [{"name": "x", "type": "float"}],
    }
    features = {"windows": [{"name": "seen", "agg": "count", "over": ["1h"]}]}
    resource = example_resource(events=events, features=features, triggers={})
    layout = layout_of(resource)
    (one,) = layout.windows
    assert one.ring == 60 + 1440 + 2
    assert one.ring * 16 < row_bytes(layout) < one.ring * 16 + 200
    features = {"windows": [{"name": "seen", "agg": "count", "over": ["6s"]}]}
    with pytest.raises(InvalidInput, match="online row") as refused:
        layout_of(example_resource(events=events, features=features, triggers={}))
    assert "seen_6s keeps 864,062 tiles" in str(refused.value.hint)
    assert row_bytes(layout) < MAX_ROW_BYTES
