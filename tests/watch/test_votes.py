"""Votes: made from rows, and merged from sketches in any order."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.conftest import START, make_rows

from tidemill.events import tallies
from tidemill.events.cells import EMPTY, by_name, named
from tidemill.events.records import FeatureSketch, TickVotes
from tidemill.events.tallies import places, tally
from tidemill.watch import votes as votes_module
from tidemill.watch.votes import FeatureVotes, category_votes, merged, votes_of

Row = tuple[str, int | None, str | None]


def sketched(rows: list[Row]) -> TickVotes:
    names, numbers, values = zip(*rows, strict=True) if rows else ((), (), ())
    frame = pl.DataFrame(
        {"entity": names, "x": numbers, "material": values},
        schema={"entity": pl.String(), "x": pl.Float64(), "material": pl.String()},
    )
    ticks = np.full(frame.height, 7)
    return tally(frame, ticks, numbers=["x"], categories=["material"]).get(7, EMPTY)


ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"e{number}" for number in range(12)]),
        st.none() | st.integers(-9, 9),
        st.sampled_from([None, *[f"v{number}" for number in range(8)]]),
    ),
    max_size=60,
)


@given(ROWS, st.data())
def test_however_rows_are_cut_and_merged_the_same_entities_are_kept_each_whole(rows: list[Row], data: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "MOST_ENTITIES", 4)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
        parts = [sketched(rows[begin:end]) for begin, end in pairwise([0, *cuts, len(rows)])]
        found = EMPTY
        for part in data.draw(st.permutations(parts)):
            found = merged(7, found, part)
        assert found == sketched(rows)
    smallest = sorted(hashes := places({name for name, _, _ in rows}, 7), key=hashes.__getitem__)[:4]
    assert found.entities == sorted(smallest)


def test_of_very_many_features_a_tick_keeps_fewer_entities_however_many_sketches_it_is_made_of() -> None:
    vote = dict.fromkeys((f"x{number}" for number in range(1_000)), FeatureSketch(count=1, total=1.0))
    found = EMPTY
    for number in range(40):
        found = merged(7, found, named({f"e{number}": vote}))
    assert len(found.entities) == tallies.most_entities(1_000) == 16


SKETCHES = st.builds(
    lambda votes, kept: named({name: votes[name] for name, at in places(votes, 7).items() if at < kept}, kept),
    st.dictionaries(
        st.sampled_from("ABCDEFGH"),
        st.fixed_dictionaries(
            {},
            optional={
                "x": st.builds(
                    FeatureSketch,
                    count=st.integers(0, 99),
                    total=st.integers(-99, 99).map(float),
                    missing=st.integers(0, 9),
                    values=st.dictionaries(st.text(max_size=2), st.integers(1, 9), max_size=3),
                )
            },
        ),
    ),
    st.just(1.0) | st.floats(0, 1),
)


@given(SKETCHES, SKETCHES, SKETCHES)
def test_merging_is_associative_and_commutative(a: TickVotes, b: TickVotes, c: TickVotes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "MOST_ENTITIES", 4)
        a, b, c = (merged(7, EMPTY, one) for one in (a, b, c))  # as a sketch is: at most 4 entities
        assert merged(7, a, b) == merged(7, b, a)
        assert merged(7, merged(7, a, b), c) == merged(7, a, merged(7, b, c))
        assert merged(7, a, EMPTY) == a


@given(ROWS, st.sets(st.sampled_from([f"v{number}" for number in range(8)])), st.data())
def test_what_is_told_apart_is_counted_whole_however_many_others_there_are(
    rows: list[Row], labels: set[str], data: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(votes_module, "LISTED", 2)
        found = EMPTY
        for row in data.draw(st.permutations(rows)):
            found = merged(7, found, sketched([row]), {"material": labels})
    for entity, features in by_name(sketched(rows)).items():
        whole, kept = features["material"], by_name(found)[entity]["material"]
        assert (kept.count, kept.missing) == (whole.count, whole.missing)
        assert {value: kept.values.get(value, 0) for value in labels} == {
            value: whole.values.get(value, 0) for value in labels
        }
        assert len(kept.values) <= 2 + len(labels)


def materials(seconds: int = 40, *, rows_a_vote: int = 4, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = make_rows(seed, seconds, copies=rows_a_vote)
    return frame.with_columns(
        material=pl.Series(rng.choice(["steel", "brass", "tin"], frame.height, p=[0.6, 0.3, 0.1]))
    )


def of(frame: pl.DataFrame) -> FeatureVotes:
    return category_votes(frame, ["material"], 1_000)[0]


def test_a_vote_of_a_category_is_the_share_of_each_value() -> None:
    frame = materials()
    votes = of(frame)
    first = frame.head(4)["material"].to_list()
    assert votes.labels == ("steel", "brass", "tin")
    assert (len(votes), votes.rows, votes.others, votes.cut) == (120, 480, 0, 0)
    assert votes.values[0].tolist() == [first.count(value) / 4 for value in votes.labels] + [0]
    np.testing.assert_allclose(votes.values.sum(axis=1), 1)


def test_votes_are_what_the_sketch_of_their_rows_says() -> None:
    frame = materials(5)
    ticks = frame["event_time"].dt.epoch("ms").to_numpy() // 1_000
    sketches = tally(frame, ticks, numbers=["brightness"], categories=["material"])
    (numbers,), votes = votes_of(frame, ["brightness"], 1_000), of(frame)
    for position, (number, name) in enumerate(zip(votes.ticks, votes.entities, strict=True)):
        sketch = by_name(sketches[int(number)])[name]
        assert numbers.values[position] == pytest.approx(sketch["brightness"].total / 4)
        shares = [sketch["material"].values.get(value, 0) / 4 for value in votes.labels]
        assert votes.values[position, :-1].tolist() == shares


def test_an_entity_without_a_value_votes_on_what_is_missing_alone() -> None:
    frame = materials(2).with_columns(
        material=pl.when(pl.col("entity") != "B").then("material"),
        brightness=pl.when(pl.col("entity") != "B").then("brightness").otherwise(float("nan")),
    )
    for votes in (of(frame), votes_of(frame, ["brightness"], 1_000)[0]):
        assert len(votes) == 4
        assert votes.gaps.shares.tolist() == [0, 1, 0, 0, 1, 0]
        _, missing, asked = votes.missing()
        assert missing.ravel().tolist() == [1, 1]
        assert asked.tolist() == [3, 3]


def test_of_many_values_the_commonest_of_the_older_half_are_told_apart() -> None:
    frame = materials(40, rows_a_vote=1)
    rare = [f"r{number:03}" for number in range(frame.height)]
    late = pl.col("event_time") >= START + timedelta(seconds=20)
    frame = frame.with_columns(
        material=pl.when(late & (pl.col("entity") == "A")).then(pl.lit("copper")).otherwise(pl.Series(rare))
    )
    votes = of(frame)
    assert len(votes.labels) == 15
    assert "copper" not in votes.labels
    assert votes.others == len(set(frame["material"])) - 15
    assert votes.values[:, -1].mean() > 0.8


def test_long_values_are_told_apart_as_the_sketch_names_them() -> None:
    frame = materials(3).with_columns(material=pl.lit("m" * 500) + pl.col("material"))
    votes = of(frame)
    assert len(votes.labels) == 3
    assert max(map(len, votes.labels)) <= 64


def test_what_listing_only_the_commonest_moves_is_known() -> None:
    frame = materials(3, rows_a_vote=200)
    many = [f"v{number:02}" for number in np.random.default_rng(0).integers(0, 40, frame.height)]
    assert of(frame).cut == 0
    assert of(frame.with_columns(material=pl.Series(many))).cut > 0.1


def test_parts_and_stretches_of_votes_keep_their_gaps() -> None:
    votes = of(materials(10))
    middle = votes.ticks[15]
    older, newer = votes.where(lambda ticks: ticks < middle), votes.where(lambda ticks: ticks >= middle)
    assert (len(older), len(newer), len(older.gaps.ticks)) == (15, 15, 15)
    stretch = votes.between(int(middle), int(middle))
    assert (len(stretch), len(stretch.entities), len(stretch.gaps.shares)) == (3, 3, 3)
