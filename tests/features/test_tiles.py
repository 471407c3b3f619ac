"""The law of windows: V(entity, t, t) as DATAPLANE's definition reads, whatever order, repetition or lateness."""

import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.features import tiles
from tidemill.features.partials import COLUMNS, Entries, merged, result
from tidemill.features.sketches import bucket_keys
from tidemill.features.tiles import Tiled, tiled, window_values
from tidemill.spec.model import Window

TIME = pl.Datetime("us", "UTC")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LATENESS = timedelta(seconds=30)
SCHEMA = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_time": TIME,
    "available_at": TIME,
    "x": pl.Float64(),
    "flag": pl.Boolean(),
    "word": pl.String(),
}


def window(agg: str, of: str | None = "x", over: Sequence[str] = ("1m",), q: float | None = None) -> Window:
    return Window.model_validate({"name": agg, "agg": agg, "of": of, "over": over, "q": q})


WINDOWS = (
    window("count", None, ("6s", "1m")),
    window("sum"),
    window("mean", over=("6s", "1m")),
    window("std"),
    window("min"),
    window("max"),
    Window.model_validate({"name": "rate", "agg": "mean", "of": "flag", "over": ["1m"]}),
    window("last", "word", ("12s", "1m")),
    window("distinct", "word", ("12s", "1m")),
    window("quantile", q=0.9),
)


def at(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def frame(events: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Of (source, offset, entity, event time in ms, arrival in ms, x, flag, word)."""
    made = [(*event[:3], at(event[3]), at(event[4]), *event[5:]) for event in events]
    return pl.DataFrame(made, schema=SCHEMA, orient="row")


def asking(*rows: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(entity, at(ms)) for entity, ms in rows], schema={"entity": pl.String(), "at": TIME}, orient="row"
    )


NUMBERS = st.one_of(st.integers(-50, 50).map(float), st.floats(-1e3, 1e3))


@st.composite
def logs(draw: st.DrawFn, most: int = 25) -> list[tuple[Any, ...]]:
    """Events of two entities and two sources: late, too late, from the future, with absent values."""
    made = []
    offsets = {"c/t/0": 0, "c/t/1": 0}
    for _ in range(draw(st.integers(0, most))):
        source = draw(st.sampled_from(sorted(offsets)))
        offsets[source] += draw(st.integers(1, 3))
        arrival = draw(st.integers(0, 150_000))
        event_time = arrival - draw(st.one_of(st.integers(-2000, 3000), st.integers(0, 40_000)))
        x, flag = draw(st.none() | NUMBERS), draw(st.none() | st.booleans())
        word = draw(st.none() | st.sampled_from("abcde"))
        made.append((source, offsets[source], draw(st.sampled_from("AB")), event_time, arrival, x, flag, word))
    return made


ASKS = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 200_000)), min_size=1, max_size=12)


def naive(events: Sequence[Any], entity: str, t: int, one: Tiled, lateness_ms: int = 30_000) -> Any:
    """The definition, one event at a time."""
    step = one.step // 1000
    base = int(EPOCH.timestamp() * 1000)
    c = (base + t) // step
    column = {None: 3, "x": 5, "flag": 6, "word": 7}[one.of]
    found = []
    for event in set(events):
        tile = (base + min(event[3], event[4])) // step
        counts = event[4] <= t and event[4] - event[3] <= lateness_ms and c - one.tiles + 1 <= tile <= c
        if event[2] == entity and counts and event[column] is not None:
            found.append(((event[3], event[0], event[1]), event[column]))
    found.sort(key=lambda pair: pair[0])
    values = [value for _, value in found]
    if one.agg in {"count", "distinct"}:
        return len(values) if one.agg == "count" else len(set(values))
    if not values:
        return None
    if one.agg == "quantile":
        return sorted(values)[math.floor((one.q or 0) * (len(values) - 1))]
    of: dict[str, Any] = {
        "sum": math.fsum,
        "mean": statistics.fmean,
        "std": statistics.pstdev,
        "min": min,
        "max": max,
        "last": lambda given: given[-1],
    }
    return of[one.agg](values)


def agrees(one: Tiled, found: Any, expected: Any, size: float = 1e3) -> bool:
    """Exactly, but for sums of floats (1e-9 of the size of what was added) and quantiles (1 %)."""
    if found is None or expected is None:
        return found is expected
    if one.agg == "quantile":
        return math.isclose(found, expected, rel_tol=0.0101, abs_tol=1e-290)
    if one.agg in {"sum", "mean"}:
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * size)
    if one.agg == "std":  # of equal values the root of what rounding leaves
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6 * size)
    return bool(found == expected)


def check(found: pl.DataFrame, events: Sequence[Any], rows: Sequence[tuple[str, int]]) -> None:
    features = tiled(WINDOWS, LATENESS)
    assert found.columns == [one.name for one in features]
    for one in features:
        for (entity, t), value in zip(rows, found[one.name].to_list(), strict=True):
            expected = naive(events, entity, t, one)
            assert agrees(one, value, expected), (one.name, entity, t, value, expected)


@given(logs(), ASKS)
@settings(max_examples=40, deadline=None)
def test_every_value_is_what_the_definition_says(events: list[Any], rows: list[tuple[str, int]]) -> None:
    check(window_values(frame(events), asking(*rows), WINDOWS, LATENESS), events, rows)


@given(logs(), ASKS)
@settings(max_examples=40, deadline=None)
def test_it_does_not_matter_how_much_is_looked_at_together(events: list[Any], rows: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_PAIRS", 3)
        check(window_values(frame(events), asking(*rows), WINDOWS, LATENESS), events, rows)


@given(logs(), ASKS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_and_repetition_of_the_events_do_not_show(
    events: list[Any], rows: list[tuple[str, int]], rng: Any
) -> None:
    mixed = events + events[: len(events) // 2]
    rng.shuffle(mixed)
    check(window_values(frame(mixed), asking(*rows), WINDOWS, LATENESS), events, rows)


@given(logs(), st.tuples(st.sampled_from("AB"), st.integers(0, 160_000)))
@settings(max_examples=40, deadline=None)
def test_a_stream_that_is_cut_off_at_t_gives_what_was_served_at_t(events: list[Any], row: tuple[str, int]) -> None:
    arrived = [event for event in events if event[4] <= row[1]]
    then, later = (window_values(frame(some), asking(row), WINDOWS, LATENESS) for some in (arrived, events))
    assert then.equals(later)


def test_rows_keep_their_order_and_an_unknown_entity_has_nothing() -> None:
    events = [("s", 1, "A", 1000, 1000, 2.0, True, "a")]
    found = window_values(frame(events), asking(("B", 5000), ("A", 5000), ("A", 500)), WINDOWS, LATENESS)
    assert found["count_1m"].to_list() == [0, 1, 0]
    assert found["mean_1m"].to_list() == [None, 2.0, None]
    assert found["distinct_1m"].to_list() == [0, 1, 0]


@pytest.mark.parametrize("rows", [asking(), asking(("A", 1))])
def test_without_events_there_is_nothing_but_the_columns_and_their_types(rows: pl.DataFrame) -> None:
    found = window_values(frame([]), rows, WINDOWS, LATENESS)
    assert found.height == rows.height
    assert (found.schema["count_1m"], found.schema["distinct_1m"]) == (pl.Int64(), pl.Int64())
    assert (found.schema["last_1m"], found.schema["mean_1m"]) == (pl.String(), pl.Float64())


def test_a_late_event_changes_only_its_own_tile() -> None:
    one = (window("count", None),)
    early = [("s", n, "A", 1000 * n, 1000 * n, 0.0, None, None) for n in range(60)]
    late = ("s", 99, "A", 20_500, 45_000, 0.0, None, None)
    rows = [("A", 60_000 + 1000 * n) for n in range(60)]
    before, after = (
        window_values(frame(some), asking(*rows), one, LATENESS)["count_1m"] for some in (early, [*early, late])
    )
    assert (after - before).to_list() == [1] * 20 + [0] * 40  # as long as second 20 is in the window


def test_an_event_later_than_the_allowed_lateness_does_not_count() -> None:
    one = (window("count", None),)
    for lateness_ms, counted in ((30_000, 1), (30_001, 0)):
        events = [("s", 1, "A", 10_000, 10_000 + lateness_ms, 0.0, None, None)]
        assert window_values(frame(events), asking(("A", 41_000)), one, LATENESS)["count_1m"].to_list() == [counted]


def test_an_event_from_the_future_counts_in_the_tile_of_its_arrival() -> None:
    events = [("s", 1, "A", 30_000, 10_500, 0.0, None, None)]
    found = window_values(frame(events), asking(("A", 10_499), ("A", 10_500), ("A", 70_000)), WINDOWS[:1], LATENESS)
    assert found["count_1m"].to_list() == [0, 1, 0]


def test_a_window_is_never_older_than_its_length() -> None:
    events = [("s", 1, "A", 500, 500, 0.0, None, None)]
    rows = asking(("A", 59_999), ("A", 60_000))
    assert window_values(frame(events), rows, WINDOWS[:1], LATENESS)["count_1m"].to_list() == [1, 0]


def test_as_of_a_fence_every_event_has_arrived() -> None:
    events = [("s", 1, "A", 1000, 9000, 0.0, None, None)]
    rows = asking(("A", 5000))
    assert window_values(frame(events), rows, WINDOWS[:1], LATENESS)["count_1m"].to_list() == [0]
    fenced = window_values(frame(events), rows, WINDOWS[:1], LATENESS, as_of_fence=True)
    assert fenced["count_1m"].to_list() == [1]


ENTRIES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), NUMBERS, st.integers(1, 5)), max_size=20)


@given(ENTRIES, st.sampled_from(sorted(COLUMNS)), st.data())
@settings(deadline=None)
def test_merging_is_associative_and_commutative(rows: list[Any], agg: Any, data: st.DataObject) -> None:
    entries = partials(agg, rows)
    cut, order = data.draw(st.integers(0, len(rows))), data.draw(st.permutations(range(len(rows))))
    mixed = entries.take(np.array(order, dtype=np.int64))
    head, tail = (merged(agg, mixed.take(np.arange(*part))) for part in ((0, cut), (cut, len(rows))))
    one, other = merged(agg, entries), merged(agg, tail + head)
    assert one.tile.tolist() == other.tile.tolist()
    for first, second in zip(one.columns, other.columns, strict=True):
        assert np.allclose(first, second, rtol=1e-9, atol=1e-6)
    values = [result(agg, 0.5, found, 3) for found in (one, other)]
    assert values[0][1].tolist() == values[1][1].tolist()
    assert np.allclose(values[0][0], values[1][0], rtol=1e-9, atol=1e-4)


def partials(agg: Any, rows: list[Any]) -> Entries:
    owner, tile, x, n = (np.array([row[at] for row in rows]) for at in range(4))
    owner, tile, n = owner.astype(np.int64), tile.astype(np.int64), n.astype(np.int64)
    key = {"distinct": n, "quantile": bucket_keys(x.astype(np.float64))}.get(agg, np.zeros(len(rows), np.int64))
    columns: dict[tuple[str, ...], Any] = {
        ("i8",): (n,),
        ("f8",): (x.astype(np.float64),),
        ("i8", "f8"): (n, x.astype(np.float64)),
        ("i8", "f8", "f8"): (n, x.astype(np.float64), np.zeros(len(rows))),
    }
    return Entries(owner, tile, key, columns[COLUMNS[agg]])
