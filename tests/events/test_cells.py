"""Votes as arrays: what is packed reads back by name, and what is not of one size is refused."""

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.cells import by_name, chosen, grid, named, packed
from tidemill.events.records import FeatureSketch, TickVotes, decode, encode

VOTES = st.dictionaries(
    st.text(max_size=3),
    st.dictionaries(
        st.sampled_from(["x", "m", "x\0"]),
        st.builds(
            FeatureSketch,
            count=st.integers(1, 2**53),
            total=st.floats(allow_nan=False, allow_infinity=False),
            missing=st.integers(0, 9),
            values=st.dictionaries(st.text(max_size=2), st.integers(1, 9), max_size=3),
        ),
    ),
)


@given(VOTES, st.floats(0, 1))
def test_what_is_named_is_read_back_by_name_from_its_bytes(
    votes: dict[str, dict[str, FeatureSketch]], kept: float
) -> None:
    read = decode(TickVotes, encode(named(votes, kept)))
    assert by_name(read) == votes
    assert read.kept == kept
    assert (read.entities, read.features) == (sorted(read.entities), sorted(read.features))


def test_a_cell_has_its_count_its_total_and_what_is_missing() -> None:
    votes = named({"B": {"x": FeatureSketch(count=2, total=3.5, missing=1)}, "A": {"y": FeatureSketch(count=4)}})
    assert grid(votes)[:, 1, 0].tolist() == [2, 3.5, 1]
    assert grid(votes)[:, 0].tolist() == [[0, 4], [0, 0], [0, 0]]
    assert votes.cells[:8] == np.array(0.0).tobytes()


def test_the_votes_of_some_entities_are_theirs_whole() -> None:
    votes = {
        name: {"m": FeatureSketch(count=1, values={name: 1}), "x": FeatureSketch(count=2, total=of)}
        for name, of in (("A", 1.0), ("B", 2.0), ("C", 3.0))
    }
    found = chosen(named(votes), np.array([True, False, True]), 0.5)
    assert by_name(found) == {name: votes[name] for name in "AC"}
    assert found.kept == 0.5


WRONG_NUMBERS = ([np.nan, 1.0, 0.0], [1.0, np.inf, 0.0], [1.0, 1.0, -1.0], [1e300, 1.0, 0.0])
"""Of one vote: rows with a value, their sum, rows without."""


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": ""},
        {"entities": ["A", "B"]},
        {"features": []},
        {"values": {"m": []}},
        {"cells": "not base64"},
        {"features": ["m", "m"], "cells": base64.b64encode(np.ones(6).tobytes()).decode()},
        *({"cells": base64.b64encode(np.array(of).tobytes()).decode()} for of in WRONG_NUMBERS),
    ],
)
def test_votes_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """As a sketch is in which an earlier release put each vote by itself."""
    whole = msgspec.to_builtins(packed(["A"], ["m"], np.ones((3, 1, 1)), {"m": [{"a": 1}]}))
    assert decode(TickVotes, msgspec.json.encode(whole)).entities == ["A"]
    with pytest.raises(msgspec.ValidationError):
        decode(TickVotes, msgspec.json.encode(whole | wrong))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"7":{"A":{"x":{"count":1}}}}', type=dict[int, TickVotes])
