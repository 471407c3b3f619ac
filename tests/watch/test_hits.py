"""A closed tick as hits, and the moving means that signals show."""

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.cells import named
from tidemill.events.records import FeatureSketch
from tidemill.stats.drift import MISSING, ROWS
from tidemill.watch.hits import EVERYONE, MOST_NEW, Hits, hits_of, level, moved_on, new_values, number_hits
from tidemill.watch.quantity import ENTITIES, FeatureReference

NUMBER = FeatureReference(name="x", state="ok", tolerance=0.1, edges=(0.0, 1.0, 2.0), shares=(0, 0.5, 1))
NUMBER_OF_FEW = FeatureReference(name="x", state="ok", tolerance=0.1, entities={"A": 1.0, "B": 1.0})
MATERIAL = FeatureReference(
    name="m",
    kind="category",
    state="ok",
    tolerance=0.1,
    labels=("steel", "brass"),
    shares=(0.5, 0.5, 0.0),
    entity_shares={"A": (0.5, 0.5, 0.0)},
)
ERROR = FeatureReference(name="error", kind="loss", state="ok", tolerance=0.1, shares=(0.1,))
EDGES = np.append([0.0, 1.0, 2.0], np.full(ROWS - 3, np.inf))
NONE = np.full(ROWS, np.inf)


def said(feature: FeatureReference, votes: Mapping[str, FeatureSketch], edges: npt.NDArray[np.float64]) -> Hits:
    return hits_of(feature, named({entity: {feature.name: vote} for entity, vote in votes.items()}), edges)


def test_a_number_hits_the_edges_at_or_above_its_mean() -> None:
    found = said(NUMBER, {"A": FeatureSketch(count=2, total=2.0), "B": FeatureSketch(count=1, total=9.0)}, EDGES)
    assert found.hits[:3].tolist() == [0, 1, 1]
    assert set(found.votes.tolist()) == {2.0}
    assert found.hits[MISSING] == 0
    assert found.levels["x"] == {EVERYONE: 5.0}


def test_a_category_hits_each_value_by_its_share() -> None:
    votes = {
        "A": FeatureSketch(count=4, values={"steel": 1, "tin": 3}),
        "B": FeatureSketch(count=2, missing=2, values={"brass": 2}),
    }
    found = said(MATERIAL, votes, NONE)
    assert found.hits[:3].tolist() == [0.25, 1, 0.75]
    assert found.hits[MISSING] == 0.5
    assert found.votes[[0, MISSING]].tolist() == [2, 2]
    assert found.new == {"tin": 0.375}
    assert found.levels["m=0"] == {"A": 0.25, "B": 0.0, EVERYONE: 0.125}
    assert found.levels["m?"] == {"A": 0.0, "B": 0.5, EVERYONE: 0.25}


def test_values_that_a_sketch_left_out_are_others() -> None:
    found = said(MATERIAL, {"A": FeatureSketch(count=100, values={"steel": 60, "x": 10})}, NONE)
    assert found.hits[:3] == pytest.approx([0.6, 0, 0.4])


def test_a_loss_hits_by_its_mean() -> None:
    found = said(ERROR, {"A": FeatureSketch(count=4, total=1.0), "B": FeatureSketch(count=1, total=1.0)}, NONE)
    assert found.hits[0] == 1.25
    assert found.votes[0] == 2


def test_an_entity_without_a_value_votes_on_what_is_missing_alone() -> None:
    votes = {"A": FeatureSketch(count=0, missing=3), "B": FeatureSketch(count=0)}
    for feature, edges in ((NUMBER, EDGES), (MATERIAL, NONE), (ERROR, NONE)):
        found = said(feature, votes, edges)
        assert (found.votes[0], found.votes[MISSING], found.hits[MISSING]) == (0, 1, 1)


def test_a_field_of_another_kind_than_the_references_has_no_votes() -> None:
    """As after an update of the resource: a sum of 0 or a list without values says nothing."""
    category, number = FeatureSketch(count=3, values={"1": 3}), FeatureSketch(count=3, total=3.0)
    assert said(NUMBER, {"A": category}, EDGES).votes[0] == 0
    assert said(MATERIAL, {"A": number}, NONE).votes[0] == 0


SKETCHES = st.dictionaries(
    st.sampled_from("ABC"),
    st.builds(
        lambda values, rest, missing: FeatureSketch(
            count=sum(values.values()) + rest, missing=missing, values=dict(values)
        ),
        st.dictionaries(st.sampled_from(["steel", "brass", "tin", ""]), st.integers(1, 9), min_size=1),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
)


@given(SKETCHES)
def test_the_shares_of_each_vote_are_one_in_all(votes: dict[str, FeatureSketch]) -> None:
    found = said(MATERIAL, votes, NONE)
    assert found.hits[:3].sum() == pytest.approx(found.votes[0])
    assert (found.hits >= 0).all()
    assert (found.hits <= found.votes + 1e-9).all()


NUMBERS = st.builds(
    FeatureSketch, count=st.integers(0, 3), total=st.floats(-3, 3), missing=st.integers(0, 2), values=st.just({})
)


@given(st.dictionaries(st.sampled_from("ABC"), st.dictionaries(st.sampled_from("xy"), NUMBERS)))
def test_numbers_that_are_looked_at_together_hit_as_each_does_alone(
    votes: dict[str, dict[str, FeatureSketch]],
) -> None:
    features = [NUMBER, msgspec.structs.replace(NUMBER_OF_FEW, name="y")]
    edges = np.stack([EDGES, EDGES + 1])
    together = number_hits(features, named(votes), edges)
    for feature, found, at in zip(features, together, edges, strict=True):
        own = {entity: named[feature.name] for entity, named in votes.items() if feature.name in named}
        alone = said(feature, own, at)
        assert found.hits[:MISSING].tolist() == alone.hits[:MISSING].tolist()
        assert found.hits[MISSING] == pytest.approx(alone.hits[MISSING])
        assert found.votes.tolist() == alone.votes.tolist()
        assert found.levels.keys() == alone.levels.keys()
        for key, levels in found.levels.items():
            assert levels == pytest.approx(alone.levels[key])


def test_means_move_a_quarter_of_the_way_and_stay_where_nothing_comes() -> None:
    recent = moved_on({}, [(NUMBER_OF_FEW, _tick(A=1.0))])
    recent = moved_on(recent, [(NUMBER_OF_FEW, _tick(A=2.0, B=4.0))])
    assert recent["x"] == {"A": 1.25, "B": 4.0, EVERYONE: 1.5}
    assert moved_on(recent, [(NUMBER_OF_FEW, Hits(np.zeros(ROWS), np.zeros(ROWS), {}))]) == recent


def test_no_more_entities_are_remembered_than_a_reference_has() -> None:
    recent = moved_on({}, [(NUMBER_OF_FEW, _tick(**{f"e{number}": 1.0 for number in range(200)}))])
    assert len(recent["x"]) <= ENTITIES + 1


def test_new_values_fade_and_only_the_commonest_are_remembered() -> None:
    tick = said(MATERIAL, {"A": FeatureSketch(count=9, values={f"v{number}": 1 for number in range(9)})}, NONE)
    recent = moved_on({}, [(MATERIAL, tick)])
    assert set(recent[new_values(MATERIAL)].values()) == {0.25 / 9}
    for number in range(40):
        values = {f"{number}-{other}": 1 for other in range(15)}
        recent = moved_on(recent, [(MATERIAL, said(MATERIAL, {"A": FeatureSketch(count=15, values=values)}, NONE))])
    assert len(recent[new_values(MATERIAL)]) <= MOST_NEW
    steel = said(MATERIAL, {"A": FeatureSketch(count=1, values={"steel": 1})}, NONE)
    for _ in range(40):
        recent = moved_on(recent, [(MATERIAL, steel)])
    assert recent[new_values(MATERIAL)] == {}


def test_a_missing_rate_that_was_always_zero_is_not_remembered() -> None:
    none, some = FeatureSketch(count=1, total=1.0), FeatureSketch(count=1, total=1.0, missing=1)
    missing = level(NUMBER, MISSING)
    recent = moved_on({}, [(NUMBER, said(NUMBER, {"A": none}, EDGES))])
    assert missing not in recent
    recent = moved_on(recent, [(NUMBER, said(NUMBER, {"A": some}, EDGES))])
    assert recent[missing] == {EVERYONE: 0.5}
    recent = moved_on(recent, [(NUMBER, said(NUMBER, {"A": none}, EDGES))])
    assert recent[missing] == {EVERYONE: 0.375}


def _tick(**means: float) -> Hits:
    return said(NUMBER_OF_FEW, {name: FeatureSketch(count=1, total=mean) for name, mean in means.items()}, EDGES)
