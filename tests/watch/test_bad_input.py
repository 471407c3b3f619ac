"""Whatever is sent: never a crash, and never a false "all is well".

From rows to signals by the product's own steps: sketches of ticks, merged, judged against a reference.
"""

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.watch.conftest import START, make_rows
from tests.watch.test_kinds import live, said

from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch, Sketch
from tidemill.spec.model import DriftTrigger
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import first_state, reduce
from tidemill.watch.reference import Reference, build_reference, decode_reference, encode_reference
from tidemill.watch.state import Promotion, encode_state
from tidemill.watch.ticks import Arrived

LIVE = START + timedelta(days=1)
Change = Callable[[pl.DataFrame], pl.Series | pl.Expr]


def rows(seconds: int, seed: int, **options: Any) -> pl.DataFrame:
    frame = make_rows(seed, seconds, **options)
    kinds = np.random.default_rng(seed).choice(["a", "b", "c"], frame.height)
    return frame.with_columns(kind=pl.Series(kinds))


@pytest.fixture(scope="module")
def built(trigger: DriftTrigger) -> Reference:
    return build_reference(rows(400, 1), ["brightness"], trigger, categories=["kind"])


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("brightness", lambda frame: pl.lit(None, dtype=pl.Float64()), "brightness: missing in 1 of rows, was 0"),
        ("brightness", lambda frame: pl.lit(math.nan), "brightness: missing in 1 of rows, was 0"),
        ("brightness", lambda frame: pl.lit(math.inf), "brightness: missing in 1 of rows, was 0"),
        ("brightness", lambda frame: pl.lit(-math.inf), "brightness: missing in 1 of rows, was 0"),
        ("brightness", lambda frame: pl.lit(1.7e308), "brightness rose from 0.62 to 1e+150"),
        ("brightness", lambda frame: pl.lit(-1.7e308), "brightness fell from 0.62 to -1e+150"),
        ("brightness", lambda frame: pl.lit(-(2**63), dtype=pl.Int64()), "brightness fell from 0.62 to -9.2e+18"),
        ("brightness", lambda frame: pl.lit(0.62), ""),
        ("kind", lambda frame: pl.lit(None, dtype=pl.String()), "kind: missing in 1 of rows, was 0"),
        ("kind", lambda frame: pl.lit(""), "kind: 1 new value, such as '', holds 1"),
        ("kind", lambda frame: pl.Series([f"id-{row}" for row in range(frame.height)]), "kind: more than 100 new"),
        ("kind", lambda frame: pl.lit("x" * 100_000), "kind: 1 new value, such as 'xxx"),
        ("kind", lambda frame: pl.lit("a"), "kind: share of 'a' rose"),
    ],
)
def test_what_breaks_is_found_and_named(
    built: Reference, plan: WatchPlan, name: str, change: Change, says: str
) -> None:
    frame = rows(120, 2, start=LIVE, copies=8)
    signals = said(built, frame.with_columns(change(frame).alias(name)), plan)
    assert signals
    assert {signal.feature for signal in signals} == {name}
    assert any(signal.message.startswith(says) for signal in signals)
    assert all(math.isfinite(signal.now or 0.0) for signal in signals)


def test_a_part_that_vanishes_for_one_station_is_found_where_the_tolerance_allows(plan: WatchPlan) -> None:
    strict = DriftTrigger.model_validate({"tolerance": 0.1, "every": "1s"})
    reference = build_reference(rows(2_000, 1), ["brightness"], strict)
    frame = rows(200, 2, start=LIVE).with_columns(brightness=pl.when(pl.col("entity") != "B").then("brightness"))
    signals = said(reference, frame, WatchPlan(**{**vars(plan), "tolerance": 0.1}))
    assert signals[0].message == "brightness: missing in 0.33 of rows, was 0, station B"


def test_a_field_that_is_no_longer_told_of_is_said_not_to_be_seen_once(built: Reference, plan: WatchPlan) -> None:
    """A resource without the field, or with it as another kind: it is not missing, there is just nothing of it."""
    frame = rows(200, 2, start=LIVE)
    inputs = live(frame, numbers=["brightness"], categories=[])
    begun = Promotion(version="r1", at=inputs[0].at - 1, reference=built)
    state, before = reduce(first_state(plan), [begun, *inputs[:50]], plan)
    assert before == ()
    _, signals = reduce(state, inputs[50:], plan)
    asked = "not seen: nothing told of it in 60 window ticks; does it still exist, as a category?"
    assert [(signal.kind, signal.message) for signal in signals] == [("state", f"kind: {asked}")]
    back = live(rows(300, 2, start=LIVE), numbers=["brightness"], categories=["kind"])
    assert reduce(state, back[50:], plan)[1] == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (pl.lit(None, dtype=pl.Float64()), "no row has a value"),
        (pl.lit(math.nan), "no row has a value"),
        (pl.lit(math.inf), "no row has a value"),
    ],
)
def test_a_feature_that_the_reference_lacks_is_said_not_to_be_watched(
    trigger: DriftTrigger, plan: WatchPlan, change: pl.Expr, says: str
) -> None:
    reference = build_reference(rows(400, 1).with_columns(brightness=change), ["brightness"], trigger)
    signals = said(reference, rows(60, 2, start=LIVE), plan)
    assert [signal.kind for signal in signals] == ["state"]
    assert says in signals[0].message


@pytest.mark.parametrize("constant", [0.0, -0.0, 1e-300, 1e140, -5.0])
def test_a_constant_that_moves_is_found(trigger: DriftTrigger, plan: WatchPlan, constant: float) -> None:
    frame = rows(400, 1).with_columns(brightness=pl.lit(constant))
    reference = build_reference(frame, ["brightness"], trigger)
    assert reference.features[0].state == "ok"
    same = rows(100, 2, start=LIVE).with_columns(brightness=pl.lit(constant))
    assert said(reference, same, plan) == []
    for moved in (constant + 1 if abs(constant) < 1e17 else constant / 2, -constant - 1):
        assert said(reference, same.with_columns(brightness=pl.lit(moved)), plan)


@pytest.mark.parametrize("constant", ["only", ""])
def test_a_constant_category_that_moves_is_found(trigger: DriftTrigger, plan: WatchPlan, constant: str) -> None:
    frame = rows(400, 1).with_columns(kind=pl.lit(constant))
    reference = build_reference(frame, [], trigger, categories=["kind"])
    assert reference.features[0].state == "ok"
    same = rows(100, 2, start=LIVE).with_columns(kind=pl.lit(constant))
    assert said(reference, same, plan) == []
    assert said(reference, same.with_columns(kind=pl.lit("other")), plan)


def test_a_field_of_ids_never_alarms_and_says_so_where_it_is_not_watched(
    trigger: DriftTrigger, plan: WatchPlan
) -> None:
    def ids(seed: int, **options: Any) -> pl.DataFrame:
        frame = rows(400, seed, **options)
        return frame.with_columns(kind=pl.Series([f"{seed}-{row}" for row in range(frame.height)]))

    reference = build_reference(ids(1), [], trigger, categories=["kind"])
    signals = said(reference, ids(2, start=LIVE), plan)
    assert [signal.kind for signal in signals] == ["state"]
    assert signals[0].message.endswith("of its values the 15 commonest hold only 0.01 of the rows, as if of ids")


def test_a_field_of_ids_does_not_make_the_state_grow_with_what_is_sent(built: Reference, plan: WatchPlan) -> None:
    state, _ = reduce(first_state(plan), [Promotion(version="r1", at=0, reference=built)], plan)
    sizes = []
    for number in range(60):
        values = {f"id-{number}-{row}": 1 for row in range(15)}
        sketch = Sketch(
            source="c/t/0",
            first_offset=100 * number,
            last_offset=100 * number + 99,
            max_event_time=500,
            tick_ms=1_000,
            votes={0: named({"A": {"kind": FeatureSketch(count=100, values=values)}})},
        )
        state, _ = reduce(state, [Arrived(sketch, number)], plan)
        sizes.append(len(encode_state(state)))
    assert sizes[-1] < sizes[2] + 100


NUMBERS = st.none() | st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 5e-324, 0.0])
TEXTS = st.none() | st.text(max_size=4) | st.sampled_from(["a", "b", "", "\x00", "x" * 300])
WEIRD = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 40), NUMBERS, TEXTS), min_size=1, max_size=80)


def frame_of(drawn: Sequence[tuple[str, int, float | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "entity": [name for name, _, _, _ in drawn],
            "event_time": [LIVE + timedelta(seconds=second) for _, second, _, _ in drawn],
            "brightness": pl.Series([number for _, _, number, _ in drawn], dtype=pl.Float64()),
            "kind": pl.Series([text for _, _, _, text in drawn], dtype=pl.String()),
        }
    ).sort("event_time")


@settings(max_examples=60, deadline=None)
@given(WEIRD)
def test_nothing_that_is_sent_breaks_the_watch(
    built: Reference, plan: WatchPlan, drawn: list[tuple[str, int, float | None, str | None]]
) -> None:
    for signal in said(built, frame_of(drawn), plan):
        assert math.isfinite(signal.evidence)
        assert signal.message


@settings(max_examples=60, deadline=None)
@given(WEIRD)
def test_nothing_that_is_sent_breaks_a_reference(
    trigger: DriftTrigger, plan: WatchPlan, drawn: list[tuple[str, int, float | None, str | None]]
) -> None:
    frame = frame_of(drawn)
    reference = build_reference(frame, ["brightness"], trigger, categories=["kind"])
    assert decode_reference(encode_reference(reference), "x") == reference
    assert len(live(frame, numbers=["brightness"], categories=["kind"])) <= 41
    said(reference, frame, plan)
