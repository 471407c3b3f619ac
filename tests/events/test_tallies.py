"""What a sketch holds of rows: sums, commonest values, and a sample of entities whatever they sent."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.cells import by_name, named
from tidemill.events.records import FeatureSketch, Sketch, Votes, decode, encode
from tidemill.events.tallies import bounded, most_entities, places, shortened, tally


def of(values: list[Any], kind: pl.DataType | None = None, entities: list[str] | None = None) -> pl.DataFrame:
    entities = entities or ["A"] * len(values)
    return pl.DataFrame({"entity": entities, "tick": [7] * len(values), "x": pl.Series(values, dtype=kind)})


def told(rows: pl.DataFrame, *, numbers: Sequence[str] = (), categories: Sequence[str] = ()) -> Votes:
    return tally(rows, rows["tick"].to_numpy(), numbers=numbers, categories=categories)


def number(*values: Any, kind: pl.DataType | None = None) -> FeatureSketch:
    return by_name(told(of(list(values), kind), numbers=["x"])[7])["A"]["x"]


def category(*values: Any, kind: pl.DataType | None = None) -> FeatureSketch:
    return by_name(told(of(list(values), kind), categories=["x"])[7])["A"]["x"]


def test_what_is_not_finite_is_missing() -> None:
    found = number(1.0, float("nan"), float("inf"), float("-inf"), None, 2.0)
    assert found == FeatureSketch(count=2, total=3.0, missing=4)
    assert number(None, None, kind=pl.Float64()) == FeatureSketch(count=0, missing=2)


@pytest.mark.parametrize("huge", [1.7e308, -1.7e308])
def test_sums_of_the_largest_numbers_can_be_written_down(huge: float) -> None:
    found = number(*[huge] * 9)
    assert found.total == pytest.approx(9e150 if huge > 0 else -9e150)
    assert decode(FeatureSketch, encode(found)) == found


def test_whole_numbers_at_their_ends_are_summed() -> None:
    assert number(2**63 - 1, 2**63 - 1, kind=pl.Int64()).total == pytest.approx(2.0**64)


def test_values_are_counted_and_nulls_are_missing() -> None:
    found = category("steel", "brass", "steel", None, "")
    assert found == FeatureSketch(count=4, missing=1, values={"steel": 2, "brass": 1, "": 1})
    assert category(None, kind=pl.String()) == FeatureSketch(count=0, missing=1)


def test_yes_or_no_and_whole_numbers_are_counted_by_their_text() -> None:
    assert category(True, False, True).values == {"true": 2, "false": 1}
    assert category(3, -(2**63), 3).values == {"3": 2, str(-(2**63)): 1}


def test_sixteen_values_are_exact_and_of_more_the_fifteen_commonest_are_listed() -> None:
    values = [f"v{position:02}" for position in range(16)]
    assert category(*values).values == dict.fromkeys(values, 1)
    crowded = category(*values, "v16", "v16", "v09")
    assert crowded.count == 19
    assert crowded.values == {"v16": 2, "v09": 2, **dict.fromkeys(values[:9] + values[10:14], 1)}


def test_one_crowded_entity_leaves_the_others_exact() -> None:
    values = [f"v{position % 20}" for position in range(40)]
    rows = pl.concat([of(values), of(["b", "a"], entities=["B", "B"])])
    votes = by_name(told(rows, categories=["x"])[7])
    assert len(votes["A"]["x"].values) == 15
    assert votes["B"]["x"].values == {"a": 1, "b": 1}


@given(st.lists(st.sampled_from([f"v{position}" for position in range(30)]), min_size=1, max_size=120))
def test_a_value_that_is_left_out_has_at_most_a_sixteenth_of_the_rows(values: list[str]) -> None:
    found, true = category(*values), Counter(values)
    assert all(true[value] == rows for value, rows in found.values.items())
    assert all(true[value] <= len(values) / 16 for value in true.keys() - found.values.keys())


def test_thousands_of_long_values_stay_small() -> None:
    values = [f"{'€' * 5_000}{position}" for position in range(5_000)]
    found = category(*values)
    assert (found.count, len(found.values)) == (5_000, 15)
    assert len(encode(found)) < 5_000


def test_long_values_are_cut_and_stay_apart() -> None:
    one, other = "x" * 65, "x" * 64 + "y"
    assert shortened("x" * 64) == "x" * 64
    assert shortened(one) != shortened(other)
    assert len(shortened("x" * 10**6)) <= 64
    assert category(one, other, one).values == {shortened(one): 2, shortened(other): 1}


PLACES = {"station-1": 0.5615145630256101, "": 0.5814077000239619, "é": 0.3888396209903857}
"""In tick 7."""


def test_a_place_is_what_it_always_was() -> None:
    """Sketches that another version wrote are merged with those of this one."""
    found = places(["station-1", "", "é"], 7)
    assert found == PLACES
    assert found["station-1"] != places(["station-1"], 8)["station-1"]


def test_places_are_spread_evenly_and_anew_in_each_tick() -> None:
    entities = [f"e{number}" for number in range(4_000)]
    one, other = (np.array(list(places(entities, tick).values())) for tick in (-1, 10**9))
    for found in (one, other):
        assert np.histogram(found, 8, (0, 1))[0] == pytest.approx(500, abs=100)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def test_of_very_many_entities_the_smallest_hashes_are_kept_whole() -> None:
    entities = [f"e{position}" for position in range(2_000)] * 2
    votes = told(of([1.0] * 4_000, entities=entities), numbers=["x"])
    assert votes[7].entities == sorted(sorted(found := places(set(entities), 7), key=found.__getitem__)[:128])
    assert all(found[entity] < votes[7].kept for entity in votes[7].entities)
    assert {features["x"].count for features in by_name(votes[7]).values()} == {2}
    assert told(of([1.0], entities=["A"]), numbers=["x"])[7].kept == 1
    sketched = Sketch(source="c/t/0", first_offset=0, last_offset=1, max_event_time=0, tick_ms=1, votes=votes)
    assert decode(Sketch, encode(sketched)) == sketched


def test_the_sample_of_another_tick_is_another() -> None:
    rows = of([1.0] * 600, entities=[f"e{position}" for position in range(600)])
    votes = told(pl.concat([rows, rows.with_columns(tick=pl.lit(8, dtype=pl.Int64()))]), numbers=["x"])
    assert len(votes[7].entities) == len(votes[8].entities) == 128
    assert votes[7].entities != votes[8].entities


def test_ticks_that_lie_far_apart_have_votes_of_their_own() -> None:
    late = of([4.0], entities=["B"]).with_columns(tick=pl.lit(10**9, dtype=pl.Int64()))
    votes = told(pl.concat([late, of([1.0, 2.0])]), numbers=["x"])
    assert {tick: of.entities for tick, of in votes.items()} == {7: ["A"], 10**9: ["B"]}
    assert (by_name(votes[7])["A"]["x"].total, by_name(votes[10**9])["B"]["x"].total) == (3.0, 4.0)


def test_the_entities_that_are_kept_lie_below_the_bound_that_is_told() -> None:
    few = named({name: {"x": FeatureSketch(count=1)} for name in PLACES})
    assert bounded(few, 7, 3) is few
    found = bounded(few, 7, 2)
    assert (found.entities, found.kept) == (["station-1", "é"], PLACES[""])
    assert bounded(few, 7, 3, 0.4).entities == ["é"]


def test_of_very_many_features_fewer_entities_are_kept() -> None:
    assert [most_entities(count) for count in (0, 1, 128, 256, 1_000, 10_000)] == [128, 128, 128, 64, 16, 8]
