"""How far two datasets are apart, and which rows are chosen."""

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.testing.training import START, snapshot_rows, tiny_resource
from tidemill.training.checks import truth_of
from tidemill.training.choose import Choice, choose
from tidemill.training.compare import Comparison, compare, distance

RESOURCE = tiny_resource()
ROWS = snapshot_rows(RESOURCE, 60, fresh=20)
samples = st.lists(st.one_of(st.none(), st.floats()), max_size=30)


def compared(before: pl.DataFrame, after: pl.DataFrame, *inputs: str) -> Comparison:
    truths = truth_of(before, RESOURCE), truth_of(after, RESOURCE)
    return compare(before, after, inputs or ("brightness", "contrast"), truths)


def test_a_dataset_is_like_itself() -> None:
    found = compared(ROWS, ROWS)
    assert (found.both, found.only_before, found.only_after, found.relabelled) == (60, 0, 0, ())
    assert [one.distance for one in (*found.shifts, found.truth)] == [0, 0, 0]


def test_rows_of_one_alone_and_changed_labels_are_told() -> None:
    first = pl.col("event_id") == "e10"
    after = ROWS.tail(55).with_columns(
        label=pl.when(first).then(pl.lit('{"defect": "scratch"}')).otherwise(pl.lit(" ") + pl.col("label"))
    )
    found = compared(ROWS, after)
    assert (found.both, found.only_before, found.only_after) == (55, 5, 0)
    (one,) = found.relabelled
    assert (one.event_id, one.before, one.after) == ("e10", '{"defect": "ok"}', '{"defect": "scratch"}')
    assert [(one.name, one.rows_before, one.rows_after) for one in found.classes] == [
        ("ok", 30, 26),
        ("scratch", 30, 29),
    ]


def test_the_input_that_moved_most_comes_first_and_a_missing_one_is_named() -> None:
    after = ROWS.with_columns(contrast=pl.when(pl.col("offset") < 15).then(None).otherwise(0.9))
    found = compared(ROWS, after, "brightness", "contrast", "size")
    assert [(one.name, one.distance, one.missing_after) for one in found.shifts] == [
        ("contrast", 1, 0.25),
        ("brightness", 0, 0),
    ]
    assert found.missing_inputs == ("size",)


def test_distances_by_hand() -> None:
    assert distance(pl.Series([1, 2, 3, 4]), pl.Series([3, 4, 5, 6])) == 0.5
    assert distance(pl.Series(["a", "a", "b", "c"]), pl.Series(["a", "b"])) == 0.25
    assert distance(pl.Series([True]), pl.Series([False])) == 1
    assert distance(pl.Series([None, float("nan")], dtype=pl.Float64), pl.Series([1.0])) is None


@given(samples, samples)
def test_a_distance_is_between_0_and_1_and_the_same_both_ways(
    one: list[float | None], other: list[float | None]
) -> None:
    before, after = (pl.Series(values, dtype=pl.Float64) for values in (one, other))
    found = distance(before, after)
    assert found == distance(after, before)
    assert found is None or 0 <= found <= 1


def chosen(choice: Choice) -> pl.DataFrame:
    return choose(ROWS, truth_of(ROWS, RESOURCE), choice)


def test_rows_are_chosen_by_part_time_and_number() -> None:
    assert chosen(Choice()).equals(ROWS.filter(pl.col("part") == "fresh"))
    assert chosen(Choice("all", rows=7)).equals(ROWS.tail(7))
    at = START + timedelta(seconds=10)
    assert chosen(Choice("all", since=at, until=at + timedelta(seconds=5))).equals(ROWS[10:15])
    assert str(Choice("all", since=at, rows=7)) == "all parts, since 2026-01-01T00:00:10+00:00, the newest 7"


def test_as_many_of_each_class_are_the_newest_of_each_in_their_order() -> None:
    odd = ROWS.filter((pl.col("offset") % 2 == 1) | (pl.col("offset") < 20))
    found = choose(odd, truth_of(odd, RESOURCE), Choice("all", per_class=3))
    assert found["event_id"].to_list() == ["e14", "e16", "e18", "e55", "e57", "e59"]


def test_what_cannot_be_chosen_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="no row is chosen by part replay") as nothing:
        chosen(Choice("replay"))
    assert (nothing.value.hint or "").startswith("the snapshot has 20 fresh, 40 new rows from 2026")
    with pytest.raises(InvalidInput, match=r"fewer than 11 rows of ok \(10\), scratch \(10\)") as few:
        chosen(Choice(per_class=11))
    assert few.value.hint == "--per-class 10, or --part all"
    with pytest.raises(InvalidInput, match="do not go together"):
        chosen(Choice(rows=1, per_class=1))
    with pytest.raises(InvalidInput, match="predicts a number"):
        choose(ROWS, pl.Series([0.0] * 60), Choice(per_class=1))
